"""Rules for operators that compute: convolutions, pools, norms, sums and casts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .lowering import Lowering, Rule, attributes_of, name_of, number, real, text

Doubles = npt.NDArray[np.float64]
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16}


def _padded(to: Lowering, node: ir.Node, kernel: Sequence[int]) -> dict[str, Any]:
    """Return a window's attributes with its automatic padding written out."""
    attributes = attributes_of(node) | {"kernel_shape": [*kernel]}
    way = attributes.pop("auto_pad", "NOTSET")
    if way in {"SAME_UPPER", "SAME_LOWER"}:
        sides = to.to.shape(to.value(node, 0))[2:]
        ones = [1] * len(kernel)
        strides = attributes.get("strides", ones)
        steps = zip(sides, kernel, strides, attributes.get("dilations", ones), strict=True)
        totals = [
            max(0, (-(-side // stride) - 1) * stride + (width - 1) * dilation + 1 - side)
            for side, width, stride, dilation in steps
        ]
        attributes["pads"] = _halves(totals, more_behind=way == "SAME_UPPER")
    return attributes


def _halves(totals: Sequence[int], *, more_behind: bool) -> list[int]:
    """Return pads before and behind each side that come to these totals."""
    less, more = [total // 2 for total in totals], [-(-total // 2) for total in totals]
    return [*less, *more] if more_behind else [*more, *less]


def _conv(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    weight = to.array(node, 1)
    kernel = weight.shape[2:] if weight is not None else ()
    inputs = [to.optional(node, position) for position in range(len(node.inputs))]
    attributes = _padded(to, node, kernel)
    return [to.to.node("Conv", inputs, attributes, name=name_of(node))]


def _conv_transpose(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    weight = to.array(node, 1)
    kernel = weight.shape[2:] if weight is not None else ()
    attributes = attributes_of(node) | {"kernel_shape": [*kernel]}
    way, wanted = attributes.pop("auto_pad", "NOTSET"), attributes.pop("output_shape", None)
    ones = [1] * len(kernel)
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    extra = attributes.get("output_padding", [0] * len(kernel))
    sides = to.to.shape(to.value(node, 0))[2:]
    if wanted is None and way in {"SAME_UPPER", "SAME_LOWER"}:
        wanted = [side * stride for side, stride in zip(sides, strides, strict=True)]
    if wanted is not None:
        steps = zip(sides, kernel, strides, dilations, extra, wanted[-len(kernel) :], strict=True)
        totals = [
            stride * (side - 1) + more + (width - 1) * dilation + 1 - size
            for side, width, stride, dilation, more, size in steps
        ]
        attributes["pads"] = _halves(
            [max(0, one) for one in totals], more_behind=way == "SAME_UPPER"
        )
        attributes["output_padding"] = [
            more + max(0, -total) for more, total in zip(extra, totals, strict=True)
        ]
    inputs = [to.optional(node, position) for position in range(len(node.inputs))]
    return [to.to.node("ConvTranspose", inputs, attributes, name=name_of(node))]


def _pool(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    kernel = [*node.attributes["kernel_shape"].as_ints()]
    attributes = _padded(to, node, kernel)
    value = to.value(node, 0)
    if attributes.pop("ceil_mode", 0):
        ones = [1] * len(kernel)
        pads = attributes.get("pads", [0] * 2 * len(kernel))
        for at, side in enumerate(to.to.shape(value)[2:]):
            width = (kernel[at] - 1) * attributes.get("dilations", ones)[at] + 1
            room = side + pads[at] + pads[at + len(kernel)] - width
            if room % attributes.get("strides", ones)[at]:
                raise to.to.refusal(f"{node.op_type} that rounds its size up cannot be imported")
    return [to.to.node(node.op_type, [value], attributes, name=name_of(node))]


def _batch_norm(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    """Fold a batch norm into the layer before it, or make it a product and a sum."""
    if number(node, "training_mode", 0):
        raise to.to.refusal(
            "BatchNormalization in training mode computes from the other images of a batch: "
            "export the model after model.eval()"
        )
    scale, bias, mean, variance = (
        np.asarray(to.array(node, position), np.float64) for position in range(1, 5)
    )
    gain = scale / np.sqrt(variance + real(node, "epsilon", 1e-5))
    offset = bias - gain * mean
    value, name = to.value(node, 0), name_of(node)
    folded = _folded(to, node, value, gain, offset)
    if folded is not None:
        return [folded]
    rank = len(to.to.shape(value))
    return [_scaled(to, value, gain, offset, (-1, *[1] * (rank - 2)), name=name)]


def _folded(
    to: Lowering, node: ir.Node, value: ir.Value, gain: Doubles, offset: Doubles
) -> ir.Value | None:
    old, made = node.inputs[0], value.producer()
    if made is None or old is None or len(old.uses()) != 1 or old.is_graph_output():
        return None
    inputs = [*made.inputs, None][:3]
    weight, bias = to.to.array(inputs[1]), to.to.array(inputs[2])
    if made.op_type not in {"Conv", "ConvTranspose", "Gemm"} or weight is None:
        return None
    if made.op_type == "Gemm" and {*attributes_of(made)} - {"transB"}:
        return None
    kernel = np.asarray(weight, np.float64)
    if made.op_type == "Conv" or number(made, "transB", 0):
        kernel = kernel * gain.reshape(-1, *[1] * (kernel.ndim - 1))
    elif made.op_type == "Gemm":
        kernel = kernel * gain
    else:  # (in, out / group, ...): inputs of one group have its outputs
        group = number(made, "group", 1)
        parts = kernel.reshape(group, -1, *kernel.shape[1:])
        gains = gain.reshape(group, 1, -1, *[1] * (kernel.ndim - 2))
        kernel = (parts * gains).reshape(kernel.shape)
    own = np.zeros(1) if bias is None else np.asarray(bias, np.float64)
    name = name_of(node)
    source = made.inputs[0]
    constants = [
        to.to.constant(f"{name}_weight", kernel.astype(np.float32)),
        to.to.constant(
            f"{name}_bias", np.broadcast_to(own * gain + offset, gain.shape).astype(np.float32)
        ),
    ]
    return to.to.node(made.op_type, [source, *constants], attributes_of(made), name=name)


def _scaled(
    to: Lowering,
    value: ir.Value,
    gain: Doubles,
    offset: Doubles,
    shape: Sequence[int],
    *,
    name: str,
) -> ir.Value:
    """Return gain * value + offset, each of the channels that `shape` says."""
    gains = to.to.constant(f"{name}_gain", gain.reshape(shape).astype(np.float32))
    offsets = to.to.constant(f"{name}_offset", offset.reshape(shape).astype(np.float32))
    product = to.to.node("Mul", [value, gains], name=f"{name}_scaled")
    return to.to.node("Add", [product, offsets], name=name)


def _group_norm(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    """Write a group norm as torch's older exporter does: an instance norm of groups, and scales."""
    value, name = to.value(node, 0), name_of(node)
    shape, groups = to.to.shape(value), number(node, "num_groups", 1)
    scale, bias = (np.asarray(to.array(node, position), np.float64) for position in (1, 2))
    merged = [shape[0], groups, math.prod(shape[1:]) // groups]
    parts = to.to.reshaped(value, merged, 0, name=f"{name}_groups")
    ones, zeros = (
        to.to.constant(f"{name}_{what}", np.full(groups, one, np.float32))
        for what, one in (("ones", 1), ("zeros", 0))
    )
    epsilon = {"epsilon": real(node, "epsilon", 1e-5)}
    normal = to.to.node(
        "InstanceNormalization", [parts, ones, zeros], epsilon, name=f"{name}_normal"
    )
    whole = to.to.reshaped(normal, shape, 0, name=f"{name}_whole")
    return [_scaled(to, whole, scale, bias, (-1, *[1] * (len(shape) - 2)), name=name)]


def _rms_norm(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value, name = to.value(node, 0), name_of(node)
    rank = len(to.to.shape(value))
    first = number(node, "axis", -1) % rank
    axes = to.to.numbers(f"{name}_axes", [*range(first, rank)])
    square = to.to.node("Mul", [value, value], name=f"{name}_square")
    mean = to.to.node("ReduceMean", [square, axes], {"keepdims": 1}, name=f"{name}_mean")
    epsilon = to.to.constant(f"{name}_epsilon", np.array(real(node, "epsilon", 1e-5), np.float32))
    root = to.to.node(
        "Sqrt", [to.to.node("Add", [mean, epsilon], name=f"{name}_added")], name=f"{name}_root"
    )
    normal = to.to.node("Div", [value, root], name=f"{name}_normal")
    return [to.to.node("Mul", [normal, to.value(node, 1)], name=name)]


def _attention(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    """Write attention of (N, heads, length, width) as its products and the softmax between them."""
    given = attributes_of(node)
    if any(one for name, one in given.items() if name != "scale") or len(node.inputs) > 3:
        raise to.to.refusal(
            "Attention with a mask or with several heads in one axis is not imported"
        )
    query, key, value = (to.value(node, position) for position in range(3))
    shape, name = to.to.shape(query), name_of(node)
    if len(shape) != 4:
        raise to.to.refusal(f"Attention of {shape} is not imported")
    factor = np.array(real(node, "scale", shape[-1] ** -0.5), np.float32)
    scaled = to.to.node(
        "Mul", [query, to.to.constant(f"{name}_scale", factor)], name=f"{name}_query"
    )
    turned = to.to.node("Transpose", [key], {"perm": [0, 1, 3, 2]}, name=f"{name}_key")
    scores = to.to.node("MatMul", [scaled, turned], name=f"{name}_scores")
    weights = to.to.node("Softmax", [scores], {"axis": 3}, name=f"{name}_weights")
    return [to.to.node("MatMul", [weights, value], name=name)]


def _softmax(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value, name = to.value(node, 0), name_of(node)
    shape, images = to.to.shape(value), to.to.axis(value)
    axis = number(node, "axis", -1 if to.opset >= 13 else 1) % len(shape)
    if to.opset >= 13 or axis == len(shape) - 1:
        return [to.to.node(node.op_type, [value], {"axis": axis}, name=name)]
    # Before opset 13, all axes from this one on are one.
    flat = [*shape[:axis], math.prod(shape[axis:])]
    rows = to.to.reshaped(value, flat, images, name=f"{name}_rows")
    found = to.to.node(node.op_type, [rows], {"axis": axis}, name=f"{name}_flat")
    return [to.to.reshaped(found, shape, images, name=name)]


def _reduce(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value, name = to.value(node, 0), name_of(node)
    rank = len(to.to.shape(value))
    axes = to.listed(node, "axes", 1)
    if not axes and number(node, "noop_with_empty_axes", 0):
        return [value]
    listed = to.to.numbers(f"{name}_axes", [axis % rank for axis in axes or range(rank)])
    keeps = {"keepdims": number(node, "keepdims", 1)}
    return [to.to.node(node.op_type, [value, listed], keeps, name=name)]


def _clip(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    limits: list[ir.Value | None] = []
    for position, what in enumerate(("min", "max"), start=1):
        if what in node.attributes:  # before opset 11
            limit = np.array(node.attributes[what].as_float(), np.float32)
            limits.append(to.to.constant(f"{name_of(node)}_{what}", limit))
        else:
            limits.append(to.optional(node, position))
    value = to.value(node, 0)
    return [to.to.node("Clip", [value, *limits], name=name_of(node)) if any(limits) else value]


def _cast(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value = to.value(node, 0)
    wanted = ir.DataType(number(node, "to", int(ir.DataType.FLOAT)))
    is_float = wanted in _FLOATS | {ir.DataType.DOUBLE, ir.DataType.BFLOAT16}
    if is_float and value.dtype == ir.DataType.FLOAT:
        return [value]  # all of it is float32
    target = int(ir.DataType.FLOAT if is_float else wanted)
    return [to.to.node("Cast", [value], {"to": target}, name=name_of(node))]


def _cast_like(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value, like = to.value(node, 0), to.value(node, 1)
    if value.dtype == like.dtype or like.dtype is None:
        return [value]
    return [to.to.node("Cast", [value], {"to": int(like.dtype)}, name=name_of(node))]


def _dropout(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    return [to.value(node, 0)]


def _sum(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value = to.value(node, 0)
    for position in range(1, len(node.inputs)):
        inputs = [value, to.value(node, position)]
        value = to.to.node("Add", inputs, name=name_of(node))
    return [value]


def _swish(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value, name, alpha = to.value(node, 0), name_of(node), real(node, "alpha", 1.0)
    inner = value
    if alpha != 1:
        factor = to.to.constant(f"{name}_alpha", np.array(alpha, np.float32))
        inner = to.to.node("Mul", [value, factor], name=f"{name}_inner")
    gate = to.to.node("Sigmoid", [inner], name=f"{name}_gate")
    return [to.to.node("Mul", [value, gate], name=name)]


def _einsum(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    values = [to.value(node, position) for position in range(len(node.inputs))]
    equation = {"equation": text(node, "equation", "").replace(" ", "")}
    return [to.to.node("Einsum", values, equation, name=name_of(node))]


def _layer_norm(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    value = to.value(node, 0)
    axis = number(node, "axis", -1) % len(to.to.shape(value))
    attributes = {"axis": axis, "epsilon": real(node, "epsilon", 1e-5)}
    inputs = [to.optional(node, position) for position in range(3)]
    return [to.to.node("LayerNormalization", inputs, attributes, name=name_of(node))]


_REDUCTIONS = ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
RULES: dict[str, Rule] = {
    **dict.fromkeys((f"Reduce{what}" for what in _REDUCTIONS), _reduce),
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    **dict.fromkeys(("LogSoftmax", "Softmax"), _softmax),
    "Attention": _attention,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Clip": _clip,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Dropout": _dropout,
    "Einsum": _einsum,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "Sum": _sum,
    "Swish": _swish,
}
