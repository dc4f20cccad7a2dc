"""Figures of two sets of latents or images: how far one is from the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

LATENT_METRIC, IMAGE_METRIC = "max error / spread over data", "PSNR, worst image"
RMS_METRIC = "RMS error / spread over data"
"""Names of figures that others look up in a report."""
NEIGHBOURS = 10
NEIGHBOUR_EPSILON = 0.05
SPREAD_FLOOR = 0.01
"""A latent that hardly varies over the data is held to this share of the typical spread, and a
posterior deviation that is next to nothing to this share of its unit's."""


def neighbour_agreement(found: Floats, reference: Floats, count: int = NEIGHBOURS) -> float:
    """Return the mean share of each image's nearest neighbours that are as near as they should be.

    The (1 + epsilon)-recall of benchmarks of nearest-neighbour search (Aumueller et al. 2020,
    "ANN-Benchmarks", section 3.1): a neighbour that `found` names counts where, by the reference's
    distances, it is hardly further than the last true one, so that near-equal frames of a video
    may change places. What lies within epsilon of the typical distance counts as near in any case.

    Args:
        found: (N, D) latents.
        reference: (N, D) latents of the same images.
        count: How many neighbours by Euclidean distance; at most a quarter of the others, as
            among few images strangers are neighbours too.
    """
    count = min(count, (len(reference) - 1) // 4)
    if count < 1 or not np.isfinite(found).all():
        return 1.0 if count < 1 else 0.0
    true = _distances(reference)
    nearest = np.argpartition(_distances(found), count - 1, axis=1)[:, :count]
    last = np.partition(true, count - 1, axis=1)[:, count - 1]
    typical = float(np.median(true[np.isfinite(true)]))
    near = np.maximum((1 + NEIGHBOUR_EPSILON) * last, NEIGHBOUR_EPSILON * typical)
    return float(np.mean(np.take_along_axis(true, nearest, axis=1) <= near[:, None]))


def cosines(found: Floats, reference: Floats) -> npt.NDArray[np.float64]:
    """Return the cosine between each image's output and its reference, (N,)."""
    one = np.asarray(found, np.float64).reshape(len(found), -1)
    other = np.asarray(reference, np.float64).reshape(len(reference), -1)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found_cosines: npt.NDArray[np.float64] = (one * other).sum(axis=1) / np.maximum(
        norms, np.finfo(np.float64).tiny
    )
    return found_cosines


def squared_errors(found: Floats, reference: Floats) -> npt.NDArray[np.float64]:
    """Return each image's squared error averaged over its pixels, (N,)."""
    difference = (np.asarray(found, np.float64) - reference).reshape(len(found), -1)
    return np.asarray(np.mean(difference**2, axis=1), np.float64)


def psnr_db(squared_error: float) -> float:
    """Return the PSNR of an image in [0, 1] in dB; infinite without error."""
    # A NaN stays one, and passes no limit.
    return float("inf") if squared_error == 0 else -10 * float(np.log10(squared_error))


def worst_psnr_db(found: Floats, reference: Floats) -> float:
    """Return the smallest PSNR of an image in [0, 1] in dB; infinite where all are equal."""
    return psnr_db(float(squared_errors(found, reference).max()))


def floored_spread(spread: Floats) -> npt.NDArray[np.float64]:
    """Return each latent's spread, at least `SPREAD_FLOOR` of their root mean square.

    A collapsed latent carries no information and its spread is near zero; without a floor an
    error that nobody could notice would look infinite.
    """
    typical = float(np.sqrt(np.mean(np.square(spread, dtype=np.float64))))
    return np.maximum(spread, max(SPREAD_FLOOR * typical, float(np.finfo(np.float32).tiny)))


def largest(error: Floats) -> float:
    """Return the largest magnitude."""
    return float(np.abs(error).max())


def rms(error: Floats) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(error))))


def rms_per_image(error: Floats) -> npt.NDArray[np.float64]:
    """Return the root mean square over the latents of (N, D) for each image, (N,)."""
    return np.asarray(np.sqrt(np.mean(np.square(error, dtype=np.float64), axis=1)), np.float64)


def _distances(latents: Floats) -> npt.NDArray[np.float64]:
    """Return the Euclidean distance between every two, infinite from one to itself."""
    points = np.asarray(latents, np.float64)
    squares = (points**2).sum(axis=1)
    squared = squares[:, None] + squares[None] - 2 * points @ points.T
    distance: npt.NDArray[np.float64] = np.sqrt(np.maximum(squared, 0))
    np.fill_diagonal(distance, np.inf)
    return distance
