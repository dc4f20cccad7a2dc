"""Emitter: a new graph, node by node, of operators that a runtime opens, with every shape known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...runtime.bundle.graph_key import BATCH
from ...runtime.bundle.operators.node import ABSENT, BOOL, FLOAT, Node, Value, numbers_in
from ...runtime.bundle.operators.tables import ANY
from ...runtime.core.errors import GraphError
from ..onnx_form import IR_VERSION, OPSET

Array = npt.NDArray[np.generic]
_FEW = 64  # numbers of a constant that a rule may read; of whole ones it may read all


class Emitter:
    """Makes a graph with one input, whose batch axis is free.

    Each value's shape for one image, and which axis is that of images, follow from the rules by
    which a runtime checks a graph: what is made here is opened there.
    """

    def __init__(self, name: str) -> None:
        self.graph = ir.Graph((), (), nodes=(), opset_imports={"": OPSET}, name=name)
        self._facts: dict[ir.Value, Value] = {}
        self._names = {"image", "mu", "log_var", "z", "reconstruction"}
        self.where = ""  # the node of the original that is dealt with

    def add_input(self, name: str, shape: Sequence[int]) -> ir.Value:
        """Return the input, float32, for one image of a shape (without the batch axis)."""
        value = ir.val(name, ir.DataType.FLOAT, [BATCH, *shape])
        self.graph.inputs.append(value)
        self._facts[value] = Value(FLOAT, (1, *shape), axis=0)
        return value

    def fact(self, value: ir.Value) -> Value:
        """Return what is known of a value."""
        return self._facts[value]

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Return a value's shape for one image, the axis of images included."""
        return self._facts[value].shape

    def axis(self, value: ir.Value) -> int:
        """Return which axis is that of images."""
        axis = self._facts[value].axis
        if axis is None:
            raise self.refusal("it is given a constant where an image is expected")
        return axis

    def constant(self, name: str, array: Array) -> ir.Value:
        """Return a constant."""
        tensor = ir.tensor(np.array(array, order="C"), name=self.unique(name))
        value = ir.val(tensor.name, const_value=tensor)
        self.graph.register_initializer(value)
        is_read = array.size <= _FEW or array.dtype == np.int64
        known = {"raw_data": memoryview(array.tobytes())} if is_read else {}
        self._facts[value] = Value(int(tensor.dtype), tuple(array.shape), tensor=known)
        return value

    def numbers(self, name: str, numbers: Sequence[int]) -> ir.Value:
        """Return a constant of whole numbers."""
        return self.constant(name, np.array(numbers, np.int64))

    def array(self, value: ir.Value | None) -> Array | None:
        """Return a constant's numbers, or None for what is no constant."""
        tensor = value.const_value if value is not None else None
        return None if tensor is None else tensor.numpy()

    def node(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str,
    ) -> ir.Value:
        """Add a node and return its output, or raise a GraphError for one that none may hold."""
        given = dict(attributes or {})
        if op not in ANY:
            raise self.refusal(f"{op} is not among the operators that can be imported")
        if unknown := given.keys() - ANY[op].attributes.keys():
            raise self.refusal(f"{op} with {min(unknown)} cannot be imported")
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        facts = [ABSENT if value is None else self._facts[value] for value in inputs]
        listed = {key: [*one] if isinstance(one, tuple) else one for key, one in given.items()}
        try:
            fact = ANY[op].output(Node(op, listed, facts))
        except ValueError as error:
            raise self.refusal(str(error).replace(" in it", "", 1)) from error
        shape: list[int | str] = [*fact.shape]
        if fact.axis is not None:
            many = fact.shape[fact.axis]
            shape[fact.axis] = BATCH if many == 1 else f"{BATCH}_times_{many}"
        dtype = ir.DataType.BOOL if fact.dtype == BOOL else ir.DataType(fact.dtype)
        output = ir.val(self.unique(name), dtype, shape)
        made = ir.node(op, inputs, given, outputs=[output], name=f"{op}_{output.name}")
        self.graph.append(made)
        self._facts[output] = fact
        return output

    def reshaped(self, value: ir.Value, shape: Sequence[int], axis: int, *, name: str) -> ir.Value:
        """Return a value in another shape for one image, whose axis of images is then `axis`."""
        if (*shape,) == self.shape(value) and axis == self.axis(value):
            return value
        if math.prod(shape) != numbers_in(self.fact(value)):
            raise self.refusal(f"{self.shape(value)} does not become {tuple(shape)}")
        target = [-1 if at == axis else size for at, size in enumerate(shape)]
        inputs = [value, self.numbers(f"{name}_shape", target)]
        return self.node("Reshape", inputs, name=name)

    def flattened(self, value: ir.Value, *, name: str) -> ir.Value:
        """Return (batch, all numbers) of a value whose first axis is the batch."""
        return self.reshaped(value, (1, numbers_in(self.fact(value))), 0, name=name)

    def sliced(self, value: ir.Value, axis: int, start: int, end: int, *, name: str) -> ir.Value:
        """Return a part of one axis."""
        listed = (("starts", start), ("ends", end), ("axes", axis), ("steps", 1))
        inputs = [value, *(self.numbers(f"{name}_{what}", [one]) for what, one in listed)]
        return self.node("Slice", inputs, name=name)

    def model(self, outputs: Mapping[str, ir.Value]) -> ir.Model:
        """Return the finished graph with outputs of these names, and nothing that is not used."""
        for name, value in outputs.items():
            taken = value in self.graph.outputs or value.is_graph_input()
            last = self.node("Identity", [value], name=name) if taken else value
            last.name = name
            self.graph.outputs.append(last)
        model = ir.Model(self.graph, ir_version=IR_VERSION)
        RemoveUnusedNodesPass()(model)
        return model

    def unique(self, name: str) -> str:
        """Return a name that no value has yet."""
        found, turn = name, 1
        while found in self._names:
            found, turn = f"{name}_{turn}", turn + 1
        self._names.add(found)
        return found

    def refusal(self, problem: str) -> GraphError:
        """Return an error about the node of the original that is dealt with."""
        return GraphError(
            problem,
            context=f"node {self.where!r}" if self.where else None,
            fix="export the model without it, or from where it is not needed",
        )
