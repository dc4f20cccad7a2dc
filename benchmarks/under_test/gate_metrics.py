"""The drift gate on this machine: what an engine loses here, and what the bundle announced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...export.verify.figures import IMAGE_METRIC, LATENT_METRIC
from ...export.verify.verifier import Verifier
from ...runtime.bundle.graph_key import GraphKey
from ...runtime.bundle.manifest import GraphEntry, Manifest, Metric
from .torch_engines import Run


@dataclass(frozen=True)
class GateMetrics:
    """What the gate found.

    Attributes:
        latent_error: Of `mu`; None for a decoder.
        psnr: Of the reconstructions; None for an encoder.
        notes: What the bundle's manifest says of the same graph.
    """

    latent_error: Metric | None = None
    psnr: Metric | None = None
    notes: tuple[str, ...] = ()


@dataclass
class Running:
    """An engine under test as a verifier takes it: those as installed are functions alone."""

    run: Run
    input_dtype: np.dtype[Any]
    name: str = "the engine under test"


def gate_metrics(run: Run, key: GraphKey, verifier: Verifier, *, takes_luma: bool) -> GateMetrics:
    """Run an engine over the verifier's images and hold it to the limits.

    Args:
        run: The engine.
        key: Which graph it runs.
        verifier: Has the images and what float32 says of them.
        takes_luma: Whether an encoder takes 8-bit luma.
    """
    dtype: np.dtype[Any] = np.dtype(np.uint8 if takes_luma else np.float32)
    worst = verifier.worst(key, Running(run, dtype))
    return GateMetrics(psnr=worst) if key.part == "decoder" else GateMetrics(latent_error=worst)


def announced(manifest: Manifest, entry: GraphEntry) -> tuple[str, ...]:
    """Return what the manifest's verification says of a graph, in a clause for each output."""
    clauses = []
    for report in manifest.verification:
        if report.key != entry.key or report.output not in {"mu", "reconstruction"}:
            continue
        for metric in report.metrics:
            if metric.name in {LATENT_METRIC, IMAGE_METRIC} and metric.limit is not None:
                verdict = "passed" if metric.passed else "failed"
                clauses.append(
                    f"the manifest, {report.engine}: {metric.name} {metric.value:.3g} "
                    f"(limit {metric.limit:g}), {verdict}"
                )
    return tuple(clauses) or ("the manifest holds no verification of this graph",)
