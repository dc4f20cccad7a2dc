"""The VAE, a strided encoder and a mirrored decoder, and its loss with the parts named."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..runtime.core.errors import ConfigError
from ..runtime.core.spec import ModelSpec
from .layers import ImageConvolution, UpConvolution

Floats = npt.NDArray[np.float32]

_SLOPE = 0.01
_SMALL = 0.1  # what the weights of a head are multiplied by where its bias shall decide
ACTIVE_VARIANCE = 0.01
"""A unit is active where Var_x(mu) exceeds this (Burda et al. 2016, section 5.2)."""


class VAEOutput(NamedTuple):
    """What the whole model makes of a batch."""

    reconstruction: Tensor  # (N, C, H, W) in [0, 1]
    mu: Tensor  # (N, D), mean of the posterior
    log_var: Tensor  # (N, D), logarithm of the posterior's variance


def channels_of(spec: ModelSpec) -> tuple[int, ...]:
    """Return the channels of the card's network; ConfigError for the spec of another one."""
    if spec.channels is None:
        raise ConfigError("this is not the card's network: its weights are in its bundle alone")
    if spec.scales:
        raise ConfigError(
            f"value_range={spec.value_range}, mean={spec.mean}, std={spec.std}: the card's network "
            "takes images in [0, 1] and gives such; leave these out"
        )
    return spec.channels


class Encoder(nn.Module):
    """Image to posterior: stride-2 convolutions, then one linear head each for mu and log_var."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for width_in, width in pairwise((spec.image_channels, *channels_of(spec))):
            convolution = nn.Conv2d(width_in, width, kernel_size=3, stride=2, padding=1)
            blocks += [convolution, nn.BatchNorm2d(width), nn.LeakyReLU(_SLOPE, inplace=True)]
        self.features = nn.Sequential(*blocks)
        self.mu = nn.Linear(spec.flat_size, spec.latent_size)
        self.log_var = nn.Linear(spec.flat_size, spec.latent_size)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(mu, log_var)`, each (N, D), for images (N, C, H, W) in [0, 1]."""
        flat = self.features(image).flatten(1)
        return self.mu(flat), self.log_var(flat)


class Decoder(nn.Module):
    """Latent to image: one linear layer, then transposed convolutions back to full size."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.latent_size, spec.flat_size)
        channels = channels_of(spec)
        self.unflatten = nn.Unflatten(1, (channels[-1], *spec.feature_shape))
        first = channels[0]
        blocks: list[nn.Module] = []
        shapes = spec.map_shapes[::-1]
        widths = pairwise((*reversed(channels), first))
        for (width_in, width), small, large in zip(widths, shapes, shapes[1:], strict=False):
            # 1, but for a side that the encoder's convolution rounded up.
            padding = large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1
            convolution = UpConvolution(
                width_in, width, kernel_size=3, stride=2, padding=1, output_padding=padding
            )
            blocks += [convolution, nn.BatchNorm2d(width), nn.LeakyReLU(_SLOPE, inplace=True)]
        self.features = nn.Sequential(*blocks)
        self.image = ImageConvolution(first, spec.image_channels, kernel_size=3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Return the reconstruction (N, C, H, W) in [0, 1] for latents (N, D)."""
        return torch.sigmoid(self.logits(z))

    def logits(self, z: Tensor) -> Tensor:
        """Return what the last sigmoid takes: (N, C, H, W)."""
        logits: Tensor = self.image(self.features(self.unflatten(self.linear(z))))
        return logits


class MotorVAE(nn.Module):
    """Encoder and decoder of one `ModelSpec`.

    Source: the motorVAE model card (Brenden Eum, 2025). Its one mention of a 64x64 output
    contradicts its own layers, which give an image of the input's size, and so does this.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec)
        self.decoder = Decoder(spec)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(mu, log_var)`, each (N, D), for images (N, C, H, W) in [0, 1]."""
        mu, log_var = self.encoder(images)
        return mu, log_var

    def decode(self, z: Tensor) -> Tensor:
        """Return the reconstruction (N, C, H, W) in [0, 1] for latents (N, D)."""
        reconstruction: Tensor = self.decoder(z)
        return reconstruction

    def forward(self, images: Tensor) -> VAEOutput:
        """Reconstruct from the posterior mean; training samples with `sample_latent` instead."""
        mu, log_var = self.encode(images)
        return VAEOutput(self.decode(mu), mu, log_var)


