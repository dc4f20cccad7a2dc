"""A decoder's transposed convolutions as plain ones over the four phases of an image, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...runtime.bundle.graph_key import BATCH
from ...runtime.core.errors import VerificationError
from .graph_ops import array_of, constant, typed_node

PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Rows and columns of an image modulo 2, in the order of DepthToSpace's blocks."""
_TAPS = {0: (1,), 1: (2, 0)}
"""Which taps of a kernel of 3 reach a phase of one axis, nearest input first.

With stride 2 and padding 1, out[2i] = w[1] x[i] and out[2i + 1] = w[2] x[i] + w[0] x[i + 1]
(Dumoulin & Visin 2016, section 4; Shi et al. 2016, "Is the deconvolution layer the same as a
convolutional layer?").
"""
_EXPECTED = {
    "kernel_shape": (3, 3),
    "strides": (2, 2),
    "pads": (1, 1, 1, 1),
    "dilations": (1, 1),
    "group": 1,
}


class _Layer(NamedTuple):
    """A convolution of the decoder: what it reads, and its constants."""

    name: str
    source: ir.Value
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def phases_from_decoder(model: ir.Model, *, everywhere: bool) -> None:
    """Rewrite a decoder's last stage so that no full-size feature map is ever made, in place.

    The last transposed convolution becomes one convolution of 2x2 to four times the channels, a
    phase each, zeros where a phase has fewer taps. They stay side by side: the activation does
    not mind, the last convolution is rewritten to read phases, and only its one channel is
    shuffled to full size.

    Precondition: a float32 decoder as `onnx_from_model` writes it, else a VerificationError.
    Postcondition: same inputs and outputs; the same sums in another order, so equal within
    float32 rounding.

    Everywhere, the other transposed convolutions are replaced too, by four convolutions each, of
    1x1, 1x2, 2x1 and 2x2, which INT8 engines have where they have no transposed ones. The first
    stays where a side that it gives is odd, as of 80 x 160 pixels: the phases would have one row
    or column too many, and it is the smallest.
    """
    graph = model.graph
    transposed = [node for node in graph if node.op_type == "ConvTranspose"]
    doubling = [node for node in transposed if _padding_of(node) == (1, 1)]
    for node in transposed:
        given = [attribute for attribute in node.attributes.values() if attribute.name in _EXPECTED]
        found = {attribute.name: attribute.value for attribute in given}
        padding = _padding_of(node)
        is_odd = node is transposed[0] and padding in {(0, 0), (0, 1), (1, 0)}
        if found != _EXPECTED or not (node in doubling or is_odd):
            raise _other_form(f"{node.name} has {found | {'output_padding': padding}}")
    if not transposed:
        raise _other_form("it has no ConvTranspose")
    if transposed[-1] not in doubling:
        raise _other_form("its last ConvTranspose gives an odd side")
    _rewrite_last_stage(graph, transposed[-1])
    if everywhere:
        for node in doubling[:-1]:
            _rewrite_as_four(graph, node)
    RemoveUnusedNodesPass()(model)


def _padding_of(node: ir.Node) -> tuple[int, ...]:
    """Return rows and columns that a transposed convolution adds; empty where it does not say."""
    found = node.attributes.get("output_padding")
    return () if found is None else tuple(found.as_ints())


def _rewrite_last_stage(graph: ir.Graph, node: ir.Node) -> None:
    activation = _only_user(node, "LeakyRelu")
    image = _only_user(activation, "Conv")
    sigmoid = _only_user(image, "Sigmoid")
    stage, last = _layer_of(node), _layer_of(image)
    wide = _convolution(
        graph,
        stage.source,
        f"{stage.name}.phases",
        weight=_dense_kernel(stage.weight),
        bias=np.tile(stage.bias, 4),
        pads=(0, 0, 1, 1),
    )
    activation.replace_input_with(0, wide.outputs[0])
    activation.outputs[0].shape = wide.outputs[0].shape
    narrow = _convolution(
        graph,
        activation.outputs[0],
        f"{last.name}.phases",
        weight=_phase_kernel(last.weight),
        bias=np.tile(last.bias, 4),
        pads=(1, 1, 1, 1),
    )
    # The sigmoid before the shuffle, where OpenVINO would put it and lose the output's name.
    name = f"{sigmoid.outputs[0].name}_phases"
    squashed = typed_node("Sigmoid", narrow.outputs, name, shape=narrow.outputs[0].shape)
    shuffle = _shuffle(squashed.outputs[0], sigmoid.outputs[0])
    graph.insert_before(node, wide)
    graph.insert_before(image, [narrow, squashed, shuffle])
    graph.outputs[0] = shuffle.outputs[0]
    graph.remove([sigmoid, image, node], safe=True)


