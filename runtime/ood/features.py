"""What of a latent out-of-distribution detection measures: all of it, or each map's statistics."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..core.spec import ModelSpec

MOST_FLAT = 1024
"""A covariance of more features is not known from as many images as a run has."""
_LEAST_DEVIATION = 1e-6
"""Added to a map's deviation, whose logarithm is taken, over the magnitude 1 of latents."""

Float64s = npt.NDArray[np.float64]


def feature_count(spec: ModelSpec) -> int:
    """Return F, how many features a model's latents have; 0 where none are measured.

    A flat latent has itself, up to `MOST_FLAT` numbers. One of C maps has 5 C: the mean of each
    quarter of a map, which shows another arrangement, and its deviation, which shows another
    texture. A covariance of all 4 x 32 x 32 numbers would take more images than there are.
    """
    channels, *sides = spec.latent_shape or (spec.latent_size,)
    count = channels * (math.prod(min(2, side) for side in sides) + 1) if sides else channels
    return count if count <= MOST_FLAT else 0


def features_of(mu: npt.NDArray[np.floating], spec: ModelSpec) -> Float64s:
    """Return the features (N, F) of latents (N, D).

    Of maps the means of their quarters, quarter by quarter, then the log deviations.
    """
    if len(spec.latent_shape) < 2:
        return mu.astype(np.float64)
    maps = mu.reshape(-1, *spec.latent_shape)
    parts = [maps]
    for axis in range(2, maps.ndim):
        parts = [
            half for part in parts for half in np.array_split(part, min(2, part.shape[axis]), axis)
        ]
    inner = tuple(range(2, maps.ndim))
    means = [part.mean(axis=inner, dtype=np.float64) for part in parts]
    deviations = maps.std(axis=inner, dtype=np.float64)
    return np.concatenate([*means, np.log(deviations + _LEAST_DEVIATION)], axis=1)
