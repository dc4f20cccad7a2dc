"""What of a latent out-of-distribution detection measures: all of it, or each map's statistics."""

from __future__ import annotations

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

    A flat latent has itself, up to `MOST_FLAT` numbers. One of C maps has 2 C: the distribution of
    a map's values is much the same wherever in the image its contents are, and a covariance of
    4 x 32 x 32 numbers would take more images than there are.
    """
    is_spatial = len(spec.latent_shape) > 1
    count = 2 * spec.latent_shape[0] if is_spatial else spec.latent_size
    return count if count <= MOST_FLAT else 0


def features_of(mu: npt.NDArray[np.floating], spec: ModelSpec) -> Float64s:
    """Return the features (N, F) of latents (N, D); of maps the means, then the log deviations."""
    if len(spec.latent_shape) < 2:
        return mu.astype(np.float64)
    maps = mu.reshape(len(mu), spec.latent_shape[0], -1)
    means = maps.mean(axis=2, dtype=np.float64)
    deviations = maps.std(axis=2, dtype=np.float64)
    return np.concatenate([means, np.log(deviations + _LEAST_DEVIATION)], axis=1)
