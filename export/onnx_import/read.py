"""A user's encoder or decoder, read and understood: its ends, its sizes, and what was left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import onnx
import onnx_ir as ir

from ...runtime.core.errors import GraphError
from . import lower_layers, lower_layout
from .emit import Array, Emitter
from .ends import DECODER, ENCODER, Ends, checked_batch, ends_of, sizes_of
from .folding import fold_shapes
from .lowering import Batch, Lowering
from .source import (
    RANDOM,
    Source,
    check_deterministic,
    cut_to,
    described,
    shape_text,
    source_from_file,
)

Layout = Literal["NCHW", "NHWC", "flat"]
_RULES = lower_layout.RULES | lower_layers.RULES


class Facts(NamedTuple):
    """What a user's encoder or decoder says of the model."""

    input_shape: tuple[int, ...]  # as the graph takes it, without the batch axis
    latent_shape: tuple[int, ...]
    image_shape: tuple[int, int, int]  # (C, H, W)
    layout: Layout  # of its image
    has_log_var: bool = False


@dataclass(frozen=True, slots=True)
class UserGraph:
    """A user's graph as it was understood; what its input's shape alone decides is folded."""

    source: Source
    ends: Ends
    batch: Batch
    facts: Facts
    original: Path | onnx.ModelProto  # as the user gave it, for ONNX Runtime
    remarks: tuple[str, ...]

    @property
    def is_half(self) -> bool:
        """Whether the user's graph computes in float16."""
        return _is_half(self.source, self.ends)


