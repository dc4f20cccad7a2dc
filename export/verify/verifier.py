"""How far a graph's outputs are from the reference, in units that mean something, and the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.graph_key import Part, Precision
from ...runtime.bundle.manifest import GraphReport, Metric
from ...runtime.engines.base import Backend, Batch
from ...runtime.pixels.convert import input_from_luma
from ...training.model.latent_units import is_informative
from .batches import BATCH_SIZES, Decoded, Images, probe_sizes, run_in_batches
from .extremes import RISK
from .figures import (
    IMAGE_METRIC,
    NEIGHBOURS,
    SPREAD_FLOOR,
    Floats,
    floored_spread,
    largest,
    neighbour_agreement,
    psnr_db,
    rms,
    rms_per_image,
)
from .limits import LIMITS, Limits
from .metrics import (
    extreme_metric,
    latent_metrics,
    metric,
    non_finite_metric,
    note_on_few,
    psnr_metric,
)
from .probes import Probes

JUDGED_IMAGES = 256
"""So many held-out images judge a float graph at most."""
WORST_PROBE = "worst probe"
"""A note that begins so says which probe a graph failed on."""
FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class Spread:
    """How much each latent varies over the training data.

    Attributes:
        mu: (D,) standard deviations.
        log_var: (D,) standard deviations.
        posterior_variance: (D,) means of exp(log_var); by default those of the reference's images.
    """

    mu: npt.NDArray[np.float64]
    log_var: npt.NDArray[np.float64]
    posterior_variance: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """What torch float32 says of the held-out images, and of probes where there are any.

    Attributes:
        name: Who computed it.
        images: (N, S, S) uint8, fitted luma.
        mu: (N, D) float32.
        log_var: (N, D) float32.
        reconstruction: (N, 1, S, S) float32, decoded from `mu`; anything that gives rows.
        spread: How much each latent varies over the training data.
        probes: Images and latents unlike these; a bundle of an earlier version has none.
        risk: With which probability a batch of fresh images may exceed one bound.
    """

    name: str
    images: npt.NDArray[np.uint8]
    mu: npt.NDArray[np.float32]
    log_var: npt.NDArray[np.float32]
    reconstruction: Images
    spread: Spread
    probes: Probes | None = None
    risk: float = RISK

    def rows(self, rows: slice) -> Reference:
        """Return the same of some of the images, and of all probes."""
        return replace(
            self,
            images=self.images[rows],
            mu=self.mu[rows],
            log_var=self.log_var[rows],
            reconstruction=self.reconstruction[rows],
        )

    @property
    def posterior_variance(self) -> npt.NDArray[np.float64]:
        """(D,) means of exp(log_var)."""
        if self.spread.posterior_variance is not None:
            return self.spread.posterior_variance
        return np.asarray(np.exp(np.asarray(self.log_var, np.float64)).mean(axis=0), np.float64)

    @property
    def informative(self) -> npt.NDArray[np.bool_]:
        """(D,) which units are not collapsed; see `training.model.latent_units`."""
        return is_informative(self.spread.mu**2, self.posterior_variance)

    @property
    def judged_units(self) -> npt.NDArray[np.bool_]:
        """(D,) whose errors of `mu` are judged by `scale`: the informative, or all if none is."""
        informative = self.informative
        return informative if informative.any() else ~informative

    @property
    def scale(self) -> npt.NDArray[np.float64]:
        """(D,) what an error of `mu` is divided by.

        The spread of a unit that carries information. A collapsed one has next to none, and what
        it says is a draw from its posterior: its errors are divided by that deviation.
        """
        informative = self.informative
        scale = np.sqrt(np.maximum(self.posterior_variance, np.finfo(np.float32).tiny))
        if informative.any():
            scale[informative] = floored_spread(self.spread.mu[informative])
        return np.asarray(scale, np.float64)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a verdict by this reference does not cover, and by what units are judged."""
        informative = self.informative
        collapsed = len(informative) - int(informative.sum())
        notes = [*note_on_few(len(self.images))]
        if collapsed:
            notes.append(
                f"{collapsed} of {len(informative)} units are collapsed and carry no information: "
                "their mu is judged by its error over the posterior deviation"
            )
        if self.probes is None:
            notes.append(
                "held-out images alone judge, no probe images: what a graph does elsewhere is "
                "unknown"
            )
        return tuple(notes)


