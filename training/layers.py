"""The two kinds of convolution for which torch's way on a CPU is slow, and the ways taken instead.

Where a gradient is wanted of a model that is channels last; the sums are the same, in another
order. One core with AVX-512 and bf16, batches of 8, 256 x 256 (docs/speed.md, "Training"):

- the bias gradient of a transposed convolution took up to 57 ms, where the sum itself takes one;
- a convolution to one channel took 24 ms where a product of matrices and nine sums take 6, and the
  gradient of its weights 26 where a product takes 5.

Weights, their names and what an exported graph computes are those of torch's classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_SIDE = 3  # of the image's kernel


class UpConvolution(nn.ConvTranspose2d):
    """A transposed convolution of stride 2 with a bias: (N, C, H, W) to (N, D, 2 H, 2 W)."""

    def forward(self, maps: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return what `nn.ConvTranspose2d` does."""
        if output_size is not None or not _trains_on_cpu(self.weight, maps):
            return super().forward(maps, output_size)
        sizes = self.stride, self.padding, self.output_padding
        found: Tensor = _Up.apply(*_cast(maps, self.weight, self.bias), sizes)  # type: ignore[no-untyped-call]  # untyped in torch
        return found


class ImageConvolution(nn.Conv2d):
    """A 3 x 3 convolution with a padding of 1 to few channels: (N, C, H, W) to (N, D, H, W).

    In training on a CPU the result is float32, a sum of nine numbers in the maps' precision.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # as torch calls it
        """Return what `nn.Conv2d` does."""
        if not _trains_on_cpu(self.weight, input):
            return super().forward(input)
        found: Tensor = _Image.apply(*_cast(input, self.weight, self.bias))  # type: ignore[no-untyped-call]  # untyped in torch
        return found


def _trains_on_cpu(weight: Tensor, maps: Tensor) -> bool:
    """Whether a gradient is wanted, on a CPU, of a model that is channels last.

    Not while a graph is exported: weights of one channel are channels last however they lie.
    """
    return (
        maps.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and weight.requires_grad
        and weight.is_contiguous(memory_format=torch.channels_last)
    )


def _cast(*tensors: Tensor | None) -> list[Tensor]:
    """Return tensors in the precision that autocast would compute a convolution of them in."""
    given = [one for one in tensors if one is not None]
    if not torch.is_autocast_enabled("cpu"):
        return given
    return [one.to(torch.get_autocast_dtype("cpu")) for one in given]


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, sizes: Any) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.sizes = sizes
        return functional.conv_transpose2d(maps, weight, bias, *sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        of_maps, of_weight, of_bias, _ = ctx.needs_input_grad
        stride, padding, output_padding = ctx.sizes
        by_maps, by_weight, _ = torch.ops.aten.convolution_backward(
            gradient, maps, weight, None, stride, padding, (1, 1), True, output_padding, 1,
            (of_maps, of_weight, False),
        )  # fmt: skip
        return by_maps, by_weight, gradient.sum((0, 2, 3)) if of_bias else None, None


class _Image(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(maps, weight)
        # A row for each place in the kernel and channel of the image; each place is then a shift.
        rows = weight.permute(2, 3, 0, 1).reshape(-1, weight.shape[1])
        parts = torch.mm(rows, _pixels_of(maps).t())
        count, _, height, width = maps.shape
        parts = parts.view(_SIDE, _SIDE, len(weight), count, height, width)
        most = torch.promote_types(maps.dtype, torch.float32)
        image = bias.to(most).view(-1, 1, 1, 1).repeat(1, count, height, width)
        for i in range(_SIDE):
            to_y, from_y = _shifted(i, height)
            for j in range(_SIDE):
                to_x, from_x = _shifted(j, width)
                image[..., to_y, to_x] += parts[i, j, ..., from_y, from_x]
        return image.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        of_maps, of_weight, of_bias = ctx.needs_input_grad
        by_bias = gradient.sum((0, 2, 3)).to(weight.dtype) if of_bias else None
        gradient = gradient.to(maps.dtype)
        by_maps = by_weight = None
        if of_maps:
            by_maps, _, _ = torch.ops.aten.convolution_backward(
                gradient.contiguous(memory_format=torch.channels_last), maps, weight, None,
                (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, False, False),
            )  # fmt: skip
        if of_weight:
            height, width = maps.shape[2:]
            wide = functional.pad(gradient.transpose(0, 1), (1, 1, 1, 1))
            places = [(i, j) for i in range(_SIDE) for j in range(_SIDE)]
            # Where the kernel looks one row down, the image is one row up.
            shifts = torch.stack(
                [wide[..., 2 - i :, 2 - j :][..., :height, :width] for i, j in places]
            )
            products = torch.mm(shifts.flatten(2).flatten(0, 1), _pixels_of(maps))
            found = products.view(_SIDE, _SIDE, len(weight), -1)
            # As the weights lie: DistributedDataParallel warns of others.
            by_weight = torch.empty_like(weight).copy_(found.permute(2, 3, 0, 1))
        return by_maps, by_weight, by_bias


def _pixels_of(maps: Tensor) -> Tensor:
    """Return (N, C, H, W) as (N * H * W, C), without a copy where it is channels last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _shifted(place: int, size: int) -> tuple[slice, slice]:
    """Return which rows of the image a row of the kernel reaches, and the maps' rows it takes."""
    shift = place - 1
    return slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size + min(0, shift))
