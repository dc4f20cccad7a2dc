"""Estimates from few or dependent samples: shrunk covariances, effective counts, nearest images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...runtime.ood.tail import TAIL_LEVEL

Float64s = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_CHUNK = 256


def shrinkage_of(samples: Float64s) -> float:
    """Return how far a covariance is to be moved towards its own diagonal, from 0 to 1.

    The estimate of Ledoit & Wolf (2004, "A well-conditioned estimator for large-dimensional
    covariance matrices") on standardised samples, whose target, the identity, is then the
    diagonal: latents differ in scale by orders of magnitude, and the scale itself is well known.

    Args:
        samples: (N, D), as they are; a dimension that never moves counts as independent.
    """
    away = samples - samples.mean(0)
    deviation = away.std(0)
    moving = deviation > 0
    scaled = away[:, moving] / deviation[moving]
    count, size = scaled.shape
    if size < 2:
        return 0.0
    correlation = scaled.T @ scaled / count
    distance = float(((correlation - np.eye(size)) ** 2).sum())
    squares = scaled**2
    noise = float((squares.T @ squares / count - correlation**2).sum()) / count
    return 1.0 if distance <= 0 else min(1.0, noise / distance)


def effective_count(values: Float64s) -> float:
    """Return how many independent values tell as much of a mean as these (N,), taken in order.

    N / (1 + 2 (r1 + r2 + ...)) with the autocorrelations r, summed in pairs for as long as a pair
    is positive (the initial positive sequence of Geyer 1992); from 1 to N.
    """
    count = len(values)
    away = values - values.mean()
    variance = float(np.dot(away, away))
    if variance == 0:
        return 1.0
    total = 1.0
    for lag in range(1, count - 1, 2):
        pair = sum(float(np.dot(away[k:], away[:-k])) for k in (lag, lag + 1)) / variance
        if pair <= 0:
            break
        total += 2 * pair
    return max(1.0, min(float(count), count / total))


def mean_excess(values: Float64s) -> float:
    """Return by how much values above the quantile at `TAIL_LEVEL` are above it, on average."""
    start = np.quantile(values, TAIL_LEVEL)
    above = values[values > start]
    return float((above - start).mean()) if len(above) else 0.0


def distances_to_others(
    points: Float64s, rows: Rows, references: Float64s, reference_rows: Rows, gap: int
) -> Float64s:
    """Return the distance of each point to the nearest reference that is no neighbour of it.

    Args:
        points: (N, K).
        rows: (N,), places in the recording.
        references: (M, K).
        reference_rows: (M,).
        gap: References at most so many rows away do not count: neighbouring frames of a video are
            nearly equal, and those of another recording will not have such neighbours.

    Returns:
        (N,); where no reference counts, to the nearest of all.
    """
    squares = (references**2).sum(1)
    found = np.empty(len(points))
    for start in range(0, len(points), _CHUNK):
        part = slice(start, start + _CHUNK)
        some = points[part]
        away = (some**2).sum(1)[:, None] - 2 * some @ references.T + squares
        near = np.abs(rows[part, None] - reference_rows) <= gap
        kept = np.where(near & ~near.all(1, keepdims=True), np.inf, away)
        found[part] = np.sqrt(np.maximum(kept.min(1), 0))
    return found
