from __future__ import annotations

import math

import pytest
import torch

from motorvae.training.model.loss import active_units, kl_per_image, vae_loss


def test_loss_matches_a_hand_computed_value() -> None:
    images = torch.zeros(2, 1, 2, 2)
    reconstruction = images.clone()
    reconstruction[0] = 0.5  # four pixels of error 0.5: 1.0, so 0.5 over the batch of two
    mu = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    log_var = torch.tensor([[0.0, math.log(2.0)], [0.0, 0.0]])
    kl = 0.5 * (1 + 4 + 1 - math.log(2.0)) / 2
    loss = vae_loss(images, reconstruction, mu, log_var, beta=0.05)
    assert loss.reconstruction.item() == pytest.approx(0.5)
    assert loss.kl.item() == pytest.approx(kl)
    assert loss.total.item() == pytest.approx(0.5 + 0.05 * kl)


def test_kl_is_the_divergence_torch_computes_and_zero_at_the_prior() -> None:
    mu, log_var = torch.randn(5, 7), torch.randn(5, 7)
    posterior = torch.distributions.Normal(mu, (log_var / 2).exp())
    prior = torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1)
    torch.testing.assert_close(kl_per_image(mu, log_var), expected)
    assert kl_per_image(torch.zeros(1, 7), torch.zeros(1, 7)).item() == 0


def test_loss_is_float32_under_autocast_and_from_16_bit() -> None:
    images = torch.zeros(1, 1, 64, 64)
    reconstruction = torch.full_like(images, 0.5).bfloat16()
    latent = torch.zeros(1, 2, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = vae_loss(images, reconstruction, latent, latent, beta=1.0)
    assert {part.dtype for part in loss} == {torch.float32}
    assert loss.total.item() == 1024


def test_a_unit_is_active_above_the_published_threshold() -> None:
    assert active_units(torch.tensor([0.0, 0.01, 0.0101, 3.0])) == 2
