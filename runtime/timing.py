"""Durations in nanoseconds, and what is said of them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds: linear-interpolated percentiles of `count` samples, and the largest."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


def percentiles_of(samples_ns: Sequence[int]) -> Percentiles | None:
    """Return the percentiles of durations in nanoseconds, or None where there are none."""
    if not len(samples_ns):
        return None
    values = np.asarray(samples_ns, np.float64) / NS_PER_MS
    p50, p95, p99 = (float(value) for value in np.percentile(values, (50, 95, 99)))
    return Percentiles(len(values), p50, p95, p99, float(values.max()))


class StageTimes:
    """Samples per stage, in nanoseconds, in the order in which stages were first seen."""

    def __init__(self) -> None:
        self._samples: dict[str, array[int]] = {}

    def add(self, stages_ns: Mapping[str, int]) -> None:
        """Add one sample to each stage named."""
        for stage, duration_ns in stages_ns.items():
            self._samples.setdefault(stage, array("q")).append(duration_ns)

    def percentiles(self) -> dict[str, Percentiles]:
        """Return the percentiles of every stage that has samples."""
        found = {stage: percentiles_of(samples) for stage, samples in self._samples.items()}
        return {stage: value for stage, value in found.items() if value is not None}


def table_of(stages: Mapping[str, Percentiles]) -> Table:
    """Return a table of stages in milliseconds."""
    table = Table()
    table.add_column("stage")
    for heading in ("p50 ms", "p95 ms", "p99 ms", "max ms"):
        table.add_column(heading, justify="right")
    for stage, value in stages.items():
        figures = (value.p50, value.p95, value.p99, value.max)
        table.add_row(stage, *(f"{figure:.2f}" for figure in figures))
    return table