def _rewrite_as_four(graph: ir.Graph, node: ir.Node) -> None:
    layer = _layer_of(node)
    weight = layer.weight.transpose(1, 0, 2, 3)
    phases = [
        _convolution(
            graph,
            layer.source,
            f"{layer.name}.phase_{row}{column}",
            weight=weight[:, :, _TAPS[row]][:, :, :, _TAPS[column]],
            bias=layer.bias,
            pads=(0, 0, row, column),
        )
        for row, column in PHASES
    ]
    parts, name = [phase.outputs[0] for phase in phases], f"{layer.name}.phases"
    shape = _shape(4 * len(layer.bias), layer.source)
    joined = typed_node("Concat", parts, name, shape=shape, attributes={"axis": 1})
    shuffle = _shuffle(joined.outputs[0], node.outputs[0])
    graph.insert_before(node, [*phases, joined, shuffle])
    ir.convenience.replace_all_uses_with(node.outputs[0], shuffle.outputs[0])
    graph.remove(node, safe=True)


def _dense_kernel(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (4 out, in, 2, 2) for a transposed convolution's (in, out, 3, 3), phases outermost."""
    width_in, width_out = weight.shape[:2]
    dense = np.zeros((4, width_out, width_in, 2, 2), np.float32)
    for phase, (row, column) in enumerate(PHASES):
        for i, row_tap in enumerate(_TAPS[row]):
            for j, column_tap in enumerate(_TAPS[column]):
                dense[phase, :, :, i, j] = weight[:, :, row_tap, column_tap].T
    return dense.reshape(4 * width_out, width_in, 2, 2)


def _phase_kernel(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (4 out, 4 in, 3, 3) that does on phases what (out, in, 3, 3) does on the image."""
    width_out, width_in = weight.shape[:2]
    kernel = np.zeros((4, width_out, 4, width_in, 3, 3), np.float32)
    for phase, (row, column) in enumerate(PHASES):
        for i in range(3):
            for j in range(3):
                # A neighbour's place in the image is 2 cell + phase.
                row_cell, from_row = divmod(row + i - 1, 2)
                column_cell, from_column = divmod(column + j - 1, 2)
                came_from = PHASES.index((from_row, from_column))
                kernel[phase, :, came_from, :, row_cell + 1, column_cell + 1] = weight[:, :, i, j]
    return kernel.reshape(4 * width_out, 4 * width_in, 3, 3)


def _convolution(
    graph: ir.Graph,
    source: ir.Value,
    output: str,
    *,
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    pads: Sequence[int],
) -> ir.Node:
    inputs = [
        source,
        constant(graph, f"{output}.weight", weight),
        constant(graph, f"{output}.bias", bias),
    ]
    shape = _shape(len(bias), source)
    attributes = {"kernel_shape": weight.shape[2:], "pads": pads}
    return typed_node("Conv", inputs, output, shape=shape, attributes=attributes)


def _shuffle(source: ir.Value, replaced: ir.Value) -> ir.Node:
    """Return what puts phases in their places and gives its output the name of `replaced`."""
    name, replaced.name = str(replaced.name), f"{replaced.name}_replaced"
    attributes: dict[str, int | str] = {"blocksize": 2, "mode": "DCR"}
    return typed_node("DepthToSpace", [source], name, shape=replaced.shape, attributes=attributes)


def _layer_of(node: ir.Node) -> _Layer:
    inputs = [value for value in node.inputs if value is not None]
    if len(inputs) != 3:
        raise _other_form(f"{node.name} has {len(inputs)} inputs")
    source, weight, bias = inputs
    name = str(weight.name).removesuffix(".weight")
    return _Layer(name, source, array_of(weight), array_of(bias))


def _shape(channels: int, like: ir.Value) -> ir.Shape:
    """Return the shape of so many channels of another value's size."""
    if like.shape is None or len(like.shape) != 4:
        raise _other_form(f"{like.name} has shape {like.shape}")
    return ir.Shape([BATCH, channels, *like.shape[2:]])


def _only_user(node: ir.Node, op: str) -> ir.Node:
    users = [usage.node for usage in node.outputs[0].uses()]
    if [user.op_type for user in users] != [op]:
        raise _other_form(f"{node.name} feeds {[user.op_type for user in users]}")
    return users[0]


def _other_form(problem: str) -> VerificationError:
    return VerificationError(
        f"the exported decoder is of another form, {problem}: this version of torch or onnxscript "
        "exports differently; install the versions in constraints.txt"
    )