def encoder_from_file(
    path: Path,
    *,
    input_name: str | None = None,
    outputs: Mapping[str, str] | None = None,
    size: tuple[int, int] | None = None,
) -> UserGraph:
    """Read an encoder; `size` is height and width where the file leaves them open.

    GraphError where it cannot be imported: the text says why and what to do.
    """
    source = source_from_file(path)
    ends = ends_of(source, ENCODER, input_name=input_name, outputs=outputs or {})
    own, image, layout = _image_of(ends.input, size)
    known = _understood(source, ends, own)
    latents = {name: _one_each(name, known.outputs[name]) for name in ends.outputs}
    mu = latents.get("mu") or latents["moments"]
    if "moments" in latents:
        if mu[0] % 2:
            raise GraphError(f"moments of shape {mu} are not two halves", fix="name mu alone")
        mu = (mu[0] // 2, *mu[1:])
    if latents.get("log_var", mu) != mu:
        raise GraphError(
            f"mu has shape {mu} and log_var {latents['log_var']}",
            fix="name another pair with --outputs mu=...,log_var=...",
        )
    facts = Facts(own, mu, image, layout, has_log_var="mu" not in latents or "log_var" in latents)
    return UserGraph(source, ends, known.batch, facts, known.original, known.remarks)


def decoder_from_file(
    path: Path,
    *,
    latent_shape: tuple[int, ...],
    image_shape: tuple[int, int, int],
    input_name: str | None = None,
    output: str | None = None,
) -> UserGraph:
    """Read the decoder of an encoder with these latents and this (C, H, W).

    GraphError where it cannot be imported, or belongs to another encoder.
    """
    source = source_from_file(path)
    named = {"reconstruction": output} if output else {}
    ends = ends_of(source, DECODER, input_name=input_name, outputs=named)
    given = sizes_of(ends.input)[1:]
    # Free axes are the encoder's.
    free = len(given) == len(latent_shape)
    own = tuple(
        size if size is not None else latent_shape[at] if free else 0
        for at, size in enumerate(given)
    )
    if math.prod(own) != math.prod(latent_shape):
        raise GraphError(
            f"{path} takes latents of shape {shape_text(ends.input)}, and the encoder gives "
            f"{latent_shape}",
            fix="give the decoder that belongs to it",
        )
    known = _understood(source, ends, own)
    shape = _one_each("reconstruction", known.outputs["reconstruction"])
    layout = _layout_of(shape, image_shape)
    if layout is None:
        raise GraphError(
            f"{path} gives images of shape {shape}, and the encoder takes {image_shape}",
            fix="give the decoder that belongs to it, or name its image with --outputs "
            "reconstruction=...",
        )
    facts = Facts(own, latent_shape, image_shape, layout)
    return UserGraph(source, ends, known.batch, facts, known.original, known.remarks)


class _Known(NamedTuple):
    """What a walk over a graph showed."""

    batch: Batch
    original: Path | onnx.ModelProto
    remarks: tuple[str, ...]
    outputs: dict[str, tuple[tuple[int, ...], int | None]]  # shape, and axis of images


def _understood(source: Source, ends: Ends, own: tuple[int, ...]) -> _Known:
    """Cut a graph to what is used, in place, and fold what the shape of its input decides."""
    is_free = checked_batch(ends.input)
    remarks = [*ends.remarks]
    used = [*ends.outputs.values()]
    is_whole = all(value.is_graph_output() for value in used)
    drawn = [node for node in source.graph if node.op_type in RANDOM]
    cut_to(source, used)
    check_deterministic(source)
    # ONNX Runtime knows no draw of opset 22, nor does it give values inside.
    original = source.path if is_whole and not drawn else ir.to_proto(source.model)
    if drawn:
        named = ", ".join(f"{node.op_type} {node.name!r}" for node in drawn)
        remarks.append(f"left out, as no output that is used needs it: {named}")
    if idle := [value for value in used if value.producer() is None]:
        raise GraphError(
            f"{described(idle)} is not computed from the input", fix="name another output"
        )
    if _is_half(source, ends):
        remarks.append("float16 weights and arithmetic became float32")
    varied = fold_shapes(source.model, ends.input, (1, *own), is_free=is_free)
    problem: GraphError | None = None
    for batch in batches_of(is_free=is_free, varied=varied):
        try:
            emitter, values = lowered(
                source, ends, batch, lambda made: made.add_input("input", own)
            )
        except GraphError as error:
            problem = problem or error
            continue
        facts = {name: emitter.fact(value) for name, value in values.items()}
        outputs = {name: (fact.shape, fact.axis) for name, fact in facts.items()}
        return _Known(batch, original, tuple(remarks), outputs)
    raise problem or AssertionError("there is at least one way")


def batches_of(*, is_free: bool, varied: Mapping[str, Array]) -> list[Batch]:
    """Return the ways to follow the batch axis: one where it is free, else the likelier first."""
    if is_free:
        return [Batch(is_free, varied)]
    return [Batch(is_free, varied, goes_inward=inward) for inward in (True, False)]


def lowered(
    source: Source, ends: Ends, batch: Batch, front: Callable[[Emitter], ir.Value]
) -> tuple[Emitter, dict[str, ir.Value]]:
    """Make a graph of a user's behind what `front` gives; return it and its outputs."""
    emitter = Emitter("motorvae")
    lowering = Lowering(emitter, source.opset, batch)
    lowering.new[ends.input] = front(emitter)
    lowering.run(source.graph, _RULES)
    return emitter, {ours: lowering.new[value] for ours, value in ends.outputs.items()}


def _is_half(source: Source, ends: Ends) -> bool:
    values = [ends.input, *source.graph.initializers.values()]
    return any(value.dtype == ir.DataType.FLOAT16 for value in values)


def _one_each(name: str, known: tuple[tuple[int, ...], int | None]) -> tuple[int, ...]:
    """Return an output's shape without the batch axis, which must be the first."""
    shape, axis = known
    if axis != 0 or shape[0] != 1 or len(shape) < 2:
        raise GraphError(
            f"{name} has the shape {shape} for one image, and its axis {axis} is the batch",
            fix="name an output whose first axis is the batch",
        )
    return shape[1:]


def _image_of(
    value: ir.Value, size: tuple[int, int] | None
) -> tuple[tuple[int, ...], tuple[int, int, int], Layout]:
    """Return an image input's shape as it is, as (C, H, W), and how the two belong together."""
    _, *own = sizes_of(value)
    fix = "say --size HEIGHT WIDTH" if size is None else "take the size that the file has"
    what = f"the input {value.name!r} has shape {shape_text(value)}"
    if len(own) == 3:
        first = own[0] in {1, 3} or (own[0] is None and own[2] not in {1, 3})
        layout: Layout = "NCHW" if first else "NHWC"
        channels, *sides = own if first else [own[2], *own[:2]]
        if channels not in {1, 3}:
            raise GraphError(f"{what}, with {channels} channels", fix="grey is 1, and colour is 3")
    elif len(own) == 2:
        layout, channels, sides = "flat", 1, own
    elif len(own) == 1 and size is not None:
        pixels = size[0] * size[1]
        channels = own[0] // pixels if own[0] is not None else 0
        if own[0] != channels * pixels or channels not in {1, 3}:
            raise GraphError(f"{what}, and {size[0]} x {size[1]} pixels do not fill it", fix=fix)
        return (own[0],), (channels, *size), "flat"
    else:
        raise GraphError(f"{what}, and is no image of 1 or 3 channels", fix=fix)
    for side, wanted in zip(sides, size or (None, None), strict=True):
        if side is None and wanted is None:
            raise GraphError(f"{what}, whose height and width are free", fix=fix)
        if None not in {side, wanted} and side != wanted:
            raise GraphError(f"{what}, and not {size}", fix=fix)
    height, width = (
        int(side or wanted or 0) for side, wanted in zip(sides, size or (None, None), strict=True)
    )
    image = (int(channels or 0), height, width)
    shapes: dict[Layout, tuple[int, ...]] = {
        "NCHW": image,
        "NHWC": (height, width, image[0]),
        "flat": (height, width),
    }
    return shapes[layout], image, layout


def _layout_of(shape: tuple[int, ...], image: tuple[int, int, int]) -> Layout | None:
    """Return how an output of this shape is an image of (C, H, W), or None."""
    channels, height, width = image
    if shape == image:
        return "NCHW"
    if shape == (height, width, channels):
        return "NHWC"
    return (
        "flat" if shape in {(math.prod(image),), (height, width)[: 2 * (channels == 1)]} else None
    )
