"""t-SNE by scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

Float64s = npt.NDArray[np.float64]
Place = Callable[[Float64s], Float64s]

_PERPLEXITY = 30.0


def fit_tsne(latents: Float64s, *, seed: int) -> tuple[Float64s, Place | None]:
    """Return coordinates (N, 2) of latents (N, D); t-SNE has no place for others."""
    perplexity = min(_PERPLEXITY, (len(latents) - 1) / 3)
    # It begins with two principal components; of latents on a line the second is 0, and would stay
    # so: on a line no point gets past another one.
    is_plane = np.linalg.matrix_rank(latents - latents.mean(0)) > 1
    init = "pca" if is_plane else "random"
    model = TSNE(2, perplexity=perplexity, init=init, learning_rate="auto", random_state=seed)
    # The order in which threads add up would be in the result; and on busy cores they only wait
    # for each other.
    with threadpool_limits(1):
        return np.asarray(model.fit_transform(latents), np.float64), None
