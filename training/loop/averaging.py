"""The optimizer, and the moving average of the weights that it moves."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from ..model import MotorVAE
from ..options import Optimizer
from .muon import Muon, is_matrix


def optimizer_of(
    model: MotorVAE,
    device: torch.device,
    *,
    name: Optimizer = "adam",
    heads_rate: float = 1.0,
    weight_decay: float = 0.0,
    precision: str = "32-true",
) -> torch.optim.Adam:
    """Return Adam (Kingma & Ba 2015) or Muon for a model; `set_rate` gives it its rate.

    With Adam the heads have a rate of their own where `heads_rate` is not 1: the update of a sum
    over thousands of inputs is as many times larger under Adam, which takes steps of one size in
    every weight (muP: Yang & Hu 2021; for Adam, Yang et al. 2022, "Tensor programs V").

    Weight decay is decoupled from the gradient (Loshchilov & Hutter 2019, "Decoupled weight decay
    regularization"): each step multiplies by 1 - rate * `weight_decay` what `is_matrix` names, so
    no bias, no batch norm and no layer at the image.
    """
    # One kernel a step, twice as fast on a CPU; not in FP16, whose gradients it would unscale by
    # itself, where nobody could clip them.
    fused = device.type in {"cpu", "cuda"} and precision != "16-mixed"
    if name == "muon":
        return Muon(model.parameters(), weight_decay=weight_decay, fused=fused)
    encoder = model.encoder
    heads = {id(one) for head in (encoder.mu, encoder.log_var) for one in head.parameters()}
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for one in model.parameters():
        relative = heads_rate if id(one) in heads else 1.0
        decay = weight_decay if is_matrix(one) else 0.0
        groups.setdefault((relative, decay), []).append(one)
    return torch.optim.Adam(
        [
            {"params": weights, "relative_rate": relative, "weight_decay": decay}
            for (relative, decay), weights in groups.items()
        ],
        fused=fused,
        decoupled_weight_decay=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give an optimizer of `optimizer_of` the learning rate of its next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("relative_rate", 1.0)


def average_of(model: MotorVAE, decay: float) -> AveragedModel:
    """Return a copy of a model that follows it as an exponential moving average.

    Call its `update_parameters` after each step. The average is over weights (Polyak & Juditsky
    1992) and the statistics of batch norm, which belong to them. After step t the decay is
    min(decay, (1 + t) / (10 + t)), so that the first steps are soon forgotten.
    """

    @torch.no_grad()
    def follow(averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        if not averages[0].is_floating_point():  # number of batches seen
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)
            return
        step = int(count)
        torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + step) / (10 + step)))

    average = AveragedModel(model, multi_avg_fn=follow, use_buffers=True)  # type: ignore[arg-type]  # the stub's own list is invariant
    return average.requires_grad_(requires_grad=False)
