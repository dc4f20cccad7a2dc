"""A value and a node of a graph, as the rules for operators see them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..onnx_wire import Values, float32s_of, int64s_of

MOST_AXES = 6
MOST_NUMBER = 4096  # of an attribute that counts pixels
_MOST_LISTED = 64  # numbers of a constant that says where and how far
FLOAT, UINT8, INT8, INT64, BOOL, FLOAT16 = 1, 2, 3, 7, 9, 10  # TensorProto.DataType


class Value(NamedTuple):
    """A value of a graph.

    One axis of what is computed from images is that of images, whose length is the batch times
    what the shape says there: 1, or more where axes were merged with it. `outer` of those are of
    axes in front of it, so that the place of a number along it is (outer, image, others).
    """

    dtype: int
    shape: tuple[int, ...]
    axis: int | None = None  # of images
    tensor: Values | None = None  # of a constant in the file
    outer: int = 1

    @property
    def of_images(self) -> bool:
        """Whether there is one for each image."""
        return self.axis is not None


ABSENT = Value(0, ())
"""An input that is left out, in front of others."""


class Node:
    """A node whose output's type and shape are asked for."""

    def __init__(self, op: str, attributes: dict[str, object], inputs: list[Value]) -> None:
        self.op, self.attributes, self.inputs = op, attributes, inputs
        self.work = 0  # multiplications for one image

    def check(self, *conditions: object) -> None:
        """Raise ValueError unless all of them hold."""
        if not all(conditions):
            shapes = [value.shape for value in self.inputs][:4]
            given = str(self.attributes)[:100]
            raise ValueError(f"a {self.op} in it does not take {shapes} with {given}")

    def number(self, name: str, default: int) -> int:
        """Return an attribute that is one number."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default

    def numbers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """Return an attribute of several numbers, as many as the default's and none too large."""
        value = self.attributes.get(name)
        found = tuple(value) if isinstance(value, list) and value else tuple(default)
        self.check(len(found) == len(default), all(0 <= one <= MOST_NUMBER for one in found))
        return found

    def image_and_constants(self, fewest: int, most: int) -> tuple[Value, list[Value]]:
        """Return the first input, which is of images, and the others, which are constants."""
        self.check(fewest <= len(self.inputs) <= most)
        image, *others = self.inputs
        self.check(image.of_images, not any(other.of_images for other in others))
        return image, others

    def image_or_weights(self, fewest: int, most: int) -> tuple[Value, list[Value]]:
        """Return the same where the first may be weights, of which others are computed."""
        self.check(fewest <= len(self.inputs) <= most)
        first, *others = self.inputs
        weights = first.dtype == FLOAT and len(first.shape) == 4
        self.check(first.of_images or weights, not any(other.of_images for other in others))
        return first, others

    def input(self, position: int) -> Value:
        """Return an input, or ABSENT where there are fewer."""
        return self.inputs[position] if position < len(self.inputs) else ABSENT

    def listed(self, position: int) -> list[int] | None:
        """Return the numbers of an input that is a short INT64 constant, or None without it."""
        value = self.input(position)
        if value is ABSENT:
            return None
        self.check(value.tensor is not None, value.dtype == INT64, len(value.shape) == 1)
        self.check(value.shape[0] <= _MOST_LISTED)
        return int64s_of(value.tensor or {})

    def listed_floats(self, position: int) -> list[float] | None:
        """Return the numbers of an input that is a short FLOAT constant, or None without it."""
        value = self.input(position)
        if value is ABSENT:
            return None
        self.check(value.tensor is not None, value.dtype == FLOAT, len(value.shape) == 1)
        self.check(value.shape[0] <= _MOST_LISTED, "raw_data" in (value.tensor or {}))
        return float32s_of(value.tensor or {})

    def axis(self, value: Value, given: int) -> int:
        """Return an axis of a value that may be given from its end, and is not that of images."""
        rank = len(value.shape)
        self.check(-rank <= given < rank, given % max(rank, 1) != value.axis)
        return given % rank


def numbers_in(value: Value) -> int:
    """Return how many numbers a value has for one image, or a constant in all."""
    return math.prod(value.shape)


def broadcast(node: Node, values: Sequence[Value]) -> Value:
    """Return the value, of the first one's type, to which the shapes of several broadcast."""
    rank = max(len(value.shape) for value in values)
    axes = {rank - len(value.shape) + value.axis for value in values if value.axis is not None}
    outer = {value.outer for value in values if value.of_images}
    node.check(len(axes) <= 1, len(outer) <= 1, rank <= MOST_AXES)
    axis = next(iter(axes), None)
    shape = []
    for position in range(rank):
        sizes = set()
        for value in values:
            own = position - (rank - len(value.shape))
            size = value.shape[own] if own >= 0 else 1
            # A constant lies beside each image only where it has one number for all of them.
            node.check(position != axis or value.of_images or size == 1)
            sizes.add(0 if position == axis and not value.of_images else size)
        sizes.discard(0)
        wide = sizes if position == axis else sizes - {1}
        node.check(len(wide) <= 1)
        shape.append(next(iter(wide), 1))
    return Value(values[0].dtype, tuple(shape), axis, outer=next(iter(outer), 1))


class Operator(NamedTuple):
    """An operator: the attributes that it may have, and the value that it gives.

    An attribute's value lies in the field of that name of its message.
    """

    attributes: dict[str, str]
    output: Callable[[Node], Value]
