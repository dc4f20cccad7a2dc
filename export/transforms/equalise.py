"""Float weights changed so that INT8 loses less: channels scaled alike, biases corrected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .graph_ops import array_of
from .values_inside import opened_with_values

_OUT_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0}
_IN_AXIS = {"Conv": 1, "ConvTranspose": 0, "Gemm": 1}
_BETWEEN = ("LeakyRelu", "Relu", "Reshape", "Flatten", "Identity")
"""What scales with its input, channel by channel, where the factor is positive."""
_FURTHEST = 100.0

Reach = Mapping[str, npt.NDArray[np.float64]]
Outputs = Mapping[str, npt.NDArray[np.float32]]


class Link(NamedTuple):
    """A layer whose output only other layers read, through nothing that mixes channels."""

    name: str  # of the value that the readers read
    source: ir.Node
    readers: tuple[ir.Node, ...]
    channels: int  # how many the scales are for


def links_of(model: ir.Model) -> tuple[Link, ...]:
    """Return the links between layers, first to last.

    They are those that are understood: between layers with constant weights of their own and one
    group, over values that keep the batch axis and the order of channels. All else is left alone.
    """
    found = []
    for node in model.graph:
        if not _is_layer(node):
            continue
        value = node.outputs[0]
        readers = _readers(value)
        while len(readers) == 1 and readers[0].op_type in _BETWEEN and not value.is_graph_output():
            value = readers[0].outputs[0]
            readers = _readers(value)
        if not readers or value.is_graph_output() or not all(map(_is_layer, readers)):
            continue
        given = array_of(node.inputs[1]).shape[_OUT_AXIS[node.op_type]]
        read = {array_of(one.inputs[1]).shape[_IN_AXIS[one.op_type]] for one in readers}
        if len(read) != 1:
            continue
        is_read_first = all(one.inputs[0] is value for one in readers)
        least, most = min(given, *read), max(given, *read)
        is_ordered = _is_in_order(node.outputs[0], given) and _is_in_order(value, *read)
        if is_read_first and is_ordered and most % least == 0:
            found.append(Link(str(value.name), node, readers, least))
    return tuple(found)


def equalise(model: ir.Model, reach: Reach) -> None:
    """Divide each channel by a factor where it is made and multiply it again where it is read.

    One step of rounding serves all channels of a value, so that those that reach less far lose
    most. A factor sqrt(a / w), a being how far the channel reaches and w the largest weight that
    reads it, shares what is lost between the two (SmoothQuant, Xiao et al. 2023, section 4, with
    its alpha 1/2; between layers as in Nagel et al. 2019, section 4.1). A LeakyReLU passes
    positive factors on unchanged.

    Precondition: a float32 graph whose weights and biases are constants that one layer reads, and
    for the name of each link (C,) largest magnitudes of its channels over data.
    Postcondition: the same outputs, but for rounding in float32.
    """
    for link in links_of(model):
        weights = np.max([_by_channel(reader, link.channels) for reader in link.readers], axis=0)
        factors = np.sqrt(np.maximum(reach[link.name], 1e-30) / np.maximum(weights, 1e-30))
        factors /= np.exp(np.log(factors).mean())
        factors = np.clip(factors, 1 / _FURTHEST, _FURTHEST)
        _scale(_operand(link.source, 1), _OUT_AXIS[link.source.op_type], 1 / factors)
        _scale(_operand(link.source, 2), 0, 1 / factors)
        for reader in link.readers:
            _scale(_operand(reader, 1), _IN_AXIS[reader.op_type], factors)


def reach_over(model: ir.Model, inputs: npt.NDArray[np.float32], folder: Path) -> Reach:
    """Return how far each channel of each link reaches over (N, ...) inputs, one run by itself."""
    links = links_of(model)
    reach = {link.name: np.zeros(link.channels) for link in links}
    with opened_with_values(model, folder) as backend:
        for row in range(len(inputs)):
            values = backend.run(inputs[row : row + 1])
            for link in links:
                by_channel = np.abs(values[link.name]).reshape(link.channels, -1).max(axis=1)
                reach[link.name] = np.maximum(reach[link.name], by_channel)
    return reach


def correct_biases(model: ir.Model, found: Outputs, wanted: Outputs) -> None:
    """Shift the last biases of a float encoder, in place, against a quantised copy's mean error.

    Rounding and clipping move the mean of a layer's output alike for all images; a shift
    of the last bias undoes that at no cost (Nagel et al. 2019, "Data-Free Quantization Through
    Weight Equalization and Bias Correction", section 4.2, here with data).

    Precondition: for the name of each output, (N, D) of the copy and of the encoder.
    Postcondition: a copy quantised alike has no mean error on these images but its bias's rounding;
    where one bias serves many values of an output, no mean error over these. An output that comes
    from no layer with a constant bias, through nothing but what moves or scales it, is left alone.
    """
    for output in model.graph.outputs:
        name = str(output.name)
        error = np.mean(found[name] - wanted[name].astype(np.float64), axis=0)
        place = _bias_behind(output)
        if place is None:
            continue
        shift = error.reshape(place.channels, -1).mean(axis=1) / place.factor
        corrected = array_of(place.bias).astype(np.float64)
        corrected[place.first : place.first + place.channels] -= shift
        place.bias.const_value = ir.tensor(corrected.astype(np.float32), name=place.bias.name)


class _Bias(NamedTuple):
    """Which part of a bias an output has."""

    bias: ir.Value
    first: int
    channels: int
    factor: float  # what it is multiplied by on the way


class _Part(NamedTuple):
    """Some channels of a value: the first of them, and how many, or all."""

    first: int = 0
    channels: int | None = None


_WHOLE = _Part()


def _bias_behind(output: ir.Value) -> _Bias | None:
    """Return where an output's bias is: behind what moves, splits, clips or scales it."""
    value, part, factor = output, _WHOLE, 1.0
    while (node := value.producer()) is not None:
        bias = _bias_of(node)
        if bias is not None:
            if factor == 0 or len(bias.uses()) != 1 or bias.const_value is None:
                return None
            width = array_of(bias).size
            is_flat = _is_in_order(node.outputs[0], width)
            return _Bias(bias, part.first, part.channels or width, factor) if is_flat else None
        moving = [one for one in node.inputs if one is not None and one.const_value is None]
        if len(moving) != 1 or moving[0] is not node.inputs[0]:
            return None
        if node.op_type in {"Split", "Slice"} and part is _WHOLE:
            part = _part_of(node, value)
            if part is _WHOLE:
                return None
        elif node.op_type in {"Mul", "Div", "Add", "Sub"}:
            factor *= _factor_of(node)
        elif node.op_type not in {"Reshape", "Flatten", "Identity", "Clip"}:
            return None
        value = moving[0]
    return None


def _bias_of(node: ir.Node) -> ir.Value | None:
    """Return what a layer adds, or what is added behind a product, one number for each of D."""
    if node.op_type in _OUT_AXIS:
        return _operand(node, 2)
    shape = node.outputs[0].shape
    if node.op_type != "Add" or shape is None or len(shape) != 2:
        return None
    added = [one for one in node.inputs if one is not None and one.const_value is not None]
    is_bias = len(added) == 1 and array_of(added[0]).shape == (shape[1],) and shape[1] != 1
    return added[0] if is_bias else None


def _factor_of(node: ir.Node) -> float:
    """Return what a node multiplies its first input by; 0 where that is not one number."""
    number = array_of(node.inputs[1])
    if number.size != 1:
        return 0.0
    if node.op_type == "Mul":
        return float(number.reshape(()))
    if node.op_type == "Div":
        return 1 / (float(number.reshape(())) or np.inf)
    return 1.0


def _part_of(node: ir.Node, value: ir.Value) -> _Part:
    """Return which channels a Split or Slice of channels leaves; all where it takes otherwise."""
    if node.op_type == "Slice":
        whole = node.inputs[0].shape[1] if node.inputs[0] and node.inputs[0].shape else None
        ends = [array_of(one).astype(np.int64).tolist() for one in node.inputs[1:] if one]
        if len(ends) < 3 or not isinstance(whole, int) or ends[2:] not in ([[1]], [[1], [1]]):
            return _WHOLE
        start, end, _ = slice(ends[0][0], ends[1][0]).indices(whole)
        return _Part(start, end - start)
    if node.attributes.get_int("axis", 0) != 1:
        return _WHOLE
    widths = []
    for output in node.outputs:
        shape = output.shape
        if shape is None or len(shape) < 2 or not isinstance(shape[1], int):
            return _WHOLE
        widths.append(shape[1])
    place = [*node.outputs].index(value)
    return _Part(sum(widths[:place]), widths[place])


def _is_layer(node: ir.Node) -> bool:
    """Whether it is a layer whose channels can be scaled, its constants read by nothing else."""
    attributes = node.attributes
    if node.op_type not in _OUT_AXIS or attributes.get_int("group", 1) != 1:
        return False
    whole = {name: attributes.get_int(name, 0) for name in ("transA", "transB")}
    factors = {attributes.get_float(name, 1.0) for name in ("alpha", "beta")}
    if node.op_type == "Gemm" and (whole != {"transA": 0, "transB": 1} or factors != {1.0}):
        return False
    weight, bias = _operand(node, 1), _operand(node, 2)
    if weight is None or not _is_own_constant(weight):
        return False
    width = array_of(weight).shape[_OUT_AXIS[node.op_type]]
    return bias is None or (_is_own_constant(bias) and array_of(bias).shape == (width,))


def _is_own_constant(value: ir.Value) -> bool:
    return value.const_value is not None and len(value.uses()) == 1


def _readers(value: ir.Value) -> tuple[ir.Node, ...]:
    return tuple(use.node for use in value.uses())


def _is_in_order(value: ir.Value, channels: int) -> bool:
    """Whether a value is (batch, channels, ...), the batch axis free and all else known."""
    shape = value.shape
    if shape is None or len(shape) < 2 or isinstance(shape[0], int):
        return False
    return shape[1] == channels and all(isinstance(size, int) for size in shape[1:])


def _operand(node: ir.Node, position: int) -> ir.Value | None:
    """Return a layer's weight (1) or bias (2), if it has one."""
    return node.inputs[position] if len(node.inputs) > position else None


def _by_channel(reader: ir.Node, channels: int) -> npt.NDArray[np.float64]:
    """Return the largest weight that reads each channel."""
    weight = np.moveaxis(np.abs(array_of(reader.inputs[1])), _IN_AXIS[reader.op_type], 0)
    return np.asarray(weight.reshape(channels, -1).max(axis=1), np.float64)


def _scale(value: ir.Value | None, axis: int, factors: npt.NDArray[np.float64]) -> None:
    """Multiply a constant along an axis by factors that each serve equally many."""
    if value is None:
        return
    array = array_of(value)
    every = np.repeat(factors, array.shape[axis] // len(factors))
    shape = [-1 if index == axis else 1 for index in range(array.ndim)]
    value.const_value = ir.tensor(
        (array * every.reshape(shape)).astype(np.float32), name=value.name
    )
