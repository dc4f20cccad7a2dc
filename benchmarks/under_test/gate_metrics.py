"""The drift gate on this machine: what an engine loses here, and what the bundle announced."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...export.verify.metrics import IMAGE_METRIC, LATENT_METRIC
from ...export.verify.verifier import Verifier
from ...runtime.bundle.graph_key import GraphKey
from ...runtime.bundle.manifest import GraphEntry, Manifest, Metric
from ..measure.case import COMPILED, EAGER, Case
from .model_under_test import ModelUnderTest
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


@dataclass
class DriftGate:
    """What each engine drifts, found once and kept for all batches and paths."""

    tested: ModelUnderTest
    _known: dict[str, GateMetrics] = field(default_factory=dict)

    def of(self, case: Case, run: Run, entry: GraphEntry | None = None) -> GateMetrics:
        """Hold an engine to the limits over the held-out images; torch is the reference.

        A compiled module is made for one batch size, and its agreement is checked anyway.

        Args:
            case: Says which engine it is, and what it takes and gives.
            run: The engine.
            entry: The bundle's graph that it runs, where it is one of ours.
        """
        if case.engine in {EAGER, COMPILED}:
            return GateMetrics()
        if case.how not in self._known:
            is_decoder = case.outputs == "reconstruction"
            key = GraphKey("decoder" if is_decoder else "encoder", case.precision)
            engine = Running(run, np.dtype(case.input_type or np.float32))
            worst = Verifier(self.tested.reference).worst(key, engine)
            self._known[case.how] = GateMetrics(
                latent_error=None if is_decoder else worst,
                psnr=worst if is_decoder else None,
                notes=announced(self.tested.bundle.manifest, entry) if entry else (),
            )
        return self._known[case.how]


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
