"""Folding: what does not depend on an input's numbers becomes a constant, at a known shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...runtime.core.errors import GraphError
from .emit import Array
from .session import run_once

_OF_SHAPES = {"Shape", "Size"}


def fold_shapes(
    model: ir.Model, value: ir.Value, shape: Sequence[int], *, is_free: bool
) -> dict[str, Array]:
    """Replace what an input's shape alone decides by constants, in place, at batch 1.

    The graph itself is run, up to those values, in ONNX Runtime. Where its batch axis is free,
    those that are others at batch 2 are returned as they are there.
    """
    graph = model.graph
    frontier = _frontier(graph, value)
    if not frontier:
        return {}
    names = [str(one.name) for one in frontier]
    proto = ir.to_proto(model)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    found = _evaluated(proto, value, shape, names)
    varied: dict[str, Array] = {}
    if is_free:
        at_two = _evaluated(proto, value, (2, *shape[1:]), names)
        varied = {
            name: array
            for name, array in at_two.items()
            if not np.array_equal(array, found[name], equal_nan=array.dtype.kind == "f")
        }
    for one in frontier:
        array = found[str(one.name)]
        name = str(one.name)
        if one.is_graph_output():
            raise GraphError(
                f"the output {name!r} does not depend on the input",
                fix="name another with --outputs",
            )
        constant = ir.val(f"{name}_folded", const_value=ir.tensor(array, name=f"{name}_folded"))
        graph.register_initializer(constant)
        ir.convenience.replace_all_uses_with(one, constant)
    RemoveUnusedNodesPass()(model)
    return {f"{name}_folded": array for name, array in varied.items()}


def _frontier(graph: ir.Graph, value: ir.Value) -> list[ir.Value]:
    """Return what is computed without an input's numbers and read by what depends on them."""
    depend = {value}
    for node in graph:
        if node.op_type not in _OF_SHAPES and any(one in depend for one in node.inputs):
            depend.update(node.outputs)
    return [
        one
        for node in graph
        for one in node.outputs
        if one not in depend
        and (
            one.is_graph_output() or any(depend.issuperset(use.node.outputs) for use in one.uses())
        )
    ]


def _evaluated(
    proto: onnx.ModelProto, value: ir.Value, shape: Sequence[int], names: Sequence[str]
) -> Mapping[str, Array]:
    dtype = np.float16 if value.dtype == ir.DataType.FLOAT16 else np.float32
    return run_once(proto, {str(value.name): np.zeros(shape, dtype)}, names)
