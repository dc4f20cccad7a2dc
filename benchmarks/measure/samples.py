"""Every sample of one thing as it was taken, its percentiles, and whether it is stable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from ...runtime.core.errors import MeasurementError
from ...runtime.core.spec import StrictModel

Unit = Literal["ns", "bytes"]

_SHOWN: dict[Unit, tuple[str, float]] = {"ns": ("ms", 1e6), "bytes": ("MiB", 2.0**20)}
"""What people read a unit in, and how much of the unit one of that is."""

SPREAD_LIMIT = 0.10
"""Largest (p75 - p25) / p50 of a stable series."""
DRIFT_LIMIT = 0.10
"""Largest |median of the last third - median of the first third| / p50 of a stable series."""
BUSY_LOAD_PER_CORE = 0.5
"""Load average of one minute, per core, from which a machine counts as busy at the start."""


class Samples(StrictModel):
    """Every sample of one stage, in the order in which they were taken, and its percentiles."""

    unit: Unit = "ns"  # Of the samples
    samples: tuple[int, ...] = Field(min_length=1)  # Nanoseconds or bytes, each above 0
    p50: float  # Linear-interpolated percentile, in milliseconds or MiB, as are the next three
    p95: float  # The same
    p99: float  # The same
    max: float  # The largest sample

    @model_validator(mode="after")
    def _check_percentiles(self) -> Samples:
        if min(self.samples) <= 0:
            raise ValueError(f"a sample of {min(self.samples)} {self.unit}: each must be above 0")
        given = (self.p50, self.p95, self.p99, self.max)
        found = _percentiles(self.samples, self.unit)
        if not all(map(math.isclose, given, found)):
            raise ValueError(f"percentiles {given} are not those of the samples, {found}")
        return self

    @property
    def shown_in(self) -> str:
        """The unit of the percentiles: "ms" or "MiB"."""
        return _SHOWN[self.unit][0]

    @property
    def shown(self) -> tuple[float, ...]:
        """The samples in the unit of the percentiles."""
        scale = _SHOWN[self.unit][1]
        return tuple(sample / scale for sample in self.samples)


def samples_of(samples: Sequence[int], unit: Unit = "ns") -> Samples:
    """Return samples with their percentiles.

    Raises:
        MeasurementError: There are none.
    """
    if not len(samples):
        raise MeasurementError("no samples were taken, so there is nothing to say of them")
    p50, p95, p99, largest = _percentiles(samples, unit)
    return Samples(unit=unit, samples=tuple(samples), p50=p50, p95=p95, p99=p99, max=largest)


def spread_of(samples_ns: Sequence[int]) -> float:
    """Return the interquartile range over the median: a spread that outliers cannot move."""
    p25, p50, p75 = np.percentile(np.asarray(samples_ns, np.float64), (25, 50, 75))
    return float((p75 - p25) / p50)


def drift_of(samples_ns: Sequence[int]) -> float:
    """Return how far the last third's median is above the first third's, over the median.

    Zero where there are fewer than three samples.
    """
    values = np.asarray(samples_ns, np.float64)
    third = len(values) // 3
    if not third:
        return 0.0
    change = np.median(values[-third:]) - np.median(values[:third])
    return float(change / np.median(values))


def warnings_of(stage: str, samples_ns: Sequence[int]) -> tuple[str, ...]:
    """Return one sentence for each rule that a series breaks."""
    found = []
    spread, drift = spread_of(samples_ns), drift_of(samples_ns)
    if spread > SPREAD_LIMIT:
        found.append(f"{stage}: the middle half spans {spread:.0%} of the median")
    if abs(drift) > DRIFT_LIMIT:
        found.append(f"{stage}: last third above first by {drift:+.0%} of the median")
    return tuple(found)


def busy_warning(load_per_core: float) -> str | None:
    """Return a sentence where the machine was busy before the benchmark began."""
    if load_per_core <= BUSY_LOAD_PER_CORE:
        return None
    return (
        f"the machine was busy at the start: load {load_per_core:.2f} per core "
        f"(limit {BUSY_LOAD_PER_CORE:.2f}); stop other work and run again"
    )


def _percentiles(samples: Sequence[int], unit: Unit) -> tuple[float, ...]:
    values = np.asarray(samples, np.float64) / _SHOWN[unit][1]
    return tuple(float(value) for value in np.percentile(values, (50, 95, 99, 100)))
