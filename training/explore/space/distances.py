"""How far apart two images are in latent space, and which are nearest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UNIT = "deviations of each latent"

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]


def units_of(mu: Float32s, log_var: Float32s | None) -> Float64s:
    """Return what each latent is divided by before distances are taken, (D,), from N images.

    It is the latent's deviation over the images with its posterior's spread (the deviation of the
    aggregate posterior): sqrt(var(mu) + mean(exp(log_var))). So the scale of a latent, which is
    arbitrary where beta is near 0, drops out, and a collapsed latent, whose mu hardly moves and
    whose posterior is as wide as the prior, hardly counts. Without log_var it is the deviation of
    mu alone. A latent that never moves has no unit, infinity, and does not count.
    """
    variance = np.asarray(mu, np.float64).var(0)
    moves = variance > 0
    if log_var is not None:
        # Past this a posterior is no better known, and exp would overflow.
        variance = variance + np.exp(np.clip(log_var, -500, 500).astype(np.float64)).mean(0)
    return np.where(moves, np.sqrt(variance), np.inf)


def nearest(
    query: Float64s, points: Float64s, count: int
) -> tuple[npt.NDArray[np.int64], Float64s]:
    """Return the rows of the nearest of (N, D) points to one (D,), and their Euclidean distances.

    Nearest first; of equal distances the lower row.
    """
    distances = np.asarray(np.linalg.norm(points - query, axis=1))
    rows = np.argsort(distances, kind="stable")[:count].astype(np.int64)
    return rows, distances[rows]
