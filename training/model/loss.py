"""The beta-VAE loss with its parts named, and the count of latent units that carry anything."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ACTIVE_VARIANCE = 0.01
"""A unit is active where Var_x(mu) exceeds this (Burda et al. 2016, section 5.2)."""


class Loss(NamedTuple):
    """The parts of one batch's loss, float32 scalars."""

    reconstruction: Tensor  # squared error, summed over pixels, averaged over the batch
    # divergence from the standard normal, summed over latents, averaged over the batch, in nats
    kl: Tensor
    total: Tensor  # `reconstruction + beta * kl`


def vae_loss(
    images: Tensor, reconstruction: Tensor, mu: Tensor, log_var: Tensor, *, beta: float
) -> Loss:
    """Return the negative evidence bound (Kingma & Welling 2014), KL weighted by beta.

    The weight is that of Higgins et al. 2017, "beta-VAE". Images are (N, 1, S, S) in [0, 1],
    `mu` and `log_var` (N, D). Everything is computed in float32: a sum over 65536 pixels means
    nothing in 16 bits.
    """
    with torch.autocast(device_type=images.device.type, enabled=False):
        squared = squared_error(images, reconstruction).mean()
        kl = kl_per_image(mu, log_var).mean()
        return Loss(squared, kl, squared + beta * kl)


def squared_error(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the squared error of each image, summed over its pixels: (N,) float32."""
    return (reconstruction.float() - images.float()).square().flatten(1).sum(1)


def kl_per_image(mu: Tensor, log_var: Tensor) -> Tensor:
    """Return KL(N(mu, exp(log_var)) || N(0, 1)) summed over latent dimensions: (N,) float32.

    Closed form of Kingma & Welling 2014, appendix B; `expm1` keeps its digits near the prior.
    """
    mu, log_var = mu.float(), log_var.float()
    return 0.5 * (mu.square() + torch.expm1(log_var) - log_var).sum(1)


def active_units(variance_of_mu: Tensor) -> int:
    """Count active latent units (Burda et al. 2016) by the variance of mu over the data, (D,)."""
    return int((variance_of_mu > ACTIVE_VARIANCE).sum())
