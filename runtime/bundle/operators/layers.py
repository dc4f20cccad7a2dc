"""Operators that sum over a neighbourhood or an axis: convolutions, products, pools, norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .node import ABSENT, MOST_AXES, Node, Operator, Value, broadcast, numbers_in


class _Window(NamedTuple):
    """How a kernel moves."""

    group: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    def sides(self, kernel: Sequence[int], sides: Sequence[int]) -> list[int]:
        """Return in how many places it fits along each side."""
        room = [
            side + before + behind - dilation * (width - 1) - 1
            for side, before, behind, dilation, width in zip(
                sides, self.pads, self.pads[len(sides) :], self.dilations, kernel, strict=False
            )
        ]
        return [one // stride + 1 for one, stride in zip(room, self.strides, strict=True)]


def _window_of(node: Node, kernel: Sequence[int]) -> _Window:
    group, ones = node.number("group", 1), (1,) * len(kernel)
    strides, dilations = node.numbers("strides", ones), node.numbers("dilations", ones)
    node.check(node.attributes.get("auto_pad", "NOTSET") == "NOTSET", group >= 1)
    node.check(node.numbers("kernel_shape", kernel) == tuple(kernel), min(kernel) >= 1)
    node.check(min(strides) >= 1, min(dilations) >= 1)
    return _Window(group, strides, dilations, node.numbers("pads", (0,) * 2 * len(kernel)))


def _image_and_weights(node: Node) -> tuple[Value, Value, list[Value]]:
    """Return the input of a convolution in one or two dimensions, its kernel, and its bias."""
    image, (weight, *biases) = node.image_and_constants(2, 3)
    node.check(image.axis == 0, len(image.shape) in {3, 4})
    node.check(len(weight.shape) == len(image.shape))
    return image, weight, biases


def _conv(node: Node) -> Value:
    image, weight, biases = _image_and_weights(node)
    width, *kernel = weight.shape[0], *weight.shape[2:]
    window = _window_of(node, kernel)
    node.check(weight.shape[1] * window.group == image.shape[1], width % window.group == 0)
    node.check(all(bias.shape == (width,) for bias in biases))
    sides = window.sides(kernel, image.shape[2:])
    node.check(min(sides) >= 1)
    node.work = math.prod(weight.shape) * math.prod(sides) * image.shape[0]
    return image._replace(shape=(image.shape[0], width, *sides))


def _conv_transpose(node: Node) -> Value:
    image, weight, biases = _image_and_weights(node)
    kernel = weight.shape[2:]
    window = _window_of(node, kernel)
    extra = node.numbers("output_padding", (0,) * len(kernel))
    width = weight.shape[1] * window.group
    node.check(weight.shape[0] == image.shape[1], width, weight.shape[0] % window.group == 0)
    node.check(all(bias.shape == (width,) for bias in biases))
    sides = [
        window.strides[axis] * (side - 1)
        + extra[axis]
        + window.dilations[axis] * (kernel[axis] - 1)
        + 1
        - window.pads[axis]
        - window.pads[axis + len(kernel)]
        for axis, side in enumerate(image.shape[2:])
    ]
    node.check(min(sides) >= 1)
    node.work = math.prod(weight.shape) * math.prod(image.shape[2:]) * image.shape[0]
    return image._replace(shape=(image.shape[0], width, *sides))


def _pool(node: Node) -> Value:
    image, _ = node.image_and_constants(1, 1)
    node.check(image.axis == 0, len(image.shape) in {3, 4})
    kernel = node.numbers("kernel_shape", (0,) * (len(image.shape) - 2))
    window = _window_of(node, kernel)
    sides = window.sides(kernel, image.shape[2:])
    node.check(node.number("ceil_mode", 0) == 0, min(sides) >= 1)
    node.work = math.prod(image.shape[:2]) * math.prod(sides) * math.prod(kernel)
    return image._replace(shape=(*image.shape[:2], *sides))


def _global_pool(node: Node) -> Value:
    image, _ = node.image_and_constants(1, 1)
    node.check(image.axis == 0, len(image.shape) >= 3)
    return image._replace(shape=(*image.shape[:2], *(1,) * (len(image.shape) - 2)))


def _gemm(node: Node) -> Value:
    image, (weight, *biases) = node.image_and_constants(2, 3)
    node.check(image.axis == 0, len(image.shape) == len(weight.shape) == 2)
    taken, given = weight.shape[::-1] if node.number("transB", 0) else weight.shape
    node.check(node.number("transA", 0) == 0, taken == image.shape[1])
    node.check(all(bias.shape in {(given,), (1, given), (1,), ()} for bias in biases))
    node.work = math.prod(weight.shape) * image.shape[0]
    return image._replace(shape=(image.shape[0], given))


def _matmul(node: Node) -> Value:
    node.check(len(node.inputs) == 2, all(len(value.shape) >= 2 for value in node.inputs))
    left, right = node.inputs
    rank = max(len(left.shape), len(right.shape))
    node.check(left.shape[-1] == right.shape[-2], rank <= MOST_AXES)
    # The axis that is summed over cannot be that of images, nor can a constant's be.
    node.check(left.axis != len(left.shape) - 1, right.axis != len(right.shape) - 2)
    rows = left._replace(shape=(*left.shape[:-1], 1))
    columns = right._replace(shape=(*right.shape[:-2], 1, right.shape[-1]))
    value = broadcast(node, [rows, columns])
    node.check(value.of_images)
    node.work = numbers_in(value) * left.shape[-1]
    return value


def _einsum(node: Node) -> Value:
    equation = node.attributes.get("equation")
    # Of three or more, an engine multiplies two first, whose product can be larger than all others.
    node.check(isinstance(equation, str), 1 <= len(node.inputs) <= 2)
    taken, arrow, given = str(equation).replace(" ", "").partition("->")
    terms = taken.split(",")
    node.check(arrow, len(terms) == len(node.inputs), "".join([*terms, given]).isalpha())
    sizes: dict[str, int] = {}
    of_images: set[str] = set()
    for term, value in zip(terms, node.inputs, strict=True):
        node.check(len(term) == len(value.shape), len({*term}) == len(term))
        node.check(all(sizes.get(a, n) == n for a, n in zip(term, value.shape, strict=True)))
        sizes |= zip(term, value.shape, strict=True)
        of_images |= {term[value.axis]} if value.axis is not None else set()
    (images,) = of_images if len(of_images) == 1 else {""}
    node.check(images, images in given, {*given} <= sizes.keys(), len({*given}) == len(given))
    for term, value in zip(terms, node.inputs, strict=True):
        node.check(value.of_images or images not in term)
    outer = {value.outer for value in node.inputs if value.of_images}
    node.check(0 < len(given) <= MOST_AXES, len(outer) == 1)
    node.work = math.prod(sizes.values())
    shape = tuple(sizes[axis] for axis in given)
    return Value(node.inputs[0].dtype, shape, given.index(images), outer=outer.pop())


def _softmax(node: Node) -> Value:
    image, _ = node.image_and_constants(1, 1)
    node.axis(image, node.number("axis", -1))
    return image


def _layer_norm(node: Node) -> Value:
    image, scales = node.image_and_constants(2, 3)
    first = node.axis(image, node.number("axis", -1))
    node.check(image.axis is not None and image.axis < first)
    node.check(all(scale.shape == image.shape[first:] for scale in scales))
    return image


def _instance_norm(node: Node) -> Value:
    image, scales = node.image_and_constants(3, 3)
    node.check(image.axis == 0, len(image.shape) >= 3)
    node.check(all(scale.shape == image.shape[1:2] for scale in scales))
    return image


def _reduce(node: Node) -> Value:
    image, _ = node.image_and_constants(1, 2)
    axes = [node.axis(image, axis) for axis in node.listed(1) or ()]
    node.check(axes, len({*axes}) == len(axes), node.number("noop_with_empty_axes", 0) == 0)
    if node.number("keepdims", 1):
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(image.shape))
        return image._replace(shape=shape)
    kept = [axis for axis in range(len(image.shape)) if axis not in axes]
    shape = tuple(image.shape[axis] for axis in kept)
    return image._replace(shape=shape, axis=kept.index(image.axis or 0))


def _resize(node: Node) -> Value:
    image, others = node.image_and_constants(3, 3)
    scales = node.listed_floats(2)
    node.check(others[0] is ABSENT, scales is not None, len(scales or ()) == len(image.shape))
    node.check(all(2**-12 <= scale <= 2**12 for scale in scales or ()))
    pairs = enumerate(zip(image.shape, scales or (), strict=True))
    node.check(all(scale == 1 for axis, (_, scale) in pairs if axis == image.axis))
    shape = tuple(int(size * scale) for size, scale in zip(image.shape, scales or (), strict=True))
    node.check(min(shape) >= 1)
    node.work = 16 * max(math.prod(shape), math.prod(image.shape))  # of the widest filter
    return image._replace(shape=shape)


_CONVOLUTION = {"auto_pad": "s", "dilations": "ints", "group": "i"} | dict.fromkeys(
    ("kernel_shape", "pads", "strides"), "ints"
)
_POOL = {"auto_pad": "s", "ceil_mode": "i", "dilations": "ints"} | dict.fromkeys(
    ("kernel_shape", "pads", "strides"), "ints"
)
_RESIZE = dict.fromkeys(("coordinate_transformation_mode", "mode", "nearest_mode"), "s") | {
    "antialias": "i",
    "cubic_coeff_a": "f",
    "exclude_outside": "i",
}
_REDUCTIONS = ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
CARD_LAYERS = {
    "Conv": Operator(_CONVOLUTION, _conv),
    "ConvTranspose": Operator(_CONVOLUTION | {"output_padding": "ints"}, _conv_transpose),
    "Gemm": Operator({"alpha": "f", "beta": "f", "transA": "i", "transB": "i"}, _gemm),
}
LAYERS = {
    **CARD_LAYERS,
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), Operator({}, _global_pool)),
    **dict.fromkeys(("LogSoftmax", "Softmax"), Operator({"axis": "i"}, _softmax)),
    **dict.fromkeys(
        (f"Reduce{what}" for what in _REDUCTIONS),
        Operator({"keepdims": "i", "noop_with_empty_axes": "i"}, _reduce),
    ),
    "AveragePool": Operator(_POOL | {"count_include_pad": "i"}, _pool),
    "Einsum": Operator({"equation": "s"}, _einsum),
    "InstanceNormalization": Operator({"epsilon": "f"}, _instance_norm),
    "LayerNormalization": Operator({"axis": "i", "epsilon": "f", "stash_type": "i"}, _layer_norm),
    "MatMul": Operator({}, _matmul),
    "MaxPool": Operator(_POOL | {"storage_order": "i"}, _pool),
    "Resize": Operator(_RESIZE, _resize),
}
"""Operators whose numbers come from several of their input's."""
