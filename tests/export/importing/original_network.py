"""The original project's first network and its files, made from the list of their tensors alone.

It shares no code with motorVAE: that its outputs are equal is what the tests show.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


class OriginalNetwork(nn.Module):
    """Five strided blocks, two heads, and the way back; `side` is that of a square grey image."""

    def __init__(self, side: int, channels: tuple[int, ...], latents: int) -> None:
        super().__init__()
        widths = [1, *channels]
        self.cells, self.top = side // 2 ** len(channels), channels[-1]
        self.encoder = nn.ModuleList(
            nn.ModuleDict({"0": nn.Conv2d(a, b, 3, 2, 1), "1": nn.BatchNorm2d(b)})
            for a, b in pairwise(widths)
        )
        flat = self.top * self.cells**2
        self.fc_mu, self.fc_var = nn.Linear(flat, latents), nn.Linear(flat, latents)
        self.decoder_input = nn.Linear(latents, flat)
        back = [*reversed(channels), channels[0]]
        self.decoder = nn.ModuleList(
            nn.ModuleDict(
                {
                    "0": nn.ConvTranspose2d(a, b, 3, 2, 1, output_padding=1),
                    "1": nn.BatchNorm2d(b),
                }
            )
            for a, b in pairwise(back)
        )
        self.decoder[-1]["3"] = nn.Conv2d(channels[0], 1, 3, padding=1)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for block in self.encoder:
            x = functional.leaky_relu(block["1"](block["0"](x)))
        x = torch.flatten(x, start_dim=1)
        return self.fc_mu(x), self.fc_var(x)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        x = self.decoder_input(z).view(-1, self.top, self.cells, self.cells)
        for block in self.decoder:
            x = functional.leaky_relu(block["1"](block["0"](x)))
        return torch.sigmoid(self.decoder[-1]["3"](x))


def original_network(
    side: int = 32, channels: tuple[int, ...] = (4, 8, 8, 16, 16), latents: int = 8
) -> OriginalNetwork:
    """Return one in evaluation mode, whose norms are none that do nothing."""
    torch.manual_seed(7)
    network = OriginalNetwork(side, channels, latents)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    images = torch.rand(16, 1, 2, 2).repeat_interleave(side // 2, 2).repeat_interleave(side // 2, 3)
    with torch.no_grad():
        network.train().decode(network.encode(images)[0])
    return network.eval()


def two_stage_file(path: Path, network: OriginalNetwork) -> Path:
    """Write what the two-stage training keeps."""
    torch.save(
        {
            "epoch": 99,
            "model_state_dict": network.state_dict(),
            "optimizer_state_dict": torch.optim.Adam(network.parameters()).state_dict(),
            "loss": 12.5,
        },
        path,
    )
    return path


def gan_file(path: Path, network: OriginalNetwork, *, within: bool = False) -> Path:
    """Write what the VAE-GAN keeps, of a run on several GPUs; `within` one state_dict for both."""
    weights = OrderedDict((f"module.{name}", one) for name, one in network.state_dict().items())
    judge = {"features.0.0.weight": torch.rand(4, 1, 3, 3), "classifier.1.bias": torch.rand(1)}
    if within:
        weights |= {f"module.discriminator.{name}": one for name, one in judge.items()}
    torch.save(
        {"epoch": 4, "vae_model_state_dict": weights, "kld_weight": 0.2}
        | ({} if within else {"discriminator_state_dict": judge}),
        path,
    )
    return path


def later_file(path: Path) -> Path:
    """Write some tensors of the later generations, which are another network."""
    names = {
        "encoder.conv1.weight": (32, 1, 4, 4),
        "encoder.fc.weight": (1024, 512),
        "encoder.fc_mean.weight": (128, 1024),
        "decoder.deconv1.weight": (512, 256, 4, 4),
    }
    torch.save({"model_state_dict": {name: torch.zeros(*s) for name, s in names.items()}}, path)
    return path
