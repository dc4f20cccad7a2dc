"""What an engine loses here: against torch on one input, and over the held-out images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...export.verify.metrics import IMAGE_METRIC, LATENT_METRIC
from ...export.verify.reference import Reference
from ...export.verify.verifier import Verifier
from ...runtime.bundle.graph_key import Precision
from ...runtime.bundle.manifest import GraphEntry, Manifest, Metric
from ...runtime.core.errors import MeasurementError
from ...runtime.engines.base import Arrays, Batch
from ..measure.case import COMPILED, EAGER, Agreement, Case

Run = Callable[[Batch], Arrays]

SPREAD_TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.1, "bf16": 1, "int8": 1}
"""Largest difference from torch over the standard deviation of the output. Below float32 it only
catches what is plainly wrong: drift is the gate's business."""
ROUNDING_TOLERANCE = 1e-6
"""What is allowed on top, over the largest value: some float32 roundings, for constant outputs."""


@dataclass
class Running:
    """An engine under test as a verifier takes it: those as installed are functions alone."""

    run: Run
    input_dtype: np.dtype[Any]
    name: str = "the engine under test"


@dataclass
class DriftGate:
    """What each engine drifts, found once and kept for all batches and paths."""

    reference: Reference
    manifest: Manifest
    _known: dict[str, Metric] = field(default_factory=dict)

    def judged(self, case: Case, run: Run, entry: GraphEntry | None = None) -> Case:
        """Hold an engine to the limits over the held-out images; torch is the reference.

        A compiled module is made for one batch size, and its agreement is checked anyway.

        Returns:
            The case with the worst figure, and with what the bundle's manifest announces of
            `entry`, where the engine runs one of our graphs.
        """
        if case.engine in {EAGER, COMPILED}:
            return case
        if case.how not in self._known:
            engine = Running(run, np.dtype(case.input_type or np.float32))
            self._known[case.how] = Verifier(self.reference).worst(case.graph, engine)
        name = "psnr" if case.graph.part == "decoder" else "latent_error"
        notes = announced(self.manifest, entry) if entry else ()
        return case.with_facts(**{name: self._known[case.how]}, notes=(*case.notes, *notes))


def announced(manifest: Manifest, entry: GraphEntry) -> tuple[str, ...]:
    """Return what the manifest's verification holds of a graph, in a clause for each output."""
    clauses = tuple(
        f"the manifest, {report.engine}: {metric.name} {metric.value:.3g} "
        f"(limit {metric.limit:g}), {'passed' if metric.passed else 'failed'}"
        for report in manifest.verification
        if report.key == entry.key and report.output in {"mu", "reconstruction"}
        for metric in report.metrics
        if metric.name in {LATENT_METRIC, IMAGE_METRIC} and metric.limit is not None
    )
    return clauses or ("the manifest holds no verification of this graph",)


def agreement_with(
    reference: Arrays, found: Arrays, engine: str, precision: Precision = "fp32"
) -> tuple[Agreement, ...]:
    """Compare an engine's outputs, all that it gives, with torch eager's on the same input.

    Raises:
        MeasurementError: They differ by more than the tolerance, or in shape: timing a wrong
            result is worthless.
    """
    compared = []
    for output, values in found.items():
        expected = reference[output]
        if values.shape != expected.shape:
            raise MeasurementError(
                f"{engine} gives {output} of shape {values.shape} and {EAGER} {expected.shape}: "
                "export the bundle again"
            )
        limit = SPREAD_TOLERANCE[precision] * float(expected.std())
        limit += ROUNDING_TOLERANCE * float(np.abs(expected).max())
        difference = float(np.abs(values - expected).max())
        if not difference <= limit:  # catches NaN too
            raise MeasurementError(
                f"{engine} and {EAGER} disagree on {output}: largest difference "
                f"{difference:.3g}, limit {limit:.3g}; a benchmark of a wrong result is "
                "worthless: export the bundle again, and report this if it stays"
            )
        compared.append(
            Agreement(output=output, reference=EAGER, max_difference=difference, limit=limit)
        )
    return tuple(compared)
