from __future__ import annotations

import pytest
import torch
from torch import nn

from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.model.vae import MotorVAE, sample_latent


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
