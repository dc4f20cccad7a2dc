"""When a series of samples is too restless to be believed, and the words that say so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SPREAD_LIMIT = 0.10
"""Largest (p75 - p25) / p50 of a stable series."""
DRIFT_LIMIT = 0.10
"""Largest |median of the last third - median of the first third| / p50 of a stable series."""
BUSY_LOAD_PER_CORE = 0.5
"""Load average of one minute, per core, from which a machine counts as busy at the start."""


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