@torch.no_grad()
def start_heads_at(model: MotorVAE, log_var: float) -> None:
    """Let a fresh model's posteriors begin with about this log variance, whatever the image.

    By default they begin with a variance of about one, and the decoder sees mostly noise until the
    heads have learned to say less of it.
    """
    model.encoder.log_var.weight.mul_(_SMALL)
    model.encoder.log_var.bias.fill_(log_var)


@torch.no_grad()
def start_image_at(model: MotorVAE, mean: Tensor) -> None:
    """Let a fresh model's image begin at a mean level of each plane, (C,) in [0, 1].

    The bias before a sigmoid becomes its logit, so that the first steps need not learn it (Karpathy
    2019, "A recipe for training neural networks": "init well"). A level of nearly 0 or 1 counts as
    0.01 or 0.99: at the ends of the sigmoid nothing is learned.
    """
    bias = model.decoder.image.bias
    assert bias is not None  # noqa: S101  # for the type checker
    bias.copy_(torch.logit(mean, eps=0.01))


def sample_latent(
    mu: Tensor,
    log_var: Tensor,
    generator: torch.Generator | None = None,
    *,
    begin: int = 0,
    whole: int | None = None,
) -> Tensor:
    """Draw z = mu + eps * exp(log_var / 2), eps standard normal (Kingma & Welling 2014, eq. 10).

    All are (N, D). The generator, by default the global one, is on the device of `mu`. The result
    is float32, whatever the precision of the inputs: exp overflows early in 16 bits. Of a batch of
    `whole` images that several processes share, these are those from `begin` on, and each image's
    draw is the one that it has in the whole batch.
    """
    mu, log_var = mu.float(), log_var.float()
    count, size = mu.shape
    eps = torch.randn((whole or count, size), generator=generator, device=mu.device)
    return mu + eps[begin : begin + count] * torch.exp(log_var / 2)


def encoding_of(model: MotorVAE) -> Callable[[Floats], tuple[Floats, Floats]]:
    """Return the encoder as a function of arrays: images (N, C, H, W) to mu and log_var (N, D).

    It computes in float32, wherever the model is, which is in evaluation mode.
    """

    @torch.inference_mode()
    def encode(images: Floats) -> tuple[Floats, Floats]:
        mu, log_var = model.encode(torch.from_numpy(images).to(_device_of(model)))
        return mu.cpu().numpy(), log_var.cpu().numpy()

    return encode


def decoding_of(model: MotorVAE) -> Callable[[Floats], Floats]:
    """Return the decoder as a function of arrays: latents (N, D) to images (N, C, H, W)."""

    @torch.inference_mode()
    def decode(latents: Floats) -> Floats:
        images: Floats = model.decode(torch.from_numpy(latents).to(_device_of(model))).cpu().numpy()
        return images

    return decode


def _device_of(model: MotorVAE) -> torch.device:
    return next(model.parameters()).device


def weights_of(model: MotorVAE) -> dict[str, Tensor]:
    """Return a copy of all weights and statistics on the CPU, in the plain memory layout."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


class Loss(NamedTuple):
    """The parts of one batch's loss, float32 scalars."""

    reconstruction: Tensor  # squared error, summed over pixels, averaged over the batch
    # divergence from the standard normal, summed over latents, averaged over the batch, in nats
    kl: Tensor
    total: Tensor  # what is minimised: `reconstruction + beta * kl`, unless other losses are chosen


def vae_loss(
    images: Tensor, reconstruction: Tensor, mu: Tensor, log_var: Tensor, *, beta: float
) -> Loss:
    """Return the negative evidence bound (Kingma & Welling 2014), KL weighted by beta.

    The weight is that of Higgins et al. 2017, "beta-VAE". Images are (N, C, H, W) in [0, 1],
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
    return kl_per_latent(mu, log_var).sum(1)


def kl_per_latent(mu: Tensor, log_var: Tensor) -> Tensor:
    """Return the same KL of each latent dimension: (N, D) float32."""
    mu, log_var = mu.float(), log_var.float()
    return 0.5 * (mu.square() + torch.expm1(log_var) - log_var)


def active_units(variance_of_mu: Tensor) -> int:
    """Count active latent units (Burda et al. 2016) by the variance of mu over the data, (D,)."""
    return int((variance_of_mu > ACTIVE_VARIANCE).sum())
