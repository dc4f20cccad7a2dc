"""Float weights changed so that INT8 loses less: channels scaled alike, biases corrected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .graph_ops import array_of, opened_with_values

_OUT_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0}
_IN_AXIS = {"Conv": 1, "ConvTranspose": 0, "Gemm": 1}
_BETWEEN = ("LeakyRelu", "Reshape")
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
    """Return the links between layers, first to last."""
    found = []
    for node in model.graph:
        if node.op_type not in _OUT_AXIS:
            continue
        value = node.outputs[0]
        readers = tuple(use.node for use in value.uses())
        while len(readers) == 1 and readers[0].op_type in _BETWEEN:
            value = readers[0].outputs[0]
            readers = tuple(use.node for use in value.uses())
        if not readers or value.is_graph_output():
            continue
        if all(reader.op_type in _IN_AXIS for reader in readers):
            given = array_of(node.inputs[1]).shape[_OUT_AXIS[node.op_type]]
            read = array_of(readers[0].inputs[1]).shape[_IN_AXIS[readers[0].op_type]]
            found.append(Link(str(value.name), node, readers, min(given, read)))
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
    """Shift the biases of a float encoder's heads, in place, against a quantised copy's mean error.

    Rounding and clipping move the mean of a layer's output alike for all images; a shift
    of the last bias undoes that at no cost (Nagel et al. 2019, "Data-Free Quantization Through
    Weight Equalization and Bias Correction", section 4.2, here with data).

    Precondition: each output comes from a Gemm with a constant bias; for the name of each, (N, D)
    of the copy and of the encoder.
    Postcondition: a copy quantised alike has no mean error on these images but its bias's rounding.
    """
    for output in model.graph.outputs:
        name, head = str(output.name), output.producer()
        bias = _operand(head, 2) if head else None
        if bias is None:
            raise ValueError(f"{name} comes from no layer with a bias")
        error = np.mean(found[name] - wanted[name].astype(np.float64), axis=0)
        corrected = (array_of(bias) - error).astype(np.float32)
        bias.const_value = ir.tensor(corrected, name=bias.name)


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
