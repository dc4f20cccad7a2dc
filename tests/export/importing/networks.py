"""A network of others that reconstructs without training, with maps for latents, in -1 to 1."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional

SIDE = 32


class PoolEncoder(nn.Module):
    """(N, 3, 32, 32) to a mean and a log-variance of shape (N, 3, 8, 8): means of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Conv2d(3, 3, 4, 4)
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)
        for channel in range(3):
            nn.init.constant_(self.mean.weight[channel, channel], 1 / 16)
        self.spread = nn.Conv2d(3, 3, 4, 4)
        nn.init.uniform_(self.spread.weight, -0.02, 0.02)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mean(x), torch.tanh(self.spread(x)) - 6


class PoolDecoder(nn.Module):
    """(N, 3, 8, 8) to (N, 3, 32, 32) in -1 to 1."""

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(3, 3, kernel, padding=kernel // 2)
        nn.init.dirac_(self.smooth.weight)
        nn.init.zeros_(self.smooth.bias)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.smooth(functional.interpolate(z, scale_factor=4.0, mode="nearest"))


class Pool(nn.Module):
    """Both, as people write a module."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = PoolEncoder(), PoolDecoder()

    def encode(self, x: torch.Tensor) -> object:
        return self.down(x)

    def decode(self, z: torch.Tensor) -> object:
        return self.up(z)


class PoolOfDistributions(Pool):
    """Gives a distribution and an object with `sample`, as diffusers does."""

    def encode(self, x: torch.Tensor) -> object:
        mean, log_var = self.down(x)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, logvar=log_var))

    def decode(self, z: torch.Tensor) -> object:
        return SimpleNamespace(sample=self.up(z))


class PoolOfNormals(Pool):
    """Gives torch's own distribution."""

    def encode(self, x: torch.Tensor) -> object:
        mean, log_var = self.down(x)
        return torch.distributions.Normal(mean, torch.exp(log_var / 2), validate_args=False)


class PoolOfMeans(Pool):
    """Gives mu alone."""

    def encode(self, x: torch.Tensor) -> object:
        return self.down(x)[0]


class PoolThatDraws(Pool):
    """Its mu is a draw."""

    def encode(self, x: torch.Tensor) -> object:
        mean, log_var = self.down(x)
        return mean + torch.randn_like(mean) * torch.exp(log_var / 2), log_var


class PoolOfThree(Pool):
    """Gives a draw beside mu and log_var, in an order that says nothing."""

    def encode(self, x: torch.Tensor) -> object:
        mean, log_var = self.down(x)
        return mean, mean, log_var


def pool() -> Pool:
    torch.manual_seed(2)
    return Pool().eval()
