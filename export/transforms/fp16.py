"""FP16 from FP32: weights and arithmetic half precision, inputs and outputs still float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.errors import VerificationError
from ..verify.limits import FLOAT16_MAX
from .graph_ops import cast, insert_behind_input
from .qdq import check_int8

_REFUSED = ("BatchNormalization", "Bernoulli", "Multinomial")
"""What a finished graph may not hold, as it may not hold Random...: the last two draw, too."""
FLOAT16_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)


def fp16_from_fp32(model: ir.Model) -> int:
    """Make an FP32 graph an FP16-typed one, in place; return how many weights became subnormal.

    Precision lies in the graph's own types, which is what strongly typed TensorRT networks
    read. Every float tensor becomes FP16; one Cast behind each input and one before each
    output keep inputs and outputs float32, so callers need not know. Weights that became FP16
    subnormals or zero may be slow or flushed on a GPU.

    Precondition: one flat graph, float32 inputs and outputs, no functions.
    Postcondition: same input and output names, shapes and dtypes; a VerificationError names a
    weight beyond the FP16 range.
    """
    graph = model.graph
    subnormal = sum(map(_halve_weight, graph.initializers.values()))
    for node in graph:
        _retype_attributes(node)
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                value.dtype = ir.DataType.FLOAT16
    for value in graph.inputs:
        if value.dtype == ir.DataType.FLOAT:
            half = cast(value, f"{value.name}_fp16", ir.DataType.FLOAT16)
            insert_behind_input(graph, value, [half])
    for position, value in enumerate(graph.outputs):
        if value.dtype == ir.DataType.FLOAT16:
            name, value.name = str(value.name), f"{value.name}_fp16"
            full = cast(value, name, ir.DataType.FLOAT)
            graph.append(full)
            graph.outputs[position] = full.outputs[0]
    return subnormal


def check_precision(model: ir.Model, precision: Precision, excluded: Sequence[str] = ()) -> None:
    """Read a finished graph back: does it have the precision of its label?

    A VerificationError names a batch norm that was not folded, a node that draws random numbers, a
    tensor that should be FP16, or a layer not `excluded` that should be INT8.
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
    ends = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    values = [value for node in model.graph for value in node.outputs]
    for value in (*values, *model.graph.initializers.values()):
        if value.dtype in {ir.DataType.FLOAT, None} and value.name not in ends:
            raise VerificationError(
                f"{value.name} of a graph labelled fp16 has type {value.dtype}: report this"
            )


def _halve_weight(value: ir.Value) -> int:
    """Round a constant to FP16; return how many of its values became subnormals or zero."""
    if value.dtype != ir.DataType.FLOAT or value.const_value is None:
        return 0
    full = value.const_value.numpy()
    size = np.abs(full)
    largest = float(size.max(initial=0.0))
    if largest > FLOAT16_MAX:
        raise VerificationError(
            f"weight {value.name} reaches {largest:.6g}, beyond FP16's {FLOAT16_MAX:.0f}: "
            "export without --fp16, or train with weight decay"
        )
    value.const_value = ir.tensor(full.astype(np.float16), name=value.name)
    value.dtype = ir.DataType.FLOAT16
    return int(np.count_nonzero((size > 0) & (size < FLOAT16_SMALLEST_NORMAL)))


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
