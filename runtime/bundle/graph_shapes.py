"""The operators of our graphs: which attributes they have, and what shape and work they come to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .onnx_wire import Values, int64s_of

MOST_AXES = 6
FLOAT, FLOAT16, UINT8, INT8, INT64 = 1, 10, 2, 3, 7  # TensorProto.DataType


class Value(NamedTuple):
    """A value of a graph; the axis of images is not in its shape."""

    dtype: int
    shape: tuple[int, ...]
    of_images: bool
    tensor: Values | None = None  # of a constant in the file


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
        self.check(len(found) == len(default), all(0 <= one <= 4096 for one in found))
        return found

    def image_and_constants(self, fewest: int, most: int) -> tuple[Value, list[Value]]:
        """Return the first input, which is of images, and the others, which are constants."""
        self.check(fewest <= len(self.inputs) <= most)
        image, *others = self.inputs
        self.check(image.of_images, not any(other.of_images for other in others))
        return image, others


def _same(node: Node) -> Value:
    image, _ = node.image_and_constants(1, 1)
    return image


def _cast(node: Node) -> Value:
    image, _ = node.image_and_constants(1, 1)
    to = node.number("to", 0)
    node.check(to in {FLOAT, FLOAT16})
    return image._replace(dtype=to)


def _mul(node: Node) -> Value:
    image, (factor,) = node.image_and_constants(2, 2)
    node.check(math.prod(factor.shape) == 1, len(factor.shape) <= len(image.shape))
    return image


def _scaled(node: Node) -> tuple[Value, list[Value]]:
    """Return what is quantised or the contrary, and its scale and zero point."""
    node.check(2 <= len(node.inputs) <= 3, abs(node.number("axis", 1)) < MOST_AXES)
    value, *scales = node.inputs
    for scale in scales:
        node.check(not scale.of_images, len(scale.shape) <= 1)
        node.check(scale.shape == scales[0].shape)
    return value, scales


def _quantise(node: Node) -> Value:
    value, scales = _scaled(node)
    dtype = scales[1].dtype if len(scales) == 2 else UINT8
    node.check(value.of_images, dtype in {UINT8, INT8})
    return value._replace(dtype=dtype)


def _dequantise(node: Node) -> Value:
    value, scales = _scaled(node)
    node.check(value.of_images or value.tensor is not None)
    return Value(scales[0].dtype, value.shape, value.of_images)


def _conv(node: Node) -> Value:
    image, (weight, *biases) = node.image_and_constants(2, 3)
    node.check(len(image.shape) == 3, len(weight.shape) == 4)
    width, *kernel = weight.shape[0], *weight.shape[2:]
    group, strides, dilations, pads = _window(node, kernel)
    node.check(weight.shape[1] * group == image.shape[0], width % group == 0)
    node.check(all(bias.shape == (width,) for bias in biases))
    sides = [
        (side + pads[axis] + pads[axis + 2] - dilations[axis] * (kernel[axis] - 1) - 1)
        // strides[axis]
        + 1
        for axis, side in enumerate(image.shape[1:])
    ]
    node.check(min(sides) >= 1)
    node.work = math.prod(weight.shape) * math.prod(sides)
    return Value(image.dtype, (width, *sides), of_images=True)


def _conv_transpose(node: Node) -> Value:
    image, (weight, *biases) = node.image_and_constants(2, 3)
    node.check(len(image.shape) == 3, len(weight.shape) == 4)
    kernel = weight.shape[2:]
    group, strides, dilations, pads = _window(node, kernel)
    extra = node.numbers("output_padding", (0, 0))
    width = weight.shape[1] * group
    node.check(weight.shape[0] == image.shape[0], width, weight.shape[0] % group == 0)
    node.check(all(bias.shape == (width,) for bias in biases))
    sides = [
        strides[axis] * (side - 1)
        + extra[axis]
        + dilations[axis] * (kernel[axis] - 1)
        + 1
        - pads[axis]
        - pads[axis + 2]
        for axis, side in enumerate(image.shape[1:])
    ]
    node.check(min(sides) >= 1)
    node.work = math.prod(weight.shape) * math.prod(image.shape[1:])
    return Value(image.dtype, (width, *sides), of_images=True)


def _window(
    node: Node, kernel: Sequence[int]
) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return group, strides, dilations and pads of a convolution."""
    group = node.number("group", 1)
    strides, dilations = node.numbers("strides", (1, 1)), node.numbers("dilations", (1, 1))
    node.check(node.attributes.get("auto_pad", "NOTSET") == "NOTSET", group >= 1)
    node.check(node.numbers("kernel_shape", kernel) == tuple(kernel), min(kernel) >= 1)
    node.check(min(strides) >= 1, min(dilations) >= 1)
    return group, strides, dilations, node.numbers("pads", (0, 0, 0, 0))


