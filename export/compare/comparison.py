"""Comparison: two graphs on the same inputs, output by output, by the gate's own figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.manifest import Metric
from ...runtime.core.errors import DataError
from ...runtime.engines.base import Arrays, Batch
from ..verify.batches import Decoded, probe_sizes, run_in_batches
from ..verify.extremes import RISK
from ..verify.limits import Limits
from ..verify.metrics import metric, note_on_few, psnr_metric
from ..verify.reference import Reference, Spread
from ..verify.reports import (
    WORST_PROBE,
    image_metrics,
    log_var_metrics,
    mu_metrics,
    probe_metrics,
)
from .graphs import UserGraph
from .images import Inputs
from .outputs import Pair
from .result import OutputResult

Floats = npt.NDArray[np.float32]
_FAR = 1.0
"""Images further beyond black or white than so many times their distance are of another range."""


@dataclass(frozen=True)
class Comparison:
    """Two graphs on the same N inputs, and on probes of them where there are any."""

    reference: UserGraph
    candidate: UserGraph
    inputs: Inputs
    limits: Limits
    sizes: tuple[int, ...]  # images per run of the candidate, in turn
    image_range: tuple[float, float]  # black and white of what the graphs give
    probes: tuple[tuple[str, ...], npt.NDArray[np.uint8]] | None = None  # names, pictures

    def results(self, pairs: Sequence[Pair]) -> tuple[OutputResult, ...]:
        """Return the report on each output.

        A DataError where the reference's outputs allow no judgement.
        """
        flat = [pair for pair in pairs if pair.kind != "image"]
        found = dict(zip((pair.output for pair in flat), self._latents(flat), strict=True))
        images = (self._image(pair) for pair in pairs if pair.kind == "image")
        return (*found.values(), *images)

    def _latents(self, pairs: Sequence[Pair]) -> list[OutputResult]:
        if not pairs:
            return []
        own = _Latents(self.reference, {pair.output: pair.output for pair in pairs})
        other = _Latents(self.candidate, {pair.candidate_output: pair.output for pair in pairs})
        rows = self.inputs.rows
        true, found = run_in_batches(own, rows, 1), run_in_batches(other, rows, *self.sizes)
        for pair in pairs:
            self._check_judgeable(pair, true[pair.output])
        name_of = {pair.kind: pair.output for pair in pairs}
        sizes = probe_sizes(self.sizes)
        names, pictures = self.probes or ((), None)
        true_probes = {} if pictures is None else run_in_batches(own, pictures, 1)
        runs = [] if pictures is None else [run_in_batches(other, pictures, n) for n in sizes]
        results = []
        for pair in pairs:
            of_posterior = pair.kind in {"mu", "log_var"}
            mu = true[name_of["mu"] if of_posterior else pair.output]
            log_var = true[name_of["log_var"]] if of_posterior else None
            reference = self._reference(mu, log_var)
            values, probed = found[pair.output], [run[pair.output] for run in runs]
            if pair.kind == "log_var" and log_var is not None:
                metrics = log_var_metrics(values, log_var, reference, self.limits)
                usual, scale = log_var, np.full(mu.shape[1], 2.0)
                limit, figure = self.limits.probe_deviation, "RMS error of deviation"
            else:
                metrics = mu_metrics(values, reference, self.limits)
                usual, scale = mu, reference.scale
                limit, figure = self.limits.probe_spread, "RMS error"
            notes = list(reference.notes)
            if runs:
                notes.pop()  # that there are no probes
                judged = _finite(true_probes[pair.output])
                if judged.any():
                    of_probes, (turn, image) = probe_metrics(
                        [run[judged] for run in probed],
                        true_probes[pair.output][judged],
                        *(usual, scale, figure),
                        limits=(limit, self.limits.probe_median),
                    )
                    metrics += of_probes
                    if not all(one.passed for one in of_probes):
                        name = names[int(np.flatnonzero(judged)[image])]
                        notes.append(
                            f"{WORST_PROBE} of {pair.output}: {name}, in batches of {sizes[turn]}"
                        )
                notes += _on_left_out(names, judged, pair.output)
            results.append(_result(pair, metrics, notes))
        return results

    def _reference(self, mu: Floats, log_var: Floats | None) -> Reference:
        """Return what (N, D) latents are compared with; their spread is that over the images."""
        of_mu = mu.std(axis=0, dtype=np.float64)
        of_log_var = of_mu if log_var is None else log_var.std(axis=0, dtype=np.float64)
        return Reference(
            name=self.reference.name,
            images=self.inputs.rows,
            mu=mu,
            log_var=log_var,
            reconstruction=np.empty((len(mu), 0), np.float32),
            spread=Spread(of_mu, of_log_var),
        )

    def _check_judgeable(self, pair: Pair, values: Floats) -> None:
        path, name = self.reference.path, pair.output
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            raise DataError(
                f"{path} gives NaN or Inf in {name} for image {int(np.argmin(finite))}, counted "
                "from 0: a reference must be right, name another"
            )
        if pair.kind == "latent" and not np.any(values.std(axis=0, dtype=np.float64) > 0):
            why = "there is one image" if len(values) == 1 else "it is the same for all images"
            raise DataError(
                f"{path}: {name} has no spread, as {why}, so no error can be judged: name images "
                "that are unlike each other"
            )

    def _image(self, pair: Pair) -> OutputResult:
        low, high = self.image_range
        last, candidate_last = pair.channels_last
        true = _Pictures(self.reference, pair.output, self.image_range, channels_last=last)
        found = _Pictures(
            *(self.candidate, pair.candidate_output, self.image_range),
            channels_last=candidate_last,
        )
        rows = _Rows(true, self.inputs.rows)
        decoded = Decoded.of(found, self.inputs.rows, rows, self.sizes, output=_Pictures.output)
        if rows.not_finite:
            raise DataError(
                f"{self.reference.path} gives NaN or Inf in {pair.output}: a reference must be "
                "right, name another"
            )
        metrics = image_metrics(decoded, self.limits, RISK)
        notes = list(note_on_few(len(self.inputs.rows)))
        if rows.lowest < -_FAR or rows.highest > 1 + _FAR:
            lowest, highest = (low + end * (high - low) for end in (rows.lowest, rows.highest))
            notes.append(
                f"{pair.output} of the reference reaches from {lowest:.3g} to {highest:.3g}, far "
                f"beyond black ({low:g}) and white ({high:g}): see --image-range"
            )
        if self.probes is not None:
            more, left_out = self._probed_image(pair, true, found)
            metrics += more
            notes += left_out
        return _result(pair, metrics, notes)

    def _probed_image(
        self, pair: Pair, true: _Pictures, found: _Pictures
    ) -> tuple[list[Metric], tuple[str, ...]]:
        """Return the worst probe's figures, and what is left out."""
        names, pictures = self.probes or ((), np.empty(0, np.uint8))
        expected = run_in_batches(true, pictures, 1)[_Pictures.output]
        judged = _finite(expected)
        left_out = _on_left_out(names, judged, pair.output)
        if not judged.any():
            return [], left_out
        parts = [
            Decoded.of(found, pictures[judged], expected[judged], (n,), output=_Pictures.output)
            for n in probe_sizes(self.sizes)
        ]
        pixel = float(np.max([part.largest for part in parts]))
        errors = np.stack([part.squared_errors for part in parts])
        return [
            metric("max error, worst probe", pixel, limit=self.limits.probe_pixel),
            psnr_metric("PSNR, worst probe", errors, self.limits.probe_psnr_db, risk=None),
        ], left_out


