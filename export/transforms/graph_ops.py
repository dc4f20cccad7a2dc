"""Typed nodes, constants and values inside a graph: what rewrites are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


def typed_node(
    op: str,
    inputs: Sequence[ir.Value],
    output: str,
    *,
    shape: ir.Shape | Sequence[int | str] | None,
    dtype: ir.DataType = ir.DataType.FLOAT,
    attributes: Mapping[str, int | str | Sequence[int]] | None = None,
) -> ir.Node:
    """Return a node of the default domain, named after its one output of this type and shape."""
    value = ir.val(output, dtype, shape)
    return ir.node(op, inputs, attributes, outputs=[value], name=f"{op}_{output}")


def cast(value: ir.Value, output: str, dtype: ir.DataType) -> ir.Node:
    """Return a Cast of a value."""
    attributes = {"to": int(dtype)}
    return typed_node(
        "Cast", [value], output, shape=value.shape, dtype=dtype, attributes=attributes
    )


def constant(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """Put a constant into a graph and return it."""
    tensor = ir.tensor(np.array(array, order="C"), name=name)
    value = ir.val(name, const_value=tensor)
    graph.register_initializer(value)
    return value


def array_of(value: ir.Value | None) -> npt.NDArray[np.float32]:
    """Return a float32 constant."""
    if value is None or value.const_value is None:
        raise ValueError(f"{value.name if value else 'a missing input'} is no constant")
    return np.asarray(value.const_value.numpy(), np.float32)


def insert_behind_input(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Insert nodes, the first of which reads an input: all that read it read the last's output."""
    ir.convenience.replace_all_uses_with(value, nodes[-1].outputs[0])
    nodes[0].replace_input_with(0, value)
    graph.insert_before(graph[0], nodes)