def _gemm(node: Node) -> Value:
    image, (weight, *biases) = node.image_and_constants(2, 3)
    node.check(len(image.shape) == 1, len(weight.shape) == 2, node.number("transA", 0) == 0)
    taken, given = weight.shape[::-1] if node.number("transB", 0) else weight.shape
    node.check(taken == image.shape[0], all(bias.shape == (given,) for bias in biases))
    node.work = math.prod(weight.shape)
    return Value(image.dtype, (given,), of_images=True)


def _reshape(node: Node) -> Value:
    image, (shape,) = node.image_and_constants(2, 2)
    node.check(shape.tensor is not None, shape.dtype == INT64, len(shape.shape) == 1)
    node.check(node.number("allowzero", 0) in {0, 1}, 2 <= math.prod(shape.shape) <= MOST_AXES)
    first, *axes = int64s_of(shape.tensor or {})
    numbers = math.prod(image.shape)
    if -1 in axes:  # the images' axis is kept, and one of the others is what is left
        others = math.prod(axis for axis in axes if axis != -1)
        node.check(first == 0, not node.number("allowzero", 0), axes.count(-1) == 1, others > 0)
        axes[axes.index(-1)] = numbers // others
    node.check(first in {0, -1}, first or not node.number("allowzero", 0))
    node.check(min(axes) >= 1, math.prod(axes) == numbers)
    return image._replace(shape=tuple(axes))


def _concat(node: Node) -> Value:
    node.check(2 <= len(node.inputs) <= 64, node.number("axis", 0) == 1)
    node.check(all(value.of_images and len(value.shape) == 3 for value in node.inputs))
    first = node.inputs[0]
    node.check(all(value.shape[1:] == first.shape[1:] for value in node.inputs))
    return first._replace(shape=(sum(value.shape[0] for value in node.inputs), *first.shape[1:]))


def _depth_to_space(node: Node) -> Value:
    image, _ = node.image_and_constants(1, 1)
    size = node.number("blocksize", 0)
    node.check(len(image.shape) == 3, size == 2, image.shape[0] % 4 == 0)
    depth, high, wide = image.shape
    return image._replace(shape=(depth // 4, 2 * high, 2 * wide))


class Operator(NamedTuple):
    """An operator: the attributes that it may have, and the shape that it gives.

    An attribute's value lies in the field of that name of its message.
    """

    attributes: dict[str, str]
    output: Callable[[Node], Value]


_CONVOLUTION = {"auto_pad": "s", "dilations": "ints", "group": "i"} | dict.fromkeys(
    ("kernel_shape", "pads", "strides"), "ints"
)
OPERATORS = {
    "Cast": Operator({"to": "i"}, _cast),
    "Concat": Operator({"axis": "i"}, _concat),
    "Conv": Operator(_CONVOLUTION, _conv),
    "ConvTranspose": Operator(_CONVOLUTION | {"output_padding": "ints"}, _conv_transpose),
    "DepthToSpace": Operator({"blocksize": "i", "mode": "s"}, _depth_to_space),
    "DequantizeLinear": Operator({"axis": "i"}, _dequantise),
    "Gemm": Operator({"alpha": "f", "beta": "f", "transA": "i", "transB": "i"}, _gemm),
    "LeakyRelu": Operator({"alpha": "f"}, _same),
    "Mul": Operator({}, _mul),
    "QuantizeLinear": Operator({"axis": "i"}, _quantise),
    "Reshape": Operator({"allowzero": "i"}, _reshape),
    "Sigmoid": Operator({}, _same),
}
"""Those of ONNX's own domain that may be in a graph; a test holds them against what exports write.
"""