class _Latents:
    """Some outputs of a graph, (N, D), by the names that the reference has for them."""

    def __init__(self, graph: UserGraph, names: dict[str, str]) -> None:
        self.name, self.input_dtype = graph.name, graph.input_dtype
        self._graph, self._names = graph, names

    def run(self, batch: Batch, /) -> Arrays:
        """Run the graph once."""
        found = self._graph.run(batch)
        return {
            other: np.asarray(found[name], np.float32).reshape(len(batch), -1)
            for name, other in self._names.items()
        }


class _Pictures:
    """One output of a graph as images in [0, 1], (N, C, H, W)."""

    output = "image"

    def __init__(
        self, graph: UserGraph, name: str, ends: tuple[float, float], *, channels_last: bool
    ) -> None:
        self.name, self.input_dtype = graph.name, graph.input_dtype
        self._graph, self._output, self._ends = graph, name, ends
        self._channels_last = channels_last

    def run(self, batch: Batch, /) -> Arrays:
        """Run the graph once."""
        low, high = self._ends
        values = self._graph.run(batch)[self._output]
        if self._channels_last:
            values = values.transpose(0, 3, 1, 2)
        return {self.output: (values - np.float32(low)) / np.float32(high - low)}


class _Rows:
    """What the reference makes of rows when they are asked for; all would not fit in memory."""

    def __init__(self, pictures: _Pictures, inputs: npt.NDArray[Any]) -> None:
        self._pictures, self._inputs = pictures, inputs
        self.not_finite, self.lowest, self.highest = 0, 0.0, 1.0

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, rows: Any, /) -> Floats:
        found = run_in_batches(self._pictures, self._inputs[rows], 1)[_Pictures.output]
        self.not_finite += int(np.count_nonzero(~np.isfinite(found)))
        self.lowest = min(self.lowest, float(found.min()))
        self.highest = max(self.highest, float(found.max()))
        return found


def _on_left_out(
    names: Sequence[str], judged: npt.NDArray[np.bool_], output: str
) -> tuple[str, ...]:
    """Return a clause where the reference itself gives no numbers for some probes."""
    lost = [name for name, is_judged in zip(names, judged, strict=True) if not is_judged]
    if not lost:
        return ()
    return (f"the reference gives NaN or Inf in {output} for probes: {', '.join(lost)}",)


def _finite(values: Floats) -> npt.NDArray[np.bool_]:
    """Return which of N outputs hold numbers alone, (N,)."""
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1), np.bool_)


def _result(pair: Pair, metrics: Sequence[Metric], notes: Sequence[str]) -> OutputResult:
    return OutputResult(
        output=pair.output,
        candidate_output=pair.candidate_output,
        kind=pair.kind,
        shape=pair.shape,
        passed=all(one.passed for one in metrics),
        notes=tuple(notes),
        metrics=tuple(metrics),
    )
