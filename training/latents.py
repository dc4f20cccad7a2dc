"""What the training latents look like: the yardstick by which a foreign image is recognised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..runtime.files import replaced_file
from .batches import Rows, images_from_rows
from .data import DataSet
from .loss import kl_per_image, squared_error
from .model import MotorVAE

LATENTS_NAME = "latents.npz"
HELD_OUT_NAME = "held_out.npz"
QUANTILE_LEVELS = (0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1)
STATISTICS_IMAGES = 8192
"""At most so many training images are measured, drawn evenly; more would not move a quantile."""
HELD_OUT_IMAGES = 256
_RIDGE = 1e-6
"""Added to the covariance, times its mean variance: a collapsed latent has none of its own."""
_BATCH = 32

Float64s = npt.NDArray[np.float64]


@torch.inference_mode()
def latent_statistics(model: MotorVAE, data: DataSet) -> dict[str, Float64s]:
    """Measure the training latents in float32, the arithmetic that is deployed.

    Args:
        model: In evaluation mode, on any device.
        data: Its training rows are measured.

    Returns:
        `mean` (D,) and `covariance` (D, D) of mu; `count` (); `posterior_variance_mean` (D,),
        the mean of exp(log_var); `covariance_ridge` (), to add to the covariance's diagonal
        before it is inverted; `quantile_levels` (Q,), and at these levels over the images
        `kl_quantiles` in nats, `mahalanobis_quantiles` of mu (a distance, not its square) and
        `reconstruction_error_quantiles`, the squared error averaged over pixels. All float64.
    """
    device = next(model.parameters()).device
    rows = _evenly(data.train, STATISTICS_IMAGES)
    found: dict[str, list[npt.NDArray[np.float32]]] = {
        "mu": [],
        "variance": [],
        "kl": [],
        "error": [],
    }
    for start in range(0, len(rows), _BATCH):
        images = images_from_rows(data, rows[start : start + _BATCH]).to(device)
        reconstruction, mu, log_var = model(images)
        found["mu"].append(mu.cpu().numpy())
        found["variance"].append(log_var.exp().cpu().numpy())
        found["kl"].append(kl_per_image(mu, log_var).cpu().numpy())
        pixels = images[0].numel()
        found["error"].append((squared_error(images, reconstruction) / pixels).cpu().numpy())
    whole = {name: np.concatenate(parts).astype(np.float64) for name, parts in found.items()}
    mu64 = whole["mu"]
    mean = mu64.mean(0)
    covariance = np.atleast_2d(np.cov(mu64, rowvar=False, bias=True))
    # The smallest normal number keeps the matrix invertible even where every mu is the same.
    ridge = max(_RIDGE * float(np.trace(covariance)) / len(mean), float(np.finfo(np.float32).tiny))
    return {
        "mean": mean,
        "covariance": covariance,
        "count": np.array(len(rows), np.float64),
        "posterior_variance_mean": whole["variance"].mean(0),
        "covariance_ridge": np.array(ridge),
        "quantile_levels": np.array(QUANTILE_LEVELS),
        "kl_quantiles": np.quantile(whole["kl"], QUANTILE_LEVELS),
        "mahalanobis_quantiles": np.quantile(
            mahalanobis(mu64, mean, covariance, ridge), QUANTILE_LEVELS
        ),
        "reconstruction_error_quantiles": np.quantile(whole["error"], QUANTILE_LEVELS),
    }


def mahalanobis(mu: Float64s, mean: Float64s, covariance: Float64s, ridge: float) -> Float64s:
    """Return the distance of each mu (N, D) from the mean, in spreads: (N,)."""
    away = mu - mean
    factor = np.linalg.cholesky(covariance + ridge * np.eye(len(mean)))
    whitened = np.linalg.solve(factor, away.T)
    distance: Float64s = np.sqrt((whitened**2).sum(0))
    return distance


def save_latents(folder: Path, statistics: dict[str, Float64s]) -> None:
    """Write `latents.npz`; read it with `allow_pickle=False`."""
    with replaced_file(folder / LATENTS_NAME) as path:
        np.savez(path, allow_pickle=False, **statistics)


def save_held_out(folder: Path, data: DataSet) -> None:
    """Write up to 256 held-out images, those of the smallest content hash, with their names."""
    rows = data.held_out[:HELD_OUT_IMAGES]
    names = np.array([data.names[row] for row in rows], np.str_)
    with replaced_file(folder / HELD_OUT_NAME) as path:
        np.savez(path, allow_pickle=False, images=data.images[rows], names=names)


def _evenly(rows: Rows, most: int) -> Rows:
    if len(rows) <= most:
        return rows
    chosen: Rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
    return chosen
