"""Rules for operators that move numbers: each becomes Reshape, Transpose, Slice and a few more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from .lowering import Lowering, Rule, attributes_of, name_of, number, text


def _same(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    return [to.value(node, 0)]


def _reshape(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value, target = to.value(node, 0), to.listed(node, "shape", 1) or []
    own, images = to.to.shape(value), to.to.axis(value)
    # Axes that are kept, and what is left, at batch 1.
    keeps = not number(node, "allowzero", 0)
    shape = [
        own[at] if size == 0 and keeps and at < len(own) else size for at, size in enumerate(target)
    ]
    if shape.count(-1) == 1:
        shape[shape.index(-1)] = math.prod(own) // max(1, -math.prod(shape))
    axis = _axis_after(to, node, target, shape, own=own, images=images)
    if axis is None:
        raise to.to.refusal(
            f"the batch axis cannot be followed from {own} to {shape}: export the model with a "
            "dynamic batch axis"
        )
    return [to.to.reshaped(value, shape, axis, name=name_of(node))]


def _axis_after(
    to: Lowering,
    node: ir.Node,
    target: Sequence[int],
    shape: Sequence[int],
    *,
    own: Sequence[int],
    images: int,
) -> int | None:
    """Return which axis of a new shape is that of images."""
    if images < len(target) and target[images] == 0:
        return images
    at_two = to.varied(node, 1)
    if at_two is not None and len(at_two) == len(target):
        changed = [at for at, (a, b) in enumerate(zip(target, at_two, strict=True)) if a != b]
        return changed[0] if len(changed) == 1 else None
    if to.batch.is_free:
        return target.index(-1) if -1 in target else None
    return _likeliest_axis(shape, own, images, goes_inward=to.batch.goes_inward)


def _likeliest_axis(
    shape: Sequence[int], own: Sequence[int], images: int, *, goes_inward: bool
) -> int | None:
    """Return which axis of a new shape is that of images, by the shapes at batch 1 alone.

    It stays where as much lies before and behind it, or leaves an axis that it was merged with, or
    merges with a neighbour. Only a run with several images can tell whether that is so.
    """
    before, behind = math.prod(own[:images]), math.prod(own[images + 1 :])
    starts = [at for at in range(len(shape)) if math.prod(shape[:at]) == before]
    ends = [at for at in range(len(shape)) if math.prod(shape[at + 1 :]) == behind]
    left = [at for at in starts + ends if shape[at] == 1 and own[images] > 1]
    kept = [at for at in starts if at in ends]
    merged = starts + ends if goes_inward or images == 0 else ends + starts
    # Features are behind all else, and layers sum over them.
    merged.sort(key=lambda at: at == len(shape) - 1)
    return next(iter([*left, *kept, *merged]), None)


def _flatten(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value = to.value(node, 0)
    shape, images = to.to.shape(value), to.to.axis(value)
    axis = number(node, "axis", 1)
    axis += len(shape) if axis < 0 else 0
    target = (math.prod(shape[:axis]), math.prod(shape[axis:]))
    return [to.to.reshaped(value, target, 0 if images < axis else 1, name=name_of(node))]


def _squeeze(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value = to.value(node, 0)
    shape, images = to.to.shape(value), to.to.axis(value)
    axes = to.listed(node, "axes", 1)
    if axes is None:
        axes = [at for at, size in enumerate(shape) if size == 1 and at != images]
    gone = {axis % len(shape) for axis in axes}
    if images in gone or any(shape[axis] != 1 for axis in gone):
        raise to.to.refusal(f"Squeeze of the axes {sorted(gone)} of {shape} drops the batch axis")
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    target = [shape[axis] for axis in kept]
    return [to.to.reshaped(value, target, kept.index(images), name=name_of(node))]


def _unsqueeze(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value, axes = to.value(node, 0), to.listed(node, "axes", 1) or []
    own = [*enumerate(to.to.shape(value))]
    images = to.to.axis(value)
    new = {axis % (len(own) + len(axes)) for axis in axes}
    old = iter(own)
    every = [(-1, 1) if at in new else next(old) for at in range(len(own) + len(new))]
    target = [size for _, size in every]
    axis = [source for source, _ in every].index(images)
    return [to.to.reshaped(value, target, axis, name=name_of(node))]


def _transpose(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value = to.value(node, 0)
    rank = len(to.to.shape(value))
    order = [*node.attributes["perm"].as_ints()] if "perm" in node.attributes else []
    order = order or [*range(rank)][::-1]
    if order == [*range(rank)]:
        return [value]
    return [to.to.node("Transpose", [value], {"perm": order}, name=name_of(node))]


def sliced(
    to: Lowering, value: ir.Value, axes: Sequence[tuple[int, int, int, int]], *, name: str
) -> ir.Value:
    """Return a slice along (axis, start, end, step)s; all of an axis may be asked for."""
    shape = to.to.shape(value)
    cuts = []
    for axis, start, end, step in axes:
        places = range(*slice(start, end, step).indices(shape[axis]))
        if places != range(shape[axis]):
            cuts.append((axis, start, end, step))
    if not cuts:
        return value
    order = (("starts", 1), ("ends", 2), ("axes", 0), ("steps", 3))
    listed = [(what, [cut[place] for cut in cuts]) for what, place in order]
    inputs = [value, *(to.to.numbers(f"{name}_{what}", numbers) for what, numbers in listed)]
    return to.to.node("Slice", inputs, name=name)


def _slice(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value = to.value(node, 0)
    starts, ends = to.listed(node, "starts", 1) or [], to.listed(node, "ends", 2) or []
    axes = to.listed(node, "axes", 3) or [*range(len(starts))]
    steps = to.listed(node, "steps", 4) or [1] * len(starts)
    rank = len(to.to.shape(value))
    cuts = [*zip([axis % rank for axis in axes], starts, ends, steps, strict=True)]
    return [sliced(to, value, cuts, name=name_of(node))]


def _split(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value = to.value(node, 0)
    shape = to.to.shape(value)
    axis = number(node, "axis", 0) % len(shape)
    parts = len(node.outputs)
    each = -(-shape[axis] // parts)
    sizes = to.listed(node, "split", 1) or [each] * parts
    ends = np.minimum(np.cumsum(sizes), shape[axis]).tolist()
    starts = [0, *ends[:-1]]
    return [
        sliced(to, value, [(axis, start, end, 1)], name=name_of(node, position))
        for position, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def _gather(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value, indices = to.value(node, 0), to.array(node, 1)
    shape = to.to.shape(value)
    axis = number(node, "axis", 0) % len(shape)
    places = np.asarray(0 if indices is None else indices, np.int64)
    if np.any(places < -shape[axis]) or np.any(places >= shape[axis]):
        raise to.to.refusal(f"Gather takes indices beyond axis {axis} of {shape}")
    places %= shape[axis]
    if places.ndim:
        inputs = [value, to.to.constant(f"{name_of(node)}_indices", places)]
        return [to.to.node("Gather", inputs, {"axis": axis}, name=name_of(node))]
    place, images = int(places), to.to.axis(value)
    if axis == images:
        raise to.to.refusal("Gather takes one image out of the batch")
    one = sliced(to, value, [(axis, place, place + 1, 1)], name=f"{name_of(node)}_slice")
    target = [*shape[:axis], *shape[axis + 1 :]]
    return [to.to.reshaped(one, target, images - (axis < images), name=name_of(node))]


def _concat(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    values = [to.value(node, position) for position in range(len(node.inputs))]
    if len(values) == 1:
        return values
    axis = number(node, "axis", 1) % len(to.to.shape(values[0]))
    return [to.to.node("Concat", values, {"axis": axis}, name=name_of(node))]


def _pad(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value, pads = to.value(node, 0), to.listed(node, "pads", 1) or []
    rank = len(to.to.shape(value))
    axes = to.listed(node, "axes", 3) or [*range(rank)]
    every = [0] * 2 * rank
    for axis, before, behind in zip(axes, pads, pads[len(axes) :], strict=False):
        every[axis % rank], every[axis % rank + rank] = before, behind
    if not any(every):
        return [value]
    inputs: list[ir.Value | None] = [value, to.to.numbers(f"{name_of(node)}_pads", every)]
    filling = to.optional(node, 2)
    if "value" in node.attributes:
        number_ = np.array(node.attributes["value"].as_float(), np.float32)
        filling = to.to.constant(f"{name_of(node)}_value", number_)
    mode = {"mode": text(node, "mode", "constant")}
    return [to.to.node("Pad", [*inputs, filling], mode, name=name_of(node))]


def _expand(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value, target = to.value(node, 0), to.listed(node, "shape", 1) or []
    shape, images = to.to.shape(value), to.to.axis(value)
    wide = max(len(target), len(shape))
    own = [1] * (wide - len(shape)) + [*shape]
    wanted = [1] * (wide - len(target)) + target
    wanted[images + wide - len(shape)] = 1  # as many images as there are
    if len(target) <= len(shape) and all(a in {1, b} for a, b in zip(wanted, own, strict=True)):
        return [value]
    inputs = [value, to.to.numbers(f"{name_of(node)}_shape", wanted)]
    return [to.to.node("Expand", inputs, name=name_of(node))]


def _tile(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value, repeats = to.value(node, 0), to.listed(node, "repeats", 1) or []
    for axis, count in enumerate(repeats):
        if not 1 <= count <= 64:
            raise to.to.refusal(f"Tile repeats axis {axis} {count} times")
        if count > 1:
            name = f"{name_of(node)}_{axis}"
            value = to.to.node("Concat", [value] * count, {"axis": axis}, name=name)
    return [value]


def _resize(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value = to.value(node, 0)
    shape, images = to.to.shape(value), to.to.axis(value)
    is_old = node.op_type == "Upsample" or len(node.inputs) == 2  # before opset 11
    at = 1 if is_old else 2
    axes = [*node.attributes["axes"].as_ints()] if "axes" in node.attributes else None
    axes = [axis % len(shape) for axis in axes or range(len(shape))]
    scales: Any = to.array(node, at)
    if "scales" in node.attributes:
        scales = node.attributes["scales"].as_floats()
    sizes = to.listed(node, "sizes", 3) if not is_old else None
    every = np.ones(len(shape), np.float32)
    if sizes:
        if text(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
            raise to.to.refusal("Resize that keeps an aspect ratio cannot be imported")
        for axis, size in zip(axes, sizes, strict=True):
            every[axis] = _scale_to(size, shape[axis])
    elif scales is not None and len(scales):
        every[axes] = np.asarray(scales, np.float32)
    every[images] = 1
    kept = ("antialias", "cubic_coeff_a", "exclude_outside", "mode", "nearest_mode")
    attributes = {name: one for name, one in attributes_of(node).items() if name in kept}
    attributes["coordinate_transformation_mode"] = text(
        node, "coordinate_transformation_mode", "asymmetric" if is_old else "half_pixel"
    )
    if is_old and text(node, "mode", "nearest") == "nearest":
        attributes["nearest_mode"] = "floor"
    if np.array_equal(every, np.ones_like(every)):
        return [value]
    inputs = [value, None, to.to.constant(f"{name_of(node)}_scales", every)]
    return [to.to.node("Resize", inputs, attributes, name=name_of(node))]


def _scale_to(size: int, length: int) -> float:
    """Return a scale that makes exactly `size` of `length`, whose fraction is cut off."""
    scale = np.float32(size / length)
    return float(
        scale if int(length * float(scale)) >= size else np.nextafter(scale, np.float32(2**24))
    )


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Concat": _concat,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _same,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
