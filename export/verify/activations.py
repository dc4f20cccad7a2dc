"""How large the values inside a graph become, node by node, and which of them FP16 cannot hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...runtime.bundle.manifest import Metric
from ...runtime.engines.base import Batch
from ..transforms.float_parts import (
    FLOAT16_MAX,
    FLOAT16_SMALLEST_NORMAL,
    float_inputs,
    nodes_of_data,
    overflowing_weights,
)
from ..transforms.node_names import described
from .batches import Engine
from .metrics import metric

KEPT_FROM = FLOAT16_MAX / 2
"""What reaches so much over held-out images is kept in float32: others may reach further."""
OVERFLOW = "beyond FP16"
"""A note that begins so names the nodes of a graph that FP16 cannot hold."""
_NAMED = 3

Floats = npt.NDArray[np.floating[Any]]


class Reached(NamedTuple):
    """The largest magnitude of one of the things that a node computes."""

    node: ir.Node
    value: float
    what: str  # "" for its output, or what is computed on the way


class Activations:
    """The largest magnitudes of a float32 graph over some inputs, of each of its nodes.

    Beside outputs it has what a node must compute on the way to them, by the operator's own
    definition: the squares of norms, which are centred, and the sums of means and of other
    reductions. What convolutions and matrix products sum up is not: engines that multiply FP16
    accumulate in float32, and where one is told not to, its outputs alone tell.

    `engine` gives every float value inside of `model`, and the inputs are run one by one.
    """

    def __init__(self, model: ir.Model, engine: Engine, inputs: Iterable[Batch]) -> None:
        self._model = model
        of_data = nodes_of_data(model.graph)
        self._nodes = [node for node in model.graph if node in of_data]
        self._largest: dict[tuple[ir.Node, str], float] = {}
        self.add(engine, inputs)

    def add(self, engine: Engine, inputs: Iterable[Batch]) -> None:
        """Run on more inputs."""
        for batch in inputs:
            values: dict[str, Any] = {str(self._model.graph.inputs[0].name): batch}
            values |= engine.run(batch)
            for node in self._nodes:
                for what, value in _reached(node, values):
                    # A NaN compares false with everything and would be lost.
                    known = self._largest.get((node, what), 0.0)
                    self._largest[node, what] = value if math.isnan(value) else max(known, value)

    @property
    def _found(self) -> list[Reached]:
        return [Reached(node, value, what) for (node, what), value in self._largest.items()]

    def beyond(self, limit: float, kept: Collection[str] = ()) -> list[Reached]:
        """Return what passes a limit in FP16, the largest first, while nodes are `kept` in float32.

        An output of a kept node is still in FP16 where another reads it so.
        """
        counted = [one for one in self._found if self._is_half(one, kept)]
        passing = [one for one in counted if not one.value <= limit]
        return sorted(
            passing,
            key=lambda one: math.inf if math.isnan(one.value) else one.value,
            reverse=True,
        )

    def to_keep(self, kept: Collection[str] = ()) -> set[str]:
        """Return the names of the fewest nodes that stay in float32 so that all others can be FP16.

        They are those whose outputs, inputs or steps reach half of FP16's largest number, or whose
        weights pass it, beside those `kept` in any case; and those all of whose outputs are too
        small for a normal form in FP16, with what reads them: few of their digits would be left.
        """
        names = set(kept)
        for one in [*self.beyond(KEPT_FROM), *self._tiny()]:
            names.add(str(one.node.name))
            if not one.what:
                names |= {str(reader.name) for reader in _readers(one.node)}
        for readers in overflowing_weights(self._model.graph, FLOAT16_MAX).values():
            names.update(readers)
        return names

    def metric(self, kept: Collection[str] = ()) -> Metric:
        """Return the largest value that would be in FP16, with FP16's largest as its limit."""
        values = [one.value for one in self._found if self._is_half(one, kept)]
        largest = math.nan if any(map(math.isnan, values)) else max(values, default=0.0)
        return metric("largest value inside, float32", largest, limit=FLOAT16_MAX)

    def notes(self, kept: Collection[str] = ()) -> tuple[str, ...]:
        """Name the nodes beyond FP16's largest number, a clause; none where there are none."""
        found = self.beyond(FLOAT16_MAX, kept)
        if not found:
            return ()
        clauses = [
            f"{described(one.node)} reaches {one.value:.3g}{f' in {one.what}' if one.what else ''}"
            for one in found[:_NAMED]
        ]
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        return (f"{OVERFLOW}'s {FLOAT16_MAX:.0f}: {', '.join(clauses)}{more}",)

    def _tiny(self) -> list[Reached]:
        return [
            one for one in self._found if 0 < one.value < FLOAT16_SMALLEST_NORMAL and not one.what
        ]

    def _is_half(self, one: Reached, kept: Collection[str]) -> bool:
        if one.node.name not in kept:
            return True
        return not one.what and any(reader.name not in kept for reader in _readers(one.node))


def _readers(node: ir.Node) -> list[ir.Node]:
    """Return the nodes that read a node's outputs as FP16, if they are not kept in float32."""
    return [
        use.node
        for value in node.outputs
        for use in value.uses()
        if value in float_inputs(use.node)
    ]


def _reached(node: ir.Node, values: dict[str, Any]) -> list[tuple[str, float]]:
    """Return what a node computes on the way, and its outputs, each with the largest magnitude."""
    found = []
    outputs = [values[str(v.name)] for v in node.outputs if str(v.name) in values]
    floats = [value for value in outputs if value.dtype == np.float32]
    if floats:
        found.append(("", max(map(_largest, floats))))
    source = node.inputs[0] if node.inputs else None
    given = values.get(str(source.name)) if source is not None else None
    if given is None or not floats:
        return found
    if node.op_type in _SQUARED:
        square = _SQUARED[node.op_type](node, np.asarray(given, np.float64))
        found.append(("a square", square))
    if node.op_type in _SUMMED and floats[0].size:
        count = given.size / floats[0].size
        sums = floats[0].astype(np.float64) * (count if node.op_type in _MEANS else 1)
        if node.op_type == "ReduceL2":
            sums = sums**2
        found.append(("a sum", _largest(sums)))
    return found


def _largest(values: Floats) -> float:
    """Return the largest magnitude; NaN where there is one."""
    return float(np.abs(values).max(initial=0.0))


def _centred_square(values: Floats, axes: Sequence[int]) -> float:
    return _largest(values - values.mean(axis=tuple(axes), keepdims=True)) ** 2


def _of_instances(_node: ir.Node, values: Floats) -> float:
    return _centred_square(values, range(2, values.ndim))


def _of_groups(node: ir.Node, values: Floats) -> float:
    groups = node.attributes.get_int("num_groups") or 1
    return _centred_square(values.reshape(len(values), groups, -1), (2,))


def _of_layers(node: ir.Node, values: Floats) -> float:
    first = node.attributes.get_int("axis", -1) % values.ndim
    return _centred_square(values, range(first, values.ndim))


def _uncentred(_node: ir.Node, values: Floats) -> float:
    return _largest(values) ** 2


_SQUARED: dict[str, Callable[[ir.Node, Floats], float]] = {
    "InstanceNormalization": _of_instances,
    "GroupNormalization": _of_groups,
    "LayerNormalization": _of_layers,
    "ReduceL2": _uncentred,
    "ReduceSumSquare": _uncentred,
    "RMSNormalization": _uncentred,
}
_MEANS = ("ReduceMean", "GlobalAveragePool")
_SUMMED = (*_MEANS, "ReduceL2")
"""What sums up and gives less than the sum."""