def encoder_reports(
    backend: Backend,
    reference: Reference,
    precision: Precision,
    *,
    sizes: Sequence[int] = BATCH_SIZES,
) -> tuple[tuple[GraphReport, ...], npt.NDArray[np.float32]]:
    """Compare all outputs of an encoder with the reference; return its (N, D) mu as well.

    Args:
        backend: The encoder; it may take luma or floats, and give `mu` only.
        reference: Its images are what is encoded, a part of them at each batch size, and its
            probes, all of them at each.
        precision: Chooses the limits.
        sizes: Images per run, in turn.
    """
    limits = LIMITS[precision]
    found = run_in_batches(backend, _encoder_input(backend, reference.images), *sizes)
    metrics = {"mu": _mu_metrics(found["mu"], reference, limits)}
    if "log_var" in found:
        metrics["log_var"] = _log_var_metrics(found["log_var"], reference, limits)
    notes = {output: list(reference.notes) for output in metrics}
    probes = _probed(backend, reference, limits, probe_sizes(sizes))
    for output, (probed, worst) in probes.items():
        metrics[output] += probed
        notes[output] += [] if all(one.passed for one in probed) else [worst]
    reports = tuple(
        _report(
            output,
            of_output,
            graph="encoder",
            precision=precision,
            engine=backend.name,
            reference=reference,
            notes=notes[output],
        )
        for output, of_output in metrics.items()
    )
    return reports, found["mu"]


def decoder_reports(
    backend: Backend,
    reference: Reference,
    precision: Precision,
    *,
    encoded: npt.NDArray[np.float32],
    sizes: Sequence[int] = BATCH_SIZES,
) -> tuple[GraphReport, ...]:
    """Compare a decoder's images with the reference's, a few at a time.

    Args:
        backend: The decoder.
        reference: Its `mu` is what is decoded, and its probes' latents at each batch size.
        precision: Chooses the limits.
        encoded: (N, D) mu of the encoder of the same precision, for the way through both.
        sizes: Latents per run, in turn.
    """
    limits, risk = LIMITS[precision], reference.risk
    true = Decoded.of(backend, reference.mu, reference.reconstruction, sizes)
    through = Decoded.of(backend, encoded, reference.reconstruction, sizes)
    metrics = [
        non_finite_metric(true.not_finite),
        metric("max error", true.largest, limit=limits.max_pixel),
        metric("RMS error", float(np.sqrt(true.squared_errors.mean()))),
        metric("cosine, worst image", float(true.cosines.min()), higher=True),
        psnr_metric(IMAGE_METRIC, true.squared_errors, limits.psnr_db, risk),
        psnr_metric("PSNR through both graphs", through.squared_errors, limits.psnr_db, risk),
    ]
    if (probes := reference.probes) is not None:
        probed = [
            Decoded.of(backend, probes.latents, probes.reconstruction, (size,))
            for size in probe_sizes(sizes)
        ]
        errors = np.stack([of_size.squared_errors for of_size in probed])
        # Where a few pixels alone are wrong, the PSNR of an image hides it.
        largest_error = float(np.max([of_size.largest for of_size in probed]))
        metrics.append(
            metric("max error, worst probe latent", largest_error, limit=limits.probe_pixel)
        )
        away = (probes.latents - reference.mu.mean(axis=0, dtype=np.float64)) / reference.scale
        near = rms_per_image(away) <= limits.probe_reach
        metrics.append(
            metric(
                "PSNR, worst probe latent",
                psnr_db(float(errors[:, near].max(initial=0))),
                unit="dB",
                limit=limits.probe_psnr_db,
                higher=True,
            )
        )
        if not near.all():
            name = f"PSNR, worst probe latent beyond {limits.probe_reach:g} spreads"
            metrics.append(metric(name, psnr_db(float(errors.max())), unit="dB", higher=True))
    report = _report(
        "reconstruction",
        metrics,
        graph="decoder",
        precision=precision,
        engine=backend.name,
        reference=reference,
        notes=reference.notes,
    )
    return (report,)


def activation_report(
    graph: Part, largest: float, *, engine: str, reference: Reference
) -> GraphReport:
    """Report whether the values inside a graph would fit FP16.

    An engine that computes FP16 graphs in float32, as ONNX Runtime may on a CPU, gives finite
    outputs where a GPU's arithmetic would overflow.

    Args:
        graph: Which half.
        largest: Largest magnitude inside the float32 graph over the reference's images.
        engine: Who computed it.
        reference: The images.
    """
    return _report(
        "activations",
        [metric("largest value inside, float32", largest, limit=FLOAT16_MAX)],
        graph=graph,
        precision="fp16",
        engine=engine,
        reference=reference,
    )


