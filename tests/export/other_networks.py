"""Small networks unlike the card's, as graphs in the normal form."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from motorvae.export.verify.engine_reference import reference_from_engines
from motorvae.export.verify.reference import Reference
from motorvae.runtime.bundle.graph_key import PARTS, Part
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.open import open_file

SIDE = 16
SPATIAL = ModelSpec(
    image_size=(SIDE, 2 * SIDE),
    color="rgb",
    channels=None,
    latent_size=4 * 4 * 8,
    latent_shape=(4, 4, 8),
)
"""Of `SpatialEncoder` and `SpatialDecoder`."""
FLAT = ModelSpec(image_size=SIDE, channels=None, latent_size=6, has_log_var=False)
"""Of `FlatEncoder` and `FlatDecoder`."""


class Residual(nn.Module):
    """GroupNorm, SiLU and a convolution, twice, beside what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(2, width, eps=1e-6) for _ in range(2))
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W) for (N, C, H, W)."""
        y = self.conv1(nn.functional.silu(self.norm1(x)))
        return x + self.conv2(nn.functional.silu(self.norm2(y)))


class Attention(nn.Module):
    """One head over all pixels, its norm written out: mean, square, a small number, root."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W) for (N, C, H, W)."""
        flat = x.flatten(2).transpose(1, 2)
        centred = flat - flat.mean(2, keepdim=True)
        variance = (centred * centred).mean(2, keepdim=True)
        normal = centred / torch.sqrt(variance + 1e-6) * self.scale
        scores = self.q(normal) @ self.k(normal).transpose(1, 2) * normal.shape[2] ** -0.5
        mixed = self.out(scores.softmax(2) @ self.v(normal))
        return x + mixed.transpose(1, 2).reshape(x.shape)


class SpatialEncoder(nn.Module):
    """(N, 3, 16, 32) in [0, 1] to mu and log_var of 4 x 4 x 8, flat."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down1, self.down2 = (nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(2))
        self.block, self.attention = Residual(width), Attention(width)
        self.norm, self.moments = nn.GroupNorm(2, width), nn.Conv2d(width, 8, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, 128) each."""
        x = self.down2(self.block(self.down1(self.first(2 * image - 1))))
        moments = self.moments(nn.functional.silu(self.norm(self.attention(x))))
        mu, log_var = moments.chunk(2, dim=1)
        return mu.flatten(1), log_var.clamp(-30, 20).flatten(1)


class SpatialDecoder(nn.Module):
    """Flat latents of 4 x 4 x 8 to (N, 3, 16, 32) in about [0, 1]."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, width, 3, padding=1)
        self.block, self.attention = Residual(width), Attention(width)
        self.up1, self.up2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.norm, self.last = nn.GroupNorm(2, width), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Return (N, 3, 16, 32)."""
        x = self.attention(self.block(self.first(z.reshape(-1, 4, 4, 8))))
        for layer in (self.up1, self.up2):
            x = layer(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        image: Tensor = self.last(nn.functional.silu(self.norm(x)))
        return image * 0.15 + 0.5


class FlatEncoder(nn.Module):
    """(N, 1, 16, 16) in [0, 1] to mu (N, 6): no log_var, products whose bias is added behind."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1, groups=2)
        self.hidden, self.mu = nn.Linear(16 * width, 16), nn.Linear(16, 6)

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, 6)."""
        x = torch.relu(self.conv2(torch.relu(self.conv1(image))))
        mu: Tensor = self.mu(torch.relu(self.hidden(x.flatten(1))))
        return mu


class FlatDecoder(nn.Module):
    """(N, 6) to (N, 1, 16, 16) in [0, 1], fully connected."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.image = nn.Linear(6, 32), nn.Linear(32, SIDE * SIDE)

    def forward(self, z: Tensor) -> Tensor:
        """Return (N, 1, 16, 16)."""
        return torch.sigmoid(self.image(torch.relu(self.hidden(z)))).reshape(-1, 1, SIDE, SIDE)


def graph_of(module: nn.Module, shape: Sequence[int], *outputs: str) -> ir.Model:
    """Export a module that takes (N, *shape), in evaluation mode, as torch names things inside.

    As of all graphs in the normal form, no shape is computed while it runs.
    """
    name = "z" if len(shape) == 1 else "image"
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            program: Any = torch.onnx.export(
                module.eval(),
                (torch.zeros(2, *shape),),
                dynamo=True,
                input_names=[name],
                output_names=[*outputs],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                opset_version=20,
                external_data=False,
                verbose=False,
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    model: ir.Model = program.model
    values = [value for node in model.graph for value in node.outputs]
    constants = model.graph.initializers.values()
    for one in (model, model.graph, *model.graph, *model.graph.inputs, *constants, *values):
        one.metadata_props.clear()
    return with_fixed_shapes(model)


def with_fixed_shapes(model: ir.Model) -> ir.Model:
    """Put constants in the place of Shape nodes, and Slice in that of Split."""
    graph = model.graph

    def constant(name: str, values: Sequence[int]) -> ir.Value:
        tensor = ir.tensor(np.array(values, np.int64), name=name)
        value = ir.val(name, const_value=tensor)
        graph.register_initializer(value)
        return value

    for node in [node for node in graph if node.op_type == "Shape"]:
        source = node.inputs[0]
        assert source is not None
        assert source.shape is not None
        sizes = [size if isinstance(size, int) else -1 for size in source.shape]
        fixed = constant(f"{node.outputs[0].name}_fixed", sizes)
        ir.convenience.replace_all_uses_with(node.outputs[0], fixed)
        graph.remove(node, safe=True)
    for node in [node for node in graph if node.op_type == "Split"]:
        start = 0
        for number, value in enumerate([*node.outputs]):
            assert value.shape is not None
            width = value.shape[1]
            assert isinstance(width, int)
            name, value.name = str(value.name), f"{value.name}_split"
            ends = [constant(f"{name}_{end}", [end]) for end in (start, start + width)]
            inputs = [node.inputs[0], *ends, constant(f"{name}_axis_{number}", [1])]
            part = ir.val(name, value.dtype, value.shape)
            piece = ir.node("Slice", inputs, outputs=[part], name=f"slice_{name}")
            graph.insert_before(node, piece)
            ir.convenience.replace_all_uses_with(value, part)
            start += width
        graph.remove(node, safe=True)
    for node in graph:
        for name in ("keep_aspect_ratio_policy", "extrapolation_value"):  # at their defaults
            node.attributes.pop(name, None)
        for value in node.outputs:
            if value.shape is not None and None in [*value.shape]:
                value.shape = None
    inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True)
    found: ir.Model = ir.from_proto(inferred)
    return found


def pictures(spec: ModelSpec, count: int, seed: int = 1) -> np.ndarray:
    """Return (count, *picture_shape) uint8 of 4 x 4 flat blocks, which any weights tell apart."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, *spec.picture_shape[:-2], 4, 4), np.uint8)
    return blocks.repeat(spec.height // 4, axis=-2).repeat(spec.width // 4, axis=-1)


def reference_of(data: Mapping[Part, bytes], spec: ModelSpec, folder: Path) -> Reference:
    """Return what serialised float32 graphs give in ONNX Runtime for such pictures."""
    with contextlib.ExitStack() as stack:
        engines = []
        for part in PARTS:
            if part in data:
                path = folder / f"{part}.reference.onnx"
                path.write_bytes(data[part])
                engines.append(stack.enter_context(open_file(path)))
        decoder = engines[1] if len(engines) == 2 else None
        return reference_from_engines(engines[0], decoder, pictures(spec, 24))
