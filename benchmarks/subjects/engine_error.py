"""The drift gate on this machine: what an engine loses here, and what the bundle announced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...export.verify.batches import BATCH_SIZE
from ...export.verify.figures import IMAGE_METRIC, LATENT_METRIC, Floats, worst_psnr_db
from ...export.verify.limits import LIMITS
from ...export.verify.verifier import Reference
from ...runtime.bundle.graph_key import Part, Precision
from ...runtime.bundle.manifest import GraphEntry, Manifest, Metric
from ...runtime.pixels.convert import input_from_luma
from .torch_engines import Run


@dataclass(frozen=True)
class Drift:
    """What the gate found.

    Attributes:
        latent_error: Of `mu`; None for a decoder.
        psnr: Of the reconstructions; None for an encoder.
        notes: What the bundle's manifest says of the same graph.
    """

    latent_error: Metric | None = None
    psnr: Metric | None = None
    notes: tuple[str, ...] = ()


def drift_of(
    run: Run,
    graph: Part,
    precision: Precision,
    reference: Reference,
    *,
    takes_luma: bool,
) -> Drift:
    """Run an engine over the reference's images and hold it to the limits.

    Args:
        run: The engine.
        graph: Which half it runs.
        precision: Chooses the limits.
        reference: The images and what float32 says of them.
        takes_luma: Whether an encoder takes 8-bit luma.
    """
    if graph == "decoder":
        found = _in_batches(run, reference.mu)["reconstruction"]
        limit = LIMITS[precision].psnr_db
        value = worst_psnr_db(found, np.asarray(reference.reconstruction))
        return Drift(
            psnr=Metric(
                name=IMAGE_METRIC,
                value=value,
                unit="dB",
                limit=limit,
                passed=value >= limit,
                higher_is_better=True,
            )
        )
    luma = reference.images[:, None]
    mu = _in_batches(run, luma if takes_luma else input_from_luma(luma))["mu"]
    error = (np.asarray(mu, np.float64) - reference.mu) / reference.scale
    limit = LIMITS[precision].max_spread
    value = float(np.abs(error[:, reference.judged_units]).max())
    return Drift(
        latent_error=Metric(name=LATENT_METRIC, value=value, limit=limit, passed=value <= limit)
    )


def announced(manifest: Manifest, entry: GraphEntry) -> tuple[str, ...]:
    """Return what the manifest's verification says of a graph, in a clause for each output."""
    clauses = []
    for report in manifest.verification:
        if report.title != entry.title or report.output not in {"mu", "reconstruction"}:
            continue
        for metric in report.metrics:
            if metric.name in {LATENT_METRIC, IMAGE_METRIC} and metric.limit is not None:
                verdict = "passed" if metric.passed else "failed"
                clauses.append(
                    f"the manifest, {report.engine}: {metric.name} {metric.value:.3g} "
                    f"(limit {metric.limit:g}), {verdict}"
                )
    return tuple(clauses) or ("the manifest holds no verification of this graph",)


def _in_batches(run: Run, inputs: Floats | np.ndarray) -> dict[str, Floats]:
    parts = [
        run(np.ascontiguousarray(inputs[start : start + BATCH_SIZE]))
        for start in range(0, len(inputs), BATCH_SIZE)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
