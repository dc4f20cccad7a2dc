"""How far apart two images are in latent space, and which are nearest."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ....runtime.core.errors import ConfigError

Unit = Literal["posterior", "deviation"]
WORDS: dict[Unit, str] = {
    "posterior": "deviations of the posterior",
    "deviation": "deviations of each latent over the images",
}

Floats = npt.NDArray[np.floating[Any]]
Float64s = npt.NDArray[np.float64]


class Scale(NamedTuple):
    """What latents are divided by before distances are taken."""

    unit: Unit
    of_latents: Float64s  # (D,); infinite for a latent that does not count

    def scaled(self, mu: Floats) -> Float64s:
        """Return latents (N, D) in these units."""
        found: Float64s = np.asarray(mu, np.float64) / self.of_latents
        return found


def scale_of(mu: Floats, log_var: Floats | None, unit: Unit | None = None) -> Scale:
    """Return the unit of each latent over N images, (N, D).

    By default that is the posterior's deviation, the square root of the mean of exp(log_var): what
    of a latent the encoder itself is not sure of is no distance, a collapsed latent, whose
    posterior is as wide as the prior, hardly counts, and the scale of a latent, arbitrary where
    beta is near 0, drops out. To first order it is the distance of what the decoder makes of
    them (Arvanitidis et al. 2018, "Latent Space Oddity"). The deviation over the images, which an
    encoder without log_var has to take, gives collapsed latents the weight of all others.
    """
    if unit is None:
        unit = "deviation" if log_var is None else "posterior"
    if unit == "deviation":
        deviation = np.asarray(mu, np.float64).std(0)
    elif log_var is None:
        raise ConfigError("--unit=posterior: there is no log_var, take --unit deviation")
    else:
        # Past this a posterior is no better known, and exp would overflow.
        deviation = np.sqrt(np.exp(np.clip(np.asarray(log_var, np.float64), -500, 500)).mean(0))
    return Scale(unit, np.where(deviation > 0, deviation, np.inf))


def nearest(
    query: Float64s, points: Float64s, count: int
) -> tuple[npt.NDArray[np.int64], Float64s]:
    """Return the rows of the nearest of (N, D) points to one (D,), and their Euclidean distances.

    Nearest first; of equal distances the lower row.
    """
    distances = np.linalg.norm(points - query, axis=1)
    rows = np.argsort(distances, kind="stable")[:count].astype(np.int64)
    return rows, distances[rows]
