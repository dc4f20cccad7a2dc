"""Nodes and constants whose types are known: what every rewrite of a graph is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Shape = Sequence[int | str]


def typed_node(
    op: str,
    inputs: Sequence[ir.Value],
    output: str,
    *,
    dtype: ir.DataType,
    shape: ir.Shape | Shape | None,
    attributes: Mapping[str, int | str | Sequence[int]] | None = None,
) -> ir.Node:
    """Return a node with one output, named after it.

    Args:
        op: Operator of the default domain.
        inputs: Its inputs.
        output: Name of what it gives.
        dtype: Of the output.
        shape: Of the output.
        attributes: Of the operator.
    """
    node = ir.node(op, inputs, attributes=attributes, name=f"{op}_{output}")
    value = node.outputs[0]
    value.name = output
    value.type = ir.TensorType(dtype)
    value.shape = shape if isinstance(shape, ir.Shape) or shape is None else ir.Shape(shape)
    return node


def constant(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """Put a constant into a graph and return it."""
    tensor = ir.tensor(np.array(array, order="C"), name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def array_of(value: ir.Value) -> npt.NDArray[np.float32]:
    """Return a float32 constant."""
    if value.const_value is None:
        raise ValueError(f"{value.name} is no constant")
    return np.asarray(value.const_value.numpy(), np.float32)
