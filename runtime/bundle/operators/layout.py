"""Operators that only move numbers: reshape, transpose, slice, concatenate, pad and the like."""

from __future__ import annotations

import math

from ..onnx_wire import int64s_of
from .node import INT64, MOST_AXES, MOST_NUMBER, Node, Operator, Value, broadcast, numbers_in

_MOST_INDICES = 1 << 16


def _reshape(node: Node) -> Value:
    image, _ = node.image_and_constants(2, 2)
    target = node.listed(1) or []
    exact = node.number("allowzero", 0)
    node.check(exact in {0, 1}, 2 <= len(target) <= MOST_AXES, min(target, default=0) >= -1)
    kept = {axis for axis, size in enumerate(target) if size == 0}
    node.check(not (kept and exact), max(kept, default=0) < len(image.shape))
    # The axis of images is one that is kept, or else what is left.
    axis = image.axis if image.axis in kept else target.index(-1) if -1 in target else None
    node.check(axis is not None, target.count(-1) <= 1)
    shape = [image.shape[at] if at in kept else size for at, size in enumerate(target)]
    if -1 in shape:
        others = math.prod(size for size in shape if size != -1)
        shape[shape.index(-1)] = math.prod(image.shape) // max(others, 1)
    node.check(min(shape) >= 1, math.prod(shape) == math.prod(image.shape))
    # As much as before lies in front of an image: else numbers of one would lie among another's.
    front = math.prod(image.shape[: image.axis or 0]) * image.outer
    outer, rest = divmod(front, math.prod(shape[: axis or 0]))
    node.check(rest == 0, outer >= 1, shape[axis or 0] % max(outer, 1) == 0)
    return Value(image.dtype, tuple(shape), axis, outer=outer)


def _transpose(node: Node) -> Value:
    image, _ = node.image_or_weights(1, 1)
    order = node.numbers("perm", range(len(image.shape))[::-1])
    node.check(sorted(order) == [*range(len(image.shape))])
    shape = tuple(image.shape[axis] for axis in order)
    axis = None if image.axis is None else order.index(image.axis)
    return image._replace(shape=shape, axis=axis, tensor=None)


def _slice(node: Node) -> Value:
    image, _ = node.image_or_weights(4, 5)
    starts, ends, axes = node.listed(1) or [], node.listed(2) or [], node.listed(3) or []
    steps = node.listed(4) or [1] * len(starts)
    node.check(0 < len(starts) == len(ends) == len(axes) == len(steps), 0 not in steps)
    axes = [node.axis(image, axis) for axis in axes]
    node.check(len({*axes}) == len(axes))
    shape = [*image.shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        shape[axis] = len(range(*slice(start, end, step).indices(shape[axis])))
    node.check(min(shape) >= 1)
    return image._replace(shape=tuple(shape), tensor=None)


def _concat(node: Node) -> Value:
    node.check(2 <= len(node.inputs) <= 64)
    first = node.inputs[0]
    axis = node.axis(first, node.number("axis", 0))
    node.check(first.of_images)
    length = 0
    for value in node.inputs:
        node.check(value.axis == first.axis, len(value.shape) == len(first.shape))
        node.check(value.outer == first.outer)
        node.check(all(a == axis or n == first.shape[a] for a, n in enumerate(value.shape)))
        length += value.shape[axis]
    shape = (*first.shape[:axis], length, *first.shape[axis + 1 :])
    return first._replace(shape=shape)


def _pad(node: Node) -> Value:
    image, _ = node.image_and_constants(2, 4)
    pads, mode = node.listed(1) or [], node.attributes.get("mode", "constant")
    rank = len(image.shape)
    axes = node.listed(3) or [*range(rank)]
    node.check(len(pads) == 2 * len(axes), all(abs(pad) <= MOST_NUMBER for pad in pads))
    node.check(all(-rank <= axis < rank for axis in axes))
    axes = [axis % rank for axis in axes]
    node.check(len({*axes}) == len(axes), mode in {"constant", "edge", "reflect", "wrap"})
    shape = [*image.shape]
    for axis, before, behind in zip(axes, pads, pads[len(axes) :], strict=False):
        node.check(axis != image.axis or before == behind == 0)
        own = shape[axis] + min(before, 0) + min(behind, 0)
        # There is no more to mirror or to repeat; an engine would read beyond the value.
        most = {"reflect": own - 1, "wrap": own}.get(str(mode), MOST_NUMBER)
        node.check(own >= 1, max(before, behind) <= most)
        shape[axis] += before + behind
    return image._replace(shape=tuple(shape))


def _depth_to_space(node: Node) -> Value:
    image, _ = node.image_and_constants(1, 1)
    size = node.number("blocksize", 0)
    node.check(image.axis == 0, len(image.shape) == 4, 1 <= size <= MOST_NUMBER)
    count, depth, high, wide = image.shape
    node.check(depth % size**2 == 0)
    return image._replace(shape=(count, depth // size**2, size * high, size * wide))


def _space_to_depth(node: Node) -> Value:
    image, _ = node.image_and_constants(1, 1)
    size = node.number("blocksize", 0)
    node.check(image.axis == 0, len(image.shape) == 4, 1 <= size <= MOST_NUMBER)
    count, depth, high, wide = image.shape
    node.check(high % size == 0, wide % size == 0)
    return image._replace(shape=(count, depth * size**2, high // size, wide // size))


def _expand(node: Node) -> Value:
    image, _ = node.image_and_constants(2, 2)
    target = tuple(node.listed(1) or ())
    node.check(target, min(target, default=0) >= 1)
    return broadcast(node, [image, Value(INT64, target)])


def _gather(node: Node) -> Value:
    image, (indices,) = node.image_and_constants(2, 2)
    axis = node.axis(image, node.number("axis", 0))
    node.check(indices.tensor is not None, indices.dtype == INT64, image.axis is not None)
    # Not every engine looks for itself whether they are numbers of this axis.
    node.check(numbers_in(indices) <= _MOST_INDICES)
    size, places = image.shape[axis], int64s_of(indices.tensor or {})
    node.check(all(-size <= place < size for place in places))
    shape = (*image.shape[:axis], *indices.shape, *image.shape[axis + 1 :])
    moved = len(indices.shape) - 1 if (image.axis or 0) > axis else 0
    node.check(len(shape) <= MOST_AXES)
    return image._replace(shape=shape, axis=(image.axis or 0) + moved)


LAYOUT = {
    "Concat": Operator({"axis": "i"}, _concat),
    "DepthToSpace": Operator({"blocksize": "i", "mode": "s"}, _depth_to_space),
    "Expand": Operator({}, _expand),
    "Gather": Operator({"axis": "i"}, _gather),
    "Pad": Operator({"mode": "s"}, _pad),
    "Reshape": Operator({"allowzero": "i"}, _reshape),
    "Slice": Operator({}, _slice),
    "SpaceToDepth": Operator({"blocksize": "i"}, _space_to_depth),
    "Transpose": Operator({"perm": "ints"}, _transpose),
}
"""Operators whose output holds its input's numbers in another order."""
CARD_LAYOUT = {
    name: LAYOUT[name] for name in ("Concat", "DepthToSpace", "Reshape", "Slice", "Transpose")
}
