from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.model import MotorVAE, active_units, kl_per_image, sample_latent, vae_loss


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_default_model_has_the_cards_layers_and_size() -> None:
    with torch.device("meta"):
        model = MotorVAE(ModelSpec())
        shapes = []
        for module in model.modules():
            if isinstance(module, nn.LeakyReLU):
                module.register_forward_hook(
                    lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:]))
                )
        reconstruction, mu, log_var = model(torch.empty(2, 1, 256, 256))
    encoder = [(32, 128, 128), (64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8)]
    decoder = [(256, 16, 16), (128, 32, 32), (64, 64, 64), (32, 128, 128), (32, 256, 256)]
    assert shapes == encoder + decoder
    assert mu.shape == log_var.shape == (2, 128)
    assert reconstruction.shape == (2, 1, 256, 256)
    assert _parameters(model.encoder) == 9_958_848
    assert _parameters(model.decoder) == 5_804_833


@pytest.mark.parametrize(
    ("size", "channels", "latent"), [(32, (3,), 1), (64, (5, 6), 4), (32, (4, 8, 8, 16, 16), 8)]
)
def test_any_spec_gives_an_image_of_its_size_in_range(
    size: int, channels: tuple[int, ...], latent: int
) -> None:
    model = MotorVAE(ModelSpec(image_size=size, channels=channels, latent_size=latent))
    images = torch.rand(3, 1, size, size)
    mu, log_var = model.encode(images)
    assert mu.shape == log_var.shape == (3, latent)
    output = model.decode(mu * 1000)
    assert output.shape == images.shape
    assert output.min() >= 0
    assert output.max() <= 1


def test_the_model_itself_is_not_random(spec: ModelSpec) -> None:
    model = MotorVAE(spec).eval()
    images = torch.rand(2, 1, 32, 32)
    assert all(map(torch.equal, model(images), model(images)))


def test_sample_follows_its_generator_and_its_posterior() -> None:
    mu, log_var = torch.full((20000, 1), 3.0), torch.full((20000, 1), -2.0)
    first, second = (sample_latent(mu, log_var, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.mean().item() == pytest.approx(3.0, abs=0.02)
    assert first.var().item() == pytest.approx(torch.tensor(-2.0).exp().item(), rel=0.05)


def test_sample_is_float32_even_from_16_bit_posteriors() -> None:
    half = torch.zeros(2, 3, dtype=torch.bfloat16)
    assert sample_latent(half, half).dtype == torch.float32


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
