"""What a step minimises: four reconstruction losses, free bits, and the reported figures beside."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.image import structural_similarity_index_measure

from ..model import Loss, kl_per_latent, vae_loss
from ..options import ReconstructionLoss

SSIM_WEIGHT = 0.05
"""Weight of the SSIM term of `mse+ssim`. Not tuned: at 256 x 256 pixels and an SSIM of 0.7 the term
is about 500, which is of the size of the squared error then."""


def loss_of_batch(
    images: Tensor,
    logits: Tensor,
    mu: Tensor,
    log_var: Tensor,
    *,
    beta: float,
    kind: ReconstructionLoss = "mse",
    free_bits: float = 0.0,
) -> Loss:
    """Return a batch's loss: the figures as of `vae_loss`, and in `total` what is minimised.

    Images are (N, C, H, W) in [0, 1], `logits` what the decoder gives before its sigmoid, `mu` and
    `log_var` (N, D). Every reconstruction loss is summed over pixels and averaged over the batch,
    as the squared error is, and the KL term weighted by `beta`. In float32, whatever comes in.
    """
    with torch.autocast(device_type=images.device.type, enabled=False):
        reconstruction = torch.sigmoid(logits.float())
        loss = vae_loss(images, reconstruction, mu, log_var, beta=beta)
        if kind == "mse" and not free_bits:
            return loss
        minimised = loss.reconstruction
        if kind != "mse":
            minimised = reconstruction_loss(kind, images, logits, reconstruction)
        kl = kl_with_free_bits(mu, log_var, free_bits) if free_bits else loss.kl
        return loss._replace(total=minimised + beta * kl)


def reconstruction_loss(
    kind: ReconstructionLoss, images: Tensor, logits: Tensor, reconstruction: Tensor
) -> Tensor:
    """Return one reconstruction loss, summed over pixels, averaged over the batch: () float32.

    - mse: squared error, as in the model card.
    - bce: binary cross-entropy (Kingma & Welling 2014, appendix C.1), from logits, since the
      logarithm of a sigmoid that 16 bits rounded to 1 is minus infinity.
    - l1: absolute error.
    - mse+ssim: squared error plus `SSIM_WEIGHT` times the pixels' dissimilarity (1 - SSIM) / 2
      (Wang et al. 2004, with their window; as a loss, Zhao et al. 2017).
    """
    images = images.float()
    count = len(images)
    match kind:
        case "bce":
            return functional.binary_cross_entropy_with_logits(
                logits.float(), images, reduction="sum"
            ).div(count)
        case "l1":
            return (reconstruction - images).abs().sum() / count
        case "mse":
            return (reconstruction - images).square().sum() / count
        case "mse+ssim":
            squared = (reconstruction - images).square().sum() / count
            similarity = structural_similarity_index_measure(
                reconstruction, images, data_range=1.0, reduction="sum"
            )
            assert isinstance(similarity, Tensor)  # noqa: S101  # no full image was asked for
            unlike = (1 - similarity / count) / 2
            return squared + SSIM_WEIGHT * images[0].numel() * unlike


def kl_with_free_bits(mu: Tensor, log_var: Tensor, nats: float) -> Tensor:
    """Return the KL in which each latent dimension costs at least `nats`: () float32.

    It is sum_j max(nats, mean over the batch of KL_j) of Kingma et al. 2016, "inverse
    autoregressive flow": below that a dimension has no gradient, so
    none is switched off to save its last nats.
    """
    return kl_per_latent(mu, log_var).mean(0).clamp(min=nats).sum()