def _mu_metrics(found: Floats, reference: Reference, limits: Limits) -> list[Metric]:
    scale, judged = reference.scale, reference.judged_units
    limit_of = (limits.max_spread, limits.rms_spread)
    metrics = latent_metrics(found, reference.mu, scale, judged, limit_of, risk=reference.risk)
    error = np.abs(np.asarray(found, np.float64) - reference.mu)
    if not judged.all():
        collapsed = (error / scale)[:, ~judged].max(axis=1)
        name = "collapsed units, max error / posterior deviation"
        metrics.append(extreme_metric(name, collapsed, limits.max_spread, reference.risk))
    deviation = np.exp(np.asarray(reference.log_var, np.float64) / 2)
    agreement = neighbour_agreement(found, reference.mu)
    return [
        *metrics,
        # Reported only, as that deviation can be next to nothing.
        metric("max error / posterior deviation", largest(error / deviation)),
        metric(
            f"agreement of the {NEIGHBOURS} nearest neighbours",
            agreement,
            limit=limits.neighbours,
            higher=True,
        ),
    ]


def _log_var_metrics(found: Floats, reference: Reference, limits: Limits) -> list[Metric]:
    """The errors of `log_var`, and how wrong the posterior deviation is that it stands for.

    A deviation below a hundredth of the unit's spread is as good as none, whatever its logarithm:
    errors are divided by that hundredth there.
    """
    given, true = (np.exp(np.asarray(v, np.float64) / 2) for v in (found, reference.log_var))
    relative = np.abs(given - true) / np.maximum(true, SPREAD_FLOOR * reference.scale)
    spread = floored_spread(reference.spread.log_var)
    everything = np.ones(len(spread), np.bool_)
    name, limit = "max error of deviation, RMS of an image", limits.max_deviation
    return [
        *latent_metrics(
            found, reference.log_var, spread, everything, (None, None), risk=reference.risk
        ),
        metric("max error of deviation", largest(relative)),
        extreme_metric(name, rms_per_image(relative), limit, reference.risk),
        metric("RMS error of deviation", rms(relative), limit=limits.rms_deviation),
    ]


def _probed(
    backend: Backend, reference: Reference, limits: Limits, sizes: Sequence[int]
) -> dict[str, tuple[list[Metric], str]]:
    """Return for each output the worst and the median probe's figure, and which is the worst.

    A probe may lie many spreads from all data, and rounding errors grow with the values that are
    rounded: an error counts by its share of that distance.
    """
    probes = reference.probes
    if probes is None:
        return {}
    # name: (reference, typical value, what an error is divided by, limit, figure)
    judged: dict[str, tuple[Floats, Floats, Floats, float, str]] = {
        "mu": (
            probes.mu,
            reference.mu,
            reference.scale,
            limits.probe_spread,
            "RMS error / distance from the mean",
        ),
        "log_var": (
            probes.log_var,
            reference.log_var,
            np.full(probes.mu.shape[1], 2.0),  # the logarithm of the deviation
            limits.probe_deviation,
            "RMS error of deviation / distance from the mean",
        ),
    }
    inputs = _encoder_input(backend, probes.images)
    runs = [run_in_batches(backend, inputs, size) for size in sizes]
    found: dict[str, tuple[list[Metric], str]] = {}
    for output in runs[0]:
        true, usual, scale, limit, name = judged[output]
        distance = rms_per_image((true - usual.mean(axis=0, dtype=np.float64)) / scale)
        shares = np.stack([rms_per_image((run[output] - true) / scale) for run in runs])
        shares /= np.maximum(distance, 1)
        turn, image = map(int, np.unravel_index(np.argmax(shares), shares.shape))
        where = f"{WORST_PROBE} of {output}: {probes.names[image]}, in batches of {sizes[turn]}"
        found[output] = (
            [
                metric(f"worst probe image, {name}", float(shares[turn, image]), limit=limit),
                metric(
                    f"median probe image, {name}",
                    float(np.median(shares, axis=1).max()),
                    limit=limits.probe_median,
                ),
            ],
            where,
        )
    return found


def _encoder_input(backend: Backend, images: npt.NDArray[np.uint8]) -> Batch:
    luma = images[:, None]
    return luma if backend.input_dtype == np.uint8 else input_from_luma(luma)


def _report(
    output: str,
    metrics: Sequence[Metric],
    *,
    graph: Part,
    precision: Precision,
    engine: str,
    reference: Reference,
    notes: Sequence[str] = (),
) -> GraphReport:
    if precision == "fp16" and "CPUExecutionProvider" in engine:
        engine += ", which may compute FP16 in float32"
    return GraphReport(
        graph=graph,
        precision=precision,
        output=output,
        engine=engine,
        reference=reference.name,
        images=len(reference.images),
        notes=tuple(notes),
        metrics=tuple(metrics),
    )
