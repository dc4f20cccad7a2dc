"""Small networks of others, and their ONNX files as exporters write them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn


class Attention(nn.Module):
    """Self-attention over the places of a map, as latent diffusion models have it in the middle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, width, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, width, high, wide = x.shape
        rows = self.norm(x).reshape(batch, width, high * wide).transpose(1, 2)
        q, k, v = self.qkv(rows).chunk(3, dim=-1)
        heads = [one.reshape(batch, -1, 2, width // 2).transpose(1, 2) for one in (q, k, v)]
        q, k, v = (one.reshape(batch * 2, -1, width // 2) for one in heads)
        weights = torch.softmax(q @ k.transpose(1, 2) / (width // 2) ** 0.5, dim=-1)
        found = (weights @ v).reshape(batch, 2, high * wide, width // 2).transpose(1, 2)
        found = self.out(found.reshape(batch, high * wide, width))
        return x + found.transpose(1, 2).reshape(batch, width, high, wide)


class SpatialEncoder(nn.Module):
    """(N, 3, H, W) to a mean and a log-variance of shape (N, 4, H / 4, W / 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2)
        self.norm, self.attention = nn.GroupNorm(4, 8), Attention(16)
        self.third, self.head = nn.Conv2d(16, 16, 3, 2, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = nn.functional.silu(self.norm(self.first(x)))
        x = self.second(nn.functional.pad(x, (0, 1, 0, 1)))
        x = self.third(self.attention(x))
        mean, log_var = torch.chunk(self.head(x), 2, dim=1)
        return mean, log_var.clamp(-30.0, 20.0)


class SpatialDecoder(nn.Module):
    """(N, 4, H / 4, W / 4) to (N, 3, H, W) in about -1 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = nn.Conv2d(4, 16, 3, padding=1), Attention(16)
        self.second, self.last = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.attention(self.first(z))
        x = self.second(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = nn.functional.interpolate(nn.functional.silu(self.norm(x)), scale_factor=2.0)
        return torch.tanh(self.last(x))


class MlpEncoder(nn.Module):
    """(N, 1, 28, 28) to two heads of 10 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(784, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5)
        )
        self.fc_mu, self.fc_var = nn.Linear(32, 10), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.body(x.view(x.shape[0], -1))
        return self.fc_mu(h), self.fc_var(h)


class SamplingEncoder(MlpEncoder):
    """Gives a draw beside its two heads."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mu, log_var = super().forward(x)
        return mu + torch.randn_like(mu) * torch.exp(log_var / 2), mu, log_var


class MlpDecoder(nn.Module):
    """(N, 10) to (N, 784) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 32), nn.ELU(), nn.Linear(32, 784), nn.Sigmoid())

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.body(z)


class BatchNorms(nn.Module):
    """Batch norms behind a convolution, a transposed and grouped one, a Linear, and before one."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.BatchNorm2d(3)
        self.conv, self.one = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=2)
        self.two, self.pool = nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1)
        self.linear, self.three = nn.Linear(8, 6), nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.leaky_relu(self.one(self.conv(self.before(x))))
        x = nn.functional.gelu(self.two(self.up(x)))
        return self.three(self.linear(torch.flatten(self.pool(x), 1)))


class SequenceFirst(nn.Module):
    """torch's own attention with the batch as the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 4, 4)
        self.attention, self.norm = nn.MultiheadAttention(8, 2), nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.conv(x).flatten(2).permute(2, 0, 1)
        rows = self.norm(rows + self.attention(rows, rows, rows, need_weights=False)[0])
        return rows.mean(0)


def trained(model: nn.Module) -> nn.Module:
    """Return a module in evaluation mode whose norms and biases are none that do nothing."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


def exported(
    model: nn.Module,
    path: Path,
    shape: Sequence[int],
    outputs: Sequence[str],
    *,
    dynamo: bool,
    opset: int,
    free: bool = True,
    constant_folding: bool = True,
) -> Path:
    """Write a module as ONNX with its own weights' initial values."""
    names = ["x"]
    sample = torch.rand(2 if free and dynamo else 1, *shape)
    settings: dict[str, object] = {}
    if free and dynamo:
        settings["dynamic_shapes"] = ({0: torch.export.Dim("n", min=1)},)
    elif free:
        settings["dynamic_axes"] = {name: {0: "n"} for name in (*names, *outputs)}
    if not dynamo:
        settings |= {
            "do_constant_folding": constant_folding,
            "training": torch.onnx.TrainingMode.EVAL,
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (sample,),
            str(path),
            input_names=names,
            output_names=[*outputs],
            opset_version=opset,
            dynamo=dynamo,
            **settings,
        )
    return path
