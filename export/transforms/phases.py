"""A decoder's transposed convolutions as plain ones over the four phases of an image, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...runtime.bundle.graph_key import BATCH, Target
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
_CUTS = {0: (1, 2, 1), 1: (2, -4, -2)}
"""The same as start, end and step of a Slice."""
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
    kernel: ir.Value
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def phases_from_decoder(
    model: ir.Model, target: Target | None = None, *, cut: bool = False
) -> None:
    """Rewrite a decoder for a kind of engine, or in float32 for all of them, in place.

    A transposed convolution becomes the four convolutions that give one phase of its image each,
    of 1x1, 1x2, 2x1 and 2x2, with no multiplication more than it had. No feature map of full size
    is ever made of the last one: the activation is taken phase by phase, and the convolution to
    the image becomes one for each phase, with a stride, to all pixels of a cell of 4x4. Their sum
    fills a vector of 16 where a single channel leaves 15 lanes idle; only finished pixels are
    shuffled.

    Without a target the last one alone is rewritten. For ONNX Runtime and OpenVINO they all are
    (but see `cut`), and what joins their phases is what that engine does quickly. For TensorRT,
    where launching a kernel costs more than zeros do, the last one becomes one convolution of 2x2
    to all phases, and the others are joined before the activation.

    With `cut`, for ONNX Runtime alone, weights stay as the transposed convolutions have them, so
    that a bundle holds them once, and nodes cut them that an engine folds as it opens the graph.
    The first stays transposed: it has most of them, and phases of its small map are no faster.

    The first stays transposed where a side that it gives is odd, as of 80 x 160 pixels: the phases
    would have one row or column too many, and it is the smallest.

    Precondition: a float32 decoder as `onnx_from_model` writes it, else a VerificationError.
    Postcondition: same inputs and outputs; the same sums in another order, up to float32 rounding.
    """
    if cut and target != "onnx":
        raise ValueError(f"weights are cut for ONNX Runtime alone, not {target}")
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
    if target == "tensorrt":
        _rewrite_last_stage_dense(graph, transposed[-1])
    else:
        _rewrite_last_stage(graph, transposed[-1])
    for node in doubling[int(cut and transposed[0] in doubling) : -1] if target else ():
        if target == "tensorrt":
            _rewrite_as_four(graph, node)
        else:
            _rewrite_as_active_four(graph, node, by_rows=target == "onnx", cut=cut)
    RemoveUnusedNodesPass()(model)


def _padding_of(node: ir.Node) -> tuple[int, ...]:
    """Return rows and columns that a transposed convolution adds; empty where it does not say."""
    found = node.attributes.get("output_padding")
    return () if found is None else tuple(found.as_ints())


def _rewrite_last_stage_dense(graph: ir.Graph, node: ir.Node) -> None:
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
    phases = _four_convolutions(graph, layer)
    parts, name = [phase.outputs[0] for phase in phases], f"{layer.name}.phases"
    joined = _joined(parts, name)
    shuffle = _shuffle(joined.outputs[0], node.outputs[0])
    graph.insert_before(node, [*phases, joined, shuffle])
    ir.convenience.replace_all_uses_with(node.outputs[0], shuffle.outputs[0])
    graph.remove(node, safe=True)


def _rewrite_last_stage(graph: ir.Graph, node: ir.Node) -> None:
    activation = _only_user(node, "LeakyRelu")
    image = _only_user(activation, "Conv")
    sigmoid = _only_user(image, "Sigmoid")
    last, phases = _layer_of(image), _active_four(graph, node, activation)
    _, rows, columns = _sizes(phases[-1].outputs[0])
    if rows % 2 or columns % 2:
        raise _other_form(f"its last ConvTranspose reads {rows} x {columns}")
    shape = ir.Shape([BATCH, 16 * len(last.bias), rows // 2, columns // 2])
    nodes, total = [*phases], None
    for phase, (row, column) in zip(phases[1::2], PHASES, strict=True):
        name = f"{last.name}.phase_{row}{column}"
        inputs = [
            phase.outputs[0],
            constant(graph, f"{name}.weight", _cell_kernel(last.weight, row, column)),
        ]
        if total is None:  # the bias is added once
            inputs.append(constant(graph, f"{name}.bias", np.tile(last.bias, 16)))
        # Odd rows and columns of the image begin one before its cells do, even ones end behind.
        pads = (row, column, 1 - row, 1 - column)
        attributes = {"kernel_shape": (3, 3), "pads": pads, "strides": (2, 2)}
        nodes.append(typed_node("Conv", inputs, name, shape=shape, attributes=attributes))
        part = nodes[-1].outputs[0]
        if total is not None:
            nodes.append(typed_node("Add", [total, part], f"{name}.sum", shape=shape))
        total = nodes[-1].outputs[0]
    # The sigmoid before the shuffle, where OpenVINO would put it and lose the output's name.
    name = f"{sigmoid.outputs[0].name}_cells"
    squashed = typed_node("Sigmoid", nodes[-1].outputs, name, shape=shape)
    shuffle = _shuffle(squashed.outputs[0], sigmoid.outputs[0], blocksize=4)
    graph.insert_before(node, [*nodes, squashed, shuffle])
    graph.outputs[0] = shuffle.outputs[0]
    graph.remove([sigmoid, image, activation, node], safe=True)


def _rewrite_as_active_four(graph: ir.Graph, node: ir.Node, *, by_rows: bool, cut: bool) -> None:
    """Replace a transposed convolution and its activation by four of each, and join the phases."""
    activation = _only_user(node, "LeakyRelu")
    phases = _active_four(graph, node, activation, cut=cut)
    parts, whole = [phase.outputs[0] for phase in phases[1::2]], activation.outputs[0]
    if by_rows:
        joining = _joined_by_rows(graph, parts, whole)
    else:
        joined = _joined(parts, f"{whole.name}.phases")
        joining = [joined, _shuffle(joined.outputs[0], whole)]
    graph.insert_before(node, [*phases, *joining])
    ir.convenience.replace_all_uses_with(whole, joining[-1].outputs[0])
    graph.remove([activation, node], safe=True)


def _active_four(
    graph: ir.Graph, node: ir.Node, activation: ir.Node, *, cut: bool = False
) -> list[ir.Node]:
    """Return the four convolutions, each with its activation behind it."""
    nodes = []
    for convolution in _four_convolutions(graph, _layer_of(node), cut=cut):
        source = convolution.outputs[0]
        phase = str(source.name).rpartition(".")[2]
        name = f"{activation.outputs[0].name}.{phase}"
        active = typed_node("LeakyRelu", [source], name, shape=source.shape)
        active.attributes.update(activation.attributes)
        nodes += [convolution, active]
    return nodes


def _four_convolutions(graph: ir.Graph, layer: _Layer, *, cut: bool = False) -> list[ir.Node]:
    weight = layer.weight.transpose(1, 0, 2, 3)
    return [
        _convolution(
            graph,
            layer.source,
            f"{layer.name}.phase_{row}{column}",
            weight=weight[:, :, _TAPS[row]][:, :, :, _TAPS[column]],
            kernel=_cut_kernel(graph, layer, row, column) if cut else None,
            bias=layer.bias,
            pads=(0, 0, row, column),
        )
        for row, column in PHASES
    ]


def _cut_kernel(graph: ir.Graph, layer: _Layer, row: int, column: int) -> ir.Value:
    """Put into a graph what cuts one phase's kernel out of a transposed convolution's."""
    phase, inputs = f"phase_{row}{column}", [layer.kernel]
    starts, ends, steps = zip(_CUTS[row], _CUTS[column], strict=True)
    cuts = {"starts": starts, "ends": ends, "axes": (2, 3), "steps": steps}
    for what, numbers in cuts.items():
        known = graph.initializers.get(name := f"{phase}.{what}")  # all layers share them
        inputs.append(known or constant(graph, name, np.array(numbers, np.int64)))
    (width_in, width_out), sizes = layer.weight.shape[:2], (1 + row, 1 + column)
    name, order = f"{layer.name}.{phase}", {"perm": (1, 0, 2, 3)}
    taps = typed_node("Slice", inputs, f"{name}.taps", shape=(width_in, width_out, *sizes))
    shape = (width_out, width_in, *sizes)
    turned = typed_node("Transpose", taps.outputs, f"{name}.weight", shape=shape, attributes=order)
    graph.insert_before(graph[0], [taps, turned])
    return turned.outputs[0]


def _joined(parts: Sequence[ir.Value], name: str) -> ir.Node:
    """Return what puts phases side by side as channels."""
    channels, *_ = _sizes(parts[0])
    shape = _shape(4 * channels, parts[0])
    return typed_node("Concat", parts, name, shape=shape, attributes={"axis": 1})


def _joined_by_rows(graph: ir.Graph, parts: Sequence[ir.Value], whole: ir.Value) -> list[ir.Node]:
    """Return what gives an image of its phases by copying whole pixels, then whole rows.

    ONNX Runtime's DepthToSpace moves one number at a time and took longer than the convolutions.
    The transpositions cost next to nothing: it computes channels last in INT8, and in blocks of
    channels in float32.
    """
    channels, rows, columns = _sizes(parts[0])
    nodes: list[ir.Node] = []

    def put(
        op: str, inputs: Sequence[ir.Value], name: str, sizes: Sequence[int], **more: object
    ) -> ir.Value:
        shape = ir.Shape([BATCH, *sizes])
        nodes.append(typed_node(op, inputs, name, shape=shape, attributes=more))  # type: ignore[arg-type]
        return nodes[-1].outputs[0]

    def reshaped(value: ir.Value, name: str, sizes: Sequence[int]) -> ir.Value:
        shape = constant(graph, f"{name}.shape", np.array([0, *sizes], np.int64))
        return put("Reshape", [value, shape], name, sizes)

    pixels = [
        put(
            "Transpose", [part], f"{part.name}.pixels", (rows, columns, channels), perm=(0, 2, 3, 1)
        )
        for part in parts
    ]
    name, length = whole.name, 2 * columns * channels
    lines = []
    for row in (0, 1):
        pair = pixels[2 * row : 2 * row + 2]
        line = put("Concat", pair, f"{name}.phase_row{row}", (rows, columns, 2 * channels), axis=3)
        lines.append(reshaped(line, f"{line.name}.line", (rows, 1, length)))
    both = put("Concat", lines, f"{name}.phase_rows", (rows, 2, length), axis=2)
    image = reshaped(both, f"{name}.phase_pixels", (2 * rows, 2 * columns, channels))
    whole.name = f"{name}_replaced"
    put("Transpose", [image], str(name), (channels, 2 * rows, 2 * columns), perm=(0, 3, 1, 2))
    return nodes


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


def _cell_kernel(weight: npt.NDArray[np.float32], row: int, column: int) -> npt.NDArray[np.float32]:
    """Return (16 out, in, 3, 3): what one phase adds to the pixels of a cell of 4x4, row by row."""
    width_out, width_in = weight.shape[:2]
    kernel = np.zeros((4, 4, width_out, width_in, 3, 3), np.float32)
    for y, x, i, j in np.ndindex(4, 4, 3, 3):
        # Pixel (y, x) reads this row and column of the image, counted from the cell's first.
        (row_cell, from_row), (column_cell, from_column) = (
            divmod(y + i - 1, 2),
            divmod(x + j - 1, 2),
        )
        if (from_row, from_column) == (row, column):
            kernel[y, x, :, :, row_cell + row, column_cell + column] = weight[:, :, i, j]
    return kernel.reshape(16 * width_out, width_in, 3, 3)


def _convolution(
    graph: ir.Graph,
    source: ir.Value,
    output: str,
    *,
    weight: npt.NDArray[np.float32],
    kernel: ir.Value | None = None,
    bias: npt.NDArray[np.float32],
    pads: Sequence[int],
) -> ir.Node:
    inputs = [
        source,
        constant(graph, f"{output}.weight", weight) if kernel is None else kernel,
        constant(graph, f"{output}.bias", bias),
    ]
    shape = _shape(len(bias), source)
    attributes = {"kernel_shape": weight.shape[2:], "pads": pads}
    return typed_node("Conv", inputs, output, shape=shape, attributes=attributes)


def _shuffle(source: ir.Value, replaced: ir.Value, blocksize: int = 2) -> ir.Node:
    """Return what puts phases in their places and gives its output the name of `replaced`."""
    name, replaced.name = str(replaced.name), f"{replaced.name}_replaced"
    attributes: dict[str, int | str] = {"blocksize": blocksize, "mode": "DCR"}
    return typed_node("DepthToSpace", [source], name, shape=replaced.shape, attributes=attributes)


def _layer_of(node: ir.Node) -> _Layer:
    inputs = [value for value in node.inputs if value is not None]
    if len(inputs) != 3:
        raise _other_form(f"{node.name} has {len(inputs)} inputs")
    source, weight, bias = inputs
    name = str(weight.name).removesuffix(".weight")
    return _Layer(name, source, weight, array_of(weight), array_of(bias))


def _shape(channels: int, like: ir.Value) -> ir.Shape:
    """Return the shape of so many channels of another value's size."""
    if like.shape is None or len(like.shape) != 4:
        raise _other_form(f"{like.name} has shape {like.shape}")
    return ir.Shape([BATCH, channels, *like.shape[2:]])


def _sizes(value: ir.Value) -> tuple[int, ...]:
    """Return channels, rows and columns."""
    sizes = tuple(size for size in value.shape or () if isinstance(size, int))
    if len(sizes) != 3:
        raise _other_form(f"{value.name} has shape {value.shape}")
    return sizes


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
