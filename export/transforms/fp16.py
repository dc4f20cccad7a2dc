"""FP16 from FP32: weights and arithmetic half precision, inputs and outputs still float32."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.errors import VerificationError
from .float_parts import (
    FLOAT16_MAX,
    FLOAT16_SMALLEST_NORMAL,
    float_inputs,
    is_float_input,
    nodes_of_data,
    overflowing_weights,
)
from .graph_ops import array_of, cast
from .node_names import name_nodes
from .qdq import check_int8
from .rounding import Rounded

_REFUSED = ("BatchNormalization", "Bernoulli", "Multinomial")
"""What a finished graph may not hold, as it may not hold Random...: the last two draw, too."""
_FULL, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def fp16_from_fp32(
    model: ir.Model, kept: Collection[str] = (), rounded: Rounded | None = None
) -> int:
    """Make an FP32 graph an FP16-typed one, in place; return how many weights became subnormal.

    Precision lies in the graph's own types, which is what strongly typed TensorRT networks
    read. Every float tensor becomes FP16; one Cast behind each input and one before each
    output keep inputs and outputs float32, so callers need not know. The nodes whose names are
    `kept` stay in float32 with their weights, with a Cast wherever a value comes in or goes out; so
    does what is computed of shapes alone. Weights are those of `rounded` where it has them, and the
    nearest else. Those that became FP16 subnormals or zero may be slow
    or flushed on a GPU.

    Precondition: one flat graph in order, its values typed, float32 inputs and outputs, no
    functions.
    Postcondition: same input and output names, shapes and dtypes; a VerificationError names a
    weight beyond the FP16 range.
    """
    name_nodes(model)
    graph, nodes = model.graph, list(model.graph)
    halves = {node for node in nodes_of_data(graph) if node.name not in kept}
    beyond = overflowing_weights(graph, FLOAT16_MAX)
    for name, readers in beyond.items():
        if not set(readers) <= set(kept):
            largest = float(np.abs(array_of(graph.initializers[name])).max())
            raise VerificationError(
                f"weight {name} reaches {largest:.6g}, beyond FP16's {FLOAT16_MAX:.0f}: "
                "keep what reads it in float32 with --keep-float32 auto, export without --fp16, or "
                "train with weight decay"
            )
    for node in halves:
        _retype_attributes(node)
        for value in node.outputs:
            if value.dtype == _FULL:
                value.dtype = _HALF
    subnormal = sum(
        _halve_weight(graph, value, halves, rounded or {})
        for value in list(graph.initializers.values())
    )
    casts = _Casts(graph)
    for node in nodes:
        for position, source in enumerate(node.inputs):
            wanted = _HALF if node in halves and not is_float_input(node, position) else _FULL
            if source is not None and source.dtype in {_FULL, _HALF} and source.dtype != wanted:
                node.replace_input_with(position, casts.of(source, wanted))
    for position, value in enumerate(graph.outputs):
        if value.dtype == _HALF:
            name, value.name = str(value.name), f"{value.name}_fp16"
            full = cast(value, name, _FULL)
            graph.append(full)
            graph.outputs[position] = full.outputs[0]
    return subnormal


def check_precision(
    model: ir.Model,
    precision: Precision,
    excluded: Sequence[str] = (),
    kept: Collection[str] = (),
) -> None:
    """Read a finished graph back: does it have the precision of its label?

    A VerificationError names a batch norm that was not folded, a node that draws random numbers, a
    tensor that should be FP16, a layer not `excluded` that should be INT8, or of an FP16 graph a
    node of those `kept` in float32 that is not.
    """
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type in _REFUSED or node.op_type.startswith("Random"):
            raise VerificationError(
                f"the exported graph holds {node.op_type} {node.name}: this version of torch or "
                "onnxscript exports differently; install the versions in constraints.txt"
            )
    if precision == "int8":
        check_int8(model, excluded)
    if precision != "fp16":
        return
    of_data = nodes_of_data(model.graph)
    is_full = dict.fromkeys(kept, False)
    for node in model.graph:
        outputs = [value for value in node.outputs if value.dtype in {_FULL, _HALF, None}]
        if node.name in is_full:
            wanted, values = _FULL, [*float_inputs(node), *outputs]
            is_full[str(node.name)] = bool(values)
        elif node.op_type == "Cast" or node not in of_data:
            continue  # between the two, or a shape
        else:
            wanted, values = _HALF, [*float_inputs(node), *outputs]
        for value in values:
            if value.dtype != wanted:
                raise VerificationError(
                    f"{value.name} of a graph labelled fp16 has type {value.dtype} at {node.name}, "
                    f"not {wanted}: report this"
                )
    if lost := [name for name, found in is_full.items() if not found]:
        raise VerificationError(
            f"{lost[0]} is to stay in float32, and the graph labelled fp16 has no such node: "
            "report this"
        )


class _Casts:
    """The Casts between both precisions, one for each value and type."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph, self._first = graph, graph[0]
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def of(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Return a value in another precision."""
        if (value, dtype) not in self._made:
            suffix = "fp16" if dtype == _HALF else "fp32"
            node = cast(value, f"{value.name}_{suffix}", dtype)
            maker = value.producer()
            if maker is None:
                self._graph.insert_before(self._first, node)
            else:
                self._graph.insert_after(maker, node)
            self._made[value, dtype] = node.outputs[0]
        return self._made[value, dtype]


def _halve_weight(
    graph: ir.Graph, value: ir.Value, halves: Collection[ir.Node], rounded: Rounded
) -> int:
    """Round a constant to FP16 for those who read it so; return how many values became subnormal.

    Where others read it in float32, it is there twice.
    """
    if value.dtype != _FULL or value.const_value is None:
        return 0
    reads = [
        (use.node, use.idx)
        for use in value.uses()
        if use.node in halves and not is_float_input(use.node, use.idx)
    ]
    if not reads:
        return 0
    full = value.const_value.numpy()
    size = np.abs(full)
    half = value
    if len(reads) < len(value.uses()) or value in graph.outputs:
        half = ir.val(f"{value.name}_fp16", const_value=value.const_value)
        for node, position in reads:
            node.replace_input_with(position, half)
    halved = rounded.get(str(value.name), full.astype(np.float16))
    half.const_value = ir.tensor(halved, name=half.name)
    half.dtype = _HALF
    if half is not value:
        graph.register_initializer(half)
    return int(np.count_nonzero((size > 0) & (size < FLOAT16_SMALLEST_NORMAL)))


def _retype_attributes(node: ir.Node) -> None:
    """Retarget a Cast to float32, and halve tensors that are attributes."""
    for name, attribute in list(node.attributes.items()):
        if node.op_type == "Cast" and name == "to" and attribute.as_int() == _FULL:
            node.attributes[name] = ir.AttrInt64(name, int(_HALF))
        elif attribute.type == ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if tensor.dtype == _FULL:
                half = tensor.numpy().astype(np.float16)
                node.attributes[name] = ir.AttrTensor(name, ir.tensor(half, name=tensor.name))
