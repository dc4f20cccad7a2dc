"""Figures of two sets of latents or images: how far one is from the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

LATENT_METRIC, IMAGE_METRIC = "max error / spread over data", "PSNR, worst image"
"""Names of the two figures that others look up in a report."""
NEIGHBOURS = 10
SPREAD_FLOOR = 0.01
"""A latent that hardly varies over the data is held to this share of the typical spread."""


def neighbour_agreement(found: Floats, reference: Floats, count: int = NEIGHBOURS) -> float:
    """Return the mean share of each image's nearest neighbours that both sets of latents name.

    Args:
        found: (N, D) latents.
        reference: (N, D) latents of the same images.
        count: How many neighbours by Euclidean distance; at most a quarter of the others, as
            among few images strangers are neighbours too.
    """
    count = min(count, (len(reference) - 1) // 4)
    if count < 1 or not np.isfinite(found).all():
        return 1.0 if count < 1 else 0.0
    ours, theirs = (_nearest(latents, count) for latents in (found, reference))
    shared = [
        len(np.intersect1d(one, other)) / count for one, other in zip(ours, theirs, strict=True)
    ]
    return float(np.mean(shared))


def worst_cosine(found: Floats, reference: Floats) -> float:
    """Return the smallest cosine between an image's output and its reference."""
    one = np.asarray(found, np.float64).reshape(len(found), -1)
    other = np.asarray(reference, np.float64).reshape(len(reference), -1)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)).min())


def worst_psnr_db(found: Floats, reference: Floats) -> float:
    """Return the smallest PSNR of an image in [0, 1] in dB; infinite where all are equal."""
    squares = (np.asarray(found, np.float64) - reference).reshape(len(found), -1) ** 2
    worst = float(squares.mean(axis=1).max())
    # A NaN stays one, and passes no limit.
    return float("inf") if worst == 0 else -10 * float(np.log10(worst))


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


def _nearest(latents: Floats, count: int) -> npt.NDArray[np.intp]:
    points = np.asarray(latents, np.float64)
    squares = (points**2).sum(axis=1)
    distance = squares[:, None] + squares[None] - 2 * points @ points.T
    np.fill_diagonal(distance, np.inf)
    return np.argpartition(distance, count - 1, axis=1)[:, :count]
