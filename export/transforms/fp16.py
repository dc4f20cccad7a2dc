"""FP16 from FP32: weights and arithmetic half precision, inputs and outputs still float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.errors import VerificationError
from ..verify.reports import FLOAT16_MAX
from .qdq import check_int8

_REFUSED = ("BatchNormalization", "Bernoulli", "Multinomial")
"""What a finished graph may not hold, as it may not hold Random...: the last two draw, too."""
FLOAT16_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)


@dataclass(frozen=True, slots=True)
class HalfWeights:
    """What rounding the weights to FP16 met.

    Attributes:
        weights: How many there are.
        subnormal: How many became FP16 subnormals or zero; on a GPU these may be slow or flushed.
    """

    weights: int
    subnormal: int


def fp16_from_fp32(model: ir.Model) -> HalfWeights:
    """Make an FP32 graph an FP16-typed one, in place.

    Precision lies in the graph's own types, which is what strongly typed TensorRT networks
    read. Every float tensor becomes FP16; one Cast behind each input and one before each
    output keep the graph's face float32, so callers need not know.

    Precondition: one flat graph, float32 inputs and outputs, no functions.
    Postcondition: same input and output names, shapes and dtypes.

    Raises:
        VerificationError: A weight is beyond the FP16 range; the message names it.
    """
    found = _halve_weights(model.graph)
    nodes = list(model.graph)
    for node in nodes:
        _retype_attributes(node)
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                value.dtype = ir.DataType.FLOAT16
    for value in model.graph.inputs:
        if value.dtype == ir.DataType.FLOAT:
            half = _cast(value, to=ir.DataType.FLOAT16, name=f"{value.name}_fp16")
            ir.convenience.replace_all_uses_with(value, half.outputs[0])
            half.replace_input_with(0, value)
            model.graph.insert_before(nodes[0], half)
    for position, value in enumerate(model.graph.outputs):
        if value.dtype == ir.DataType.FLOAT16:
            name, value.name = value.name, f"{value.name}_fp16"
            full = _cast(value, to=ir.DataType.FLOAT, name=str(name))
            model.graph.append(full)
            model.graph.outputs[position] = full.outputs[0]
    return found


def check_precision(model: ir.Model, precision: Precision, excluded: Sequence[str] = ()) -> None:
    """Read a finished graph back: is it what its label says?

    Args:
        model: The graph.
        precision: Its label.
        excluded: Layers of an INT8 graph that stay in float32.

    Raises:
        VerificationError: A batch norm was not folded, a node draws random numbers, a tensor that
            should be FP16 is float32, or a layer that should be INT8 is not; the message names it.
    """
    face = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
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
    values = [value for node in model.graph for value in node.outputs]
    for value in (*values, *model.graph.initializers.values()):
        if value.dtype in {ir.DataType.FLOAT, None} and value.name not in face:
            raise VerificationError(
                f"{value.name} of a graph labelled fp16 has type {value.dtype}: report this"
            )


def with_values_exposed(model: ir.Model) -> ir.Model:
    """Return a copy of a float32 graph whose every float tensor is an output."""
    copy = model.clone()
    outputs = {value.name for value in copy.graph.outputs}
    for node in copy.graph:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT and value.name not in outputs:
                copy.graph.outputs.append(value)
    return copy


def _halve_weights(graph: ir.Graph) -> HalfWeights:
    weights = subnormal = 0
    for value in graph.initializers.values():
        if value.dtype != ir.DataType.FLOAT or value.const_value is None:
            continue
        full = value.const_value.numpy()
        largest = float(np.abs(full).max(initial=0.0))
        if largest > FLOAT16_MAX:
            raise VerificationError(
                f"weight {value.name} reaches {largest:.6g}, beyond FP16's {FLOAT16_MAX:.0f}: "
                "export without --fp16, or train with weight decay"
            )
        size = np.abs(full)
        subnormal += int(np.count_nonzero((size > 0) & (size < FLOAT16_SMALLEST_NORMAL)))
        weights += full.size
        value.const_value = ir.tensor(full.astype(np.float16), name=value.name)
        value.dtype = ir.DataType.FLOAT16
    return HalfWeights(weights, subnormal)


def _retype_attributes(node: ir.Node) -> None:
    """Retarget a Cast to float32, and halve constants that are nodes rather than initialisers."""
    for name, attribute in list(node.attributes.items()):
        if node.op_type == "Cast" and name == "to" and attribute.as_int() == ir.DataType.FLOAT:
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT16))
        elif attribute.type == ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if tensor.dtype == ir.DataType.FLOAT:
                half = tensor.numpy().astype(np.float16)
                node.attributes[name] = ir.AttrTensor(name, ir.tensor(half, name=tensor.name))


def _cast(value: ir.Value, *, to: ir.DataType, name: str) -> ir.Node:
    """Return a Cast of `value` whose output has this name and the same shape."""
    node = ir.node("Cast", [value], attributes={"to": int(to)}, name=f"Cast_{name}")
    node.outputs[0].name = name
    node.outputs[0].shape = value.shape
    node.outputs[0].type = ir.TensorType(to)
    return node
