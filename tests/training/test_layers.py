"""Our ways through two convolutions against torch's own, in float64 where rounding counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.layers import ImageConvolution, UpConvolution
from motorvae.training.model import MotorVAE

SIZES = [(8, 4, 6, 10), (32, 1, 16, 12), (16, 3, 5, 7), (4, 1, 1, 1)]
Parts = tuple[Tensor, Tensor, Tensor, Tensor]
Make = Callable[[int, int], nn.Module]


def up(channels_in: int, channels: int) -> nn.Module:
    return UpConvolution(channels_in, channels, 3, stride=2, padding=1, output_padding=(1, 0))


def image(channels_in: int, channels: int) -> nn.Module:
    return ImageConvolution(channels_in, channels, 3, padding=1)


def torchs_own(layer: nn.Module) -> nn.Module:
    """The layer as its base class has it."""
    base = type(layer).__mro__[1]
    assert base in {nn.ConvTranspose2d, nn.Conv2d}
    own = base.__new__(base)
    own.__dict__.update(layer.__dict__)
    own._parameters = {
        name: nn.Parameter(one.detach().clone()) for name, one in layer.named_parameters()
    }
    return own


def parts_of(layer: nn.Module, maps: Tensor, *, bf16: bool = False) -> Parts:
    """The result, and the gradients of maps, weight and bias, for one fixed gradient."""
    maps = maps.detach().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        result = layer(maps)
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(result.shape, generator=generator, dtype=torch.float64)
    result.backward(gradient.to(result.dtype))
    found = (result, maps.grad, layer.weight.grad, layer.bias.grad)
    return tuple(one.detach().double() for one in found if isinstance(one, Tensor))  # type: ignore[return-value]


def error_of(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).norm() / wanted.norm())


def layer_and_maps(make: Make, size: tuple[int, int, int, int]) -> tuple[nn.Module, Tensor]:
    channels_in, channels, height, width = size
    torch.manual_seed(0)
    layer = make(channels_in, channels).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    maps = torch.randn(3, channels_in, height, width)
    return layer, maps.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [up, image])
def test_values_and_gradients_are_torchs_own(make: Make, size: tuple[int, int, int, int]) -> None:
    layer, maps = layer_and_maps(make, size)
    layer, maps = layer.double(), maps.double()
    for found, wanted in zip(parts_of(layer, maps), parts_of(torchs_own(layer), maps), strict=True):
        assert error_of(found, wanted) < 1e-14


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("size", SIZES[:3])
@pytest.mark.parametrize("make", [up, image])
def test_rounding_is_of_the_size_of_torchs_own(
    make: Make, size: tuple[int, int, int, int], *, bf16: bool
) -> None:
    layer, maps = layer_and_maps(make, size)
    exact = parts_of(torchs_own(layer).double(), maps.double())
    ours = parts_of(layer, maps, bf16=bf16)
    theirs = parts_of(torchs_own(layer), maps, bf16=bf16)
    least = 1e-3 if bf16 else 1e-7
    for found, own, wanted in zip(ours, theirs, exact, strict=True):
        assert error_of(found, wanted) < 2 * max(error_of(own, wanted), least)


@pytest.mark.parametrize(("make", "name"), [(up, "_UpBackward"), (image, "_ImageBackward")])
def test_it_is_taken_for_gradients_of_what_is_channels_last_alone(make: Make, name: str) -> None:
    layer, maps = layer_and_maps(make, SIZES[0])
    assert type(layer(maps).grad_fn).__name__ == name
    with torch.no_grad():
        assert torch.equal(layer(maps), torchs_own(layer)(maps))
    plain = layer.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's stub lacks it
    assert type(plain(maps).grad_fn).__name__ == "ConvolutionBackward0"
    assert torch.equal(plain(maps), torchs_own(plain)(maps))


def test_a_model_takes_them_and_its_weights_have_the_names_that_they_had(spec: ModelSpec) -> None:
    model = MotorVAE(spec)
    kinds = [type(one).__name__ for one in model.decoder.modules()]
    assert kinds.count("UpConvolution") == len(spec.channels or ())
    assert kinds.count("ImageConvolution") == 1
    names = set(model.state_dict())
    assert {"decoder.features.0.weight", "decoder.features.0.bias", "decoder.image.bias"} <= names
