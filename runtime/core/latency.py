"""Durations in nanoseconds, and what is said of them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

NS_PER_MS = 1e6
_FIRST_NS = 100
_WIDTH = math.log(1.005)
_CELLS = 5100


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
    """Durations per stage, in the order in which stages were first seen; its size never grows.

    Each is counted in one of 5,100 cells whose width is half a percent of what it holds, so
    that percentiles of a run of any length are right to a quarter of a percent, from 100 ns to
    two hours. The maximum is exact.
    """

    def __init__(self) -> None:
        self._cells: dict[str, array[int]] = {}
        self._max_ns: dict[str, int] = {}

    def add(self, stages_ns: Mapping[str, int]) -> None:
        """Add one sample to each stage named."""
        for stage, duration_ns in stages_ns.items():
            cells = self._cells.get(stage)
            if cells is None:
                cells = self._cells[stage] = array("q", bytes(8 * _CELLS))
                self._max_ns[stage] = duration_ns
            cells[_cell_of(duration_ns)] += 1
            self._max_ns[stage] = max(self._max_ns[stage], duration_ns)

    def percentiles(self) -> dict[str, Percentiles]:
        """Return the percentiles of every stage that has samples."""
        return {stage: self._percentiles(stage) for stage in self._cells}

    def _percentiles(self, stage: str) -> Percentiles:
        counts = np.frombuffer(self._cells[stage], np.int64)
        reached, count = np.cumsum(counts), int(counts.sum())
        largest = self._max_ns[stage] / NS_PER_MS
        p50, p95, p99 = (
            min(largest, _middle_ms(int(np.searchsorted(reached, rank))))
            for rank in (math.ceil(share * count) for share in (0.50, 0.95, 0.99))
        )
        return Percentiles(count, p50, p95, p99, largest)


def _cell_of(duration_ns: int) -> int:
    """Return the cell of a duration: the first holds all up to 100 ns."""
    if duration_ns <= _FIRST_NS:
        return 0
    return min(_CELLS - 1, 1 + int(math.log(duration_ns / _FIRST_NS) / _WIDTH))


def _middle_ms(cell: int) -> float:
    """Return what a cell stands for: its middle on a logarithmic axis; zero for the first."""
    return _FIRST_NS * math.exp((cell - 0.5) * _WIDTH) / NS_PER_MS if cell else 0.0


def latency_table(stages: Mapping[str, Percentiles]) -> Table:
    """Return a table of stages in milliseconds."""
    table = Table()
    table.add_column("stage")
    for heading in ("p50 ms", "p95 ms", "p99 ms", "max ms"):
        table.add_column(heading, justify="right")
    for stage, value in stages.items():
        figures = (value.p50, value.p95, value.p99, value.max)
        table.add_row(stage, *(f"{figure:.2f}" for figure in figures))
    return table
