"""Lowering: a graph of any exporter and opset, node by node, into what an Emitter makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from ...runtime.core.errors import GraphError
from .emit import Array, Emitter

_HALF, _FULL = ir.DataType.FLOAT16, ir.DataType.FLOAT
_TAKEN = {
    *(_FULL, _HALF, ir.DataType.UINT8, ir.DataType.INT8),
    *(ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL),
}


@dataclass(frozen=True, slots=True)
class Batch:
    """What is known of the batch axis of the original."""

    is_free: bool  # in the original
    varied: Mapping[str, Array] = field(default_factory=dict)
    """Constants that are others at batch 2: by the value's name, what they are there."""
    goes_inward: bool = True
    """Where a graph of batch 1 merges its axis with a neighbour: with the one behind it."""


class Lowering:
    """A walk over the original; `new` holds what each of its values became."""

    def __init__(self, emitter: Emitter, opset: int, batch: Batch) -> None:
        self.to, self.opset, self.batch = emitter, opset, batch
        self.new: dict[ir.Value, ir.Value] = {}
        self.remarks: list[str] = []

    def run(self, graph: ir.Graph, rules: Mapping[str, Rule]) -> None:
        """Make all nodes of a sorted graph, or raise a GraphError that names one that cannot be."""
        for node in graph:
            self.to.where = str(node.name or node.outputs[0].name)
            rule = rules.get(node.op_type, _as_it_is)
            for old, new in zip(node.outputs, rule(self, node), strict=False):
                self.new[old] = new
            missing = [out for out in node.outputs if out.uses() and out not in self.new]
            if missing:
                problem = f"{node.op_type} with its output {missing[0].name} cannot be imported"
                raise self.to.refusal(problem)
        self.to.where = ""

    def value(self, node: ir.Node, position: int) -> ir.Value:
        """Return what an input became; one that is missing is a GraphError."""
        found = self.optional(node, position)
        if found is None:
            raise self.to.refusal(f"{node.op_type} lacks its input {position}")
        return found

    def optional(self, node: ir.Node, position: int) -> ir.Value | None:
        """Return what an input became, or None where it is left out."""
        old = node.inputs[position] if position < len(node.inputs) else None
        if old is None:
            return None
        if old not in self.new:
            if old.const_value is None:
                raise GraphError(
                    f"{old.name!r} is read by {node.name!r} and given by nothing",
                    fix="give the file as the exporter wrote it",
                )
            self.new[old] = self.to.constant(str(old.name), self._full(old))
        return self.new[old]

    def _full(self, value: ir.Value) -> Array:
        tensor = value.const_value
        if tensor is None or tensor.dtype not in _TAKEN:
            kind = tensor.dtype.name if tensor is not None else "unknown"
            raise GraphError(
                f"the constant {value.name!r} is of type {kind}",
                fix="export the model in float32 (model.float())",
            )
        array: Array = tensor.numpy()
        return array.astype(np.float32) if tensor.dtype == _HALF else array

    def array(self, node: ir.Node, position: int) -> Array | None:
        """Return the numbers of an input that is a constant, or None where it is left out."""
        value = self.optional(node, position)
        if value is None:
            return None
        found = self.to.array(value)
        if found is None:
            raise self.to.refusal(
                f"{node.op_type} takes {value.name!r}, which the numbers of the input decide"
            )
        return found

    def listed(self, node: ir.Node, name: str, position: int) -> list[int] | None:
        """Return whole numbers from an attribute, as older opsets have it, or from an input."""
        if name in node.attributes:
            return [*node.attributes[name].as_ints()]
        found = self.array(node, position)
        return None if found is None else [int(one) for one in np.atleast_1d(found)]

    def varied(self, node: ir.Node, position: int) -> list[int] | None:
        """Return what a constant of whole numbers is at batch 2, where that is known."""
        old = node.inputs[position] if position < len(node.inputs) else None
        found = self.batch.varied.get(str(old.name)) if old is not None else None
        return None if found is None else [int(one) for one in np.atleast_1d(found)]


Rule = Callable[[Lowering, ir.Node], Sequence[ir.Value]]


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """Return a node's attributes as plain values."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


def number(node: ir.Node, name: str, default: int) -> int:
    """Return an attribute that is a whole number."""
    return node.attributes[name].as_int() if name in node.attributes else default


def real(node: ir.Node, name: str, default: float) -> float:
    """Return an attribute that is a real number."""
    return float(node.attributes[name].as_float()) if name in node.attributes else default


def text(node: ir.Node, name: str, default: str) -> str:
    """Return an attribute that is a text."""
    return node.attributes[name].as_string() if name in node.attributes else default


def name_of(node: ir.Node, position: int = 0) -> str:
    """Return the name of an output."""
    return str(node.outputs[position].name)


def _as_it_is(to: Lowering, node: ir.Node) -> Sequence[ir.Value]:
    inputs = [to.optional(node, position) for position in range(len(node.inputs))]
    return [to.to.node(node.op_type, inputs, attributes_of(node), name=name_of(node))]
