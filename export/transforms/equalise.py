"""Channels of a float32 graph scaled alike before it is quantised: same outputs, less rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...runtime.engines.open import open_file
from .fp16 import with_values_exposed
from .graph_ops import array_of

_OUT_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0}
_IN_AXIS = {"Conv": 1, "ConvTranspose": 0, "Gemm": 1}
_BETWEEN = ("LeakyRelu", "Reshape")
"""What scales with its input, channel by channel, where the factor is positive."""
_FURTHEST = 100.0

Reach = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Link:
    """A layer whose output, by way of nothing that mixes channels, only other layers read.

    Attributes:
        name: Of the value that these read.
        source: The layer.
        readers: Those that read it.
        channels: How many channels their scales are for.
    """

    name: str
    source: ir.Node
    readers: tuple[ir.Node, ...]
    channels: int


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
            given = _weight(node).shape[_OUT_AXIS[node.op_type]]
            read = _weight(readers[0]).shape[_IN_AXIS[readers[0].op_type]]
            found.append(Link(str(value.name), node, readers, min(given, read)))
    return tuple(found)


def equalise(model: ir.Model, reach: Reach) -> None:
    """Divide each channel by a factor where it is made and multiply it again where it is read.

    One step of rounding serves all channels of a value, so that those that reach less far lose
    most. A factor sqrt(a / w), a being how far the channel reaches and w the largest weight that
    reads it, shares what is lost between the two (SmoothQuant, Xiao et al. 2023, section 4, with
    its alpha 1/2; between layers as in Nagel et al. 2019, section 4.1). A LeakyReLU passes
    positive factors on unchanged.

    Precondition: a float32 graph whose weights and biases are constants that one layer reads.
    Postcondition: the same outputs, but for rounding in float32.

    Args:
        model: Changed in place.
        reach: For the name of each link, (C,) largest magnitudes of its channels over data.
    """
    for link in links_of(model):
        weights = np.max([_by_channel(reader, link.channels) for reader in link.readers], axis=0)
        factors = np.sqrt(np.maximum(reach[link.name], 1e-30) / np.maximum(weights, 1e-30))
        factors /= np.exp(np.log(factors).mean())
        factors = np.clip(factors, 1 / _FURTHEST, _FURTHEST)
        _scale(link.source, 1, _OUT_AXIS, 1 / factors)
        _scale(link.source, 2, {}, 1 / factors)
        for reader in link.readers:
            _scale(reader, 1, _IN_AXIS, factors)


def reach_over(model: ir.Model, inputs: npt.NDArray[np.float32], folder: Path) -> Reach:
    """Return how far each channel of each link reaches over (N, ...) inputs, one run by itself.

    Args:
        model: A float32 graph.
        inputs: What it takes.
        folder: Where a file may lie for a while.
    """
    links = links_of(model)
    reach = {link.name: np.zeros(link.channels) for link in links}
    path = folder / "exposed.onnx"
    ir.save(with_values_exposed(model), path)
    with open_file(path) as backend:
        for row in range(len(inputs)):
            values = backend.run(inputs[row : row + 1])
            for link in links:
                by_channel = np.abs(values[link.name]).reshape(link.channels, -1).max(axis=1)
                reach[link.name] = np.maximum(reach[link.name], by_channel)
    path.unlink()
    return reach


def _weight(node: ir.Node) -> npt.NDArray[np.float32]:
    weight = node.inputs[1]
    if weight is None:
        raise ValueError(f"{node.name} has no weight")
    return array_of(weight)


def _by_channel(reader: ir.Node, channels: int) -> npt.NDArray[np.float64]:
    weight = np.moveaxis(np.abs(_weight(reader)), _IN_AXIS[reader.op_type], 0)
    return np.asarray(weight.reshape(channels, -1).max(axis=1), np.float64)


def _scale(
    node: ir.Node, position: int, axes: Mapping[str, int], factors: npt.NDArray[np.float64]
) -> None:
    """Multiply a weight along an axis, or a bias, by factors that each serve equally many."""
    value = node.inputs[position] if len(node.inputs) > position else None
    if value is None:
        return
    array = array_of(value)
    axis = axes.get(node.op_type, 0)
    every = np.repeat(factors, array.shape[axis] // len(factors))
    shape = [-1 if index == axis else 1 for index in range(array.ndim)]
    value.const_value = ir.tensor(
        (array * every.reshape(shape)).astype(np.float32), name=value.name
    )
