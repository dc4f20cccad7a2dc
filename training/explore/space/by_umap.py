"""UMAP by umap-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]
Place = Callable[[Float64s], Float64s]

with warnings.catch_warnings():
    # That TensorFlow, which nothing here needs, is not installed.
    warnings.simplefilter("ignore", ImportWarning)
    from umap import UMAP

_NEIGHBOURS = 15


def fit_umap(latents: Float64s, *, seed: int) -> tuple[Float64s, Place | None]:
    """Return coordinates (N, 2) of latents (N, D), and what places others among them."""
    # With a seed it runs on one thread, and warns unless it was asked to.
    model = UMAP(n_neighbors=min(_NEIGHBOURS, len(latents) - 1), random_state=seed, n_jobs=1)
    coordinates = np.asarray(model.fit_transform(latents.astype(np.float32)), np.float64)

    def place(others: Float64s) -> Float64s:
        return np.asarray(model.transform(others.astype(np.float32)), np.float64)

    return coordinates, place
