from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from motorvae.training.loop.losses import (
    SSIM_WEIGHT,
    kl_with_free_bits,
    loss_of_batch,
    reconstruction_loss,
)
from motorvae.training.model import vae_loss
from motorvae.training.options import ReconstructionLoss

KINDS = get_args(ReconstructionLoss)


def _batch(side: int = 32, count: int = 3) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((count, 1, side, side), generator=generator)
    logits = torch.randn((count, 1, side, side), generator=generator)
    mu, log_var = torch.randn((2, count, 4), generator=generator)
    return images, logits, mu, log_var


def test_the_default_is_the_cards_loss_bit_for_bit() -> None:
    images, logits, mu, log_var = _batch()
    card = vae_loss(images, torch.sigmoid(logits), mu, log_var, beta=0.05)
    assert loss_of_batch(images, logits, mu, log_var, beta=0.05) == card
    assert torch.equal(
        reconstruction_loss("mse", images, logits, torch.sigmoid(logits)), card.reconstruction
    )


@pytest.mark.parametrize("kind", KINDS)
def test_reported_figures_do_not_depend_on_what_is_minimised(kind: ReconstructionLoss) -> None:
    images, logits, mu, log_var = _batch()
    card = loss_of_batch(images, logits, mu, log_var, beta=0.05)
    other = loss_of_batch(images, logits, mu, log_var, beta=0.05, kind=kind, free_bits=0.5)
    assert (other.reconstruction, other.kl) == (card.reconstruction, card.kl)
    assert other.total != card.total


def test_each_is_summed_over_pixels_and_averaged_over_the_batch() -> None:
    images, logits, _, _ = _batch()
    x = images.double().numpy()
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    expected = {
        "mse": ((p - x) ** 2).sum() / 3,
        "l1": np.abs(p - x).sum() / 3,
        "bce": -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum() / 3,
    }
    for kind in ("mse", "l1", "bce"):
        found = reconstruction_loss(kind, images, logits, torch.sigmoid(logits)).item()
        assert found == pytest.approx(expected[kind], rel=1e-5), kind


@pytest.mark.parametrize("kind", KINDS)
def test_what_16_bits_round_to_the_end_has_a_finite_loss_and_gradient(
    kind: ReconstructionLoss,
) -> None:
    images = torch.zeros((2, 1, 16, 16))
    logits = torch.full_like(images, 40.0, dtype=torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        zeros = torch.zeros((2, 3))
        loss = loss_of_batch(images, logits, zeros, zeros, beta=1, kind=kind).total
    loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    if kind == "bce":  # the loss that still moves a pixel which is wrong and sure
        assert loss.item() == pytest.approx(40 * 256)
        assert (logits.grad > 0).all()


@pytest.mark.parametrize("side", [16, 32, 80])
def test_ssim_is_0_apart_for_equal_images_and_fits_the_smallest(side: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((2, 3, side, side), generator=generator) * 0.8 + 0.1
    logits = torch.logit(image)
    same = reconstruction_loss("mse+ssim", image, logits, image).item()
    assert same == pytest.approx(0, abs=1e-3 * side)
    flat = torch.full_like(image, 0.5)
    squared = (image - flat).square().sum().item() / 2
    worse = reconstruction_loss("mse+ssim", image, torch.zeros_like(image), flat).item()
    # A flat image has none of the structure: an SSIM of about 0, a dissimilarity of a half.
    most = SSIM_WEIGHT * 3 * side * side / 2
    assert squared + 0.9 * most < worse <= squared + most


def _latents_of_kl(kl: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mu and log_var whose KL is so many nats for each image and dimension."""
    mu = (2 * torch.tensor(kl)).sqrt()
    return mu, torch.zeros_like(mu)


def test_free_bits_are_for_each_dimension_and_averaged_over_the_batch() -> None:
    mu, log_var = _latents_of_kl([[1.0, 3.0, 0.1], [0.0, 5.0, 0.3]])
    # Means are 0.5, 4 and 0.2; with 0.6 free nats each they cost 0.6, 4 and 0.6. Clamped image by
    # image it would be 0.8 + 4 + 0.6, clamped as a sum 4.7.
    assert kl_with_free_bits(mu, log_var, 0.6).item() == pytest.approx(5.2)
    assert kl_with_free_bits(mu, log_var, 0.0).item() == pytest.approx(4.7)


def test_below_its_free_bits_a_dimension_has_no_gradient() -> None:
    mu, log_var = _latents_of_kl([[0.1, 2.0], [0.2, 2.0]])
    mu.requires_grad_()
    kl_with_free_bits(mu, log_var, 0.5).backward()  # type: ignore[no-untyped-call]  # as above
    assert mu.grad is not None
    assert (mu.grad[:, 0] == 0).all()
    assert (mu.grad[:, 1] > 0).all()
