"""Source: a user's ONNX file as one flat graph, and what in it can never be imported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx.inliner import inline_local_functions
from onnx_ir.passes.common import (
    LiftConstantsToInitializersPass,
    RemoveInitializersFromInputsPass,
    RemoveUnusedNodesPass,
)

from ...runtime.bundle.weights import OURS_ALONE
from ...runtime.core.errors import GraphError

RANDOM = {
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"),
    *("RandomUniform", "RandomUniformLike"),
}
_CONTROL = {"If", "Loop", "Scan", "SequenceMap"}
_OPSETS = range(9, 25)
_MOST_BYTES = 2 << 30  # of a protobuf message


@dataclass(frozen=True, slots=True)
class Source:
    """A user's graph, flat, as far as its outputs need it."""

    path: Path
    model: ir.Model

    @property
    def graph(self) -> ir.Graph:
        """Its nodes, in an order in which they can be computed."""
        return self.model.graph

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return self.model.opset_imports[""]

    @property
    def inputs(self) -> list[ir.Value]:
        """What it takes, without weights that are listed as inputs."""
        return [value for value in self.graph.inputs if value.const_value is None]

    def value(self, name: str) -> ir.Value:
        """Return an input, output or value inside, or raise a GraphError that names outputs."""
        for value in _values(self.graph):
            if value.name == name:
                return value
        raise GraphError(
            f"{self.path} has no value {name!r}",
            fix=f"its inputs are {described(self.inputs)}, its outputs "
            f"{described(self.graph.outputs)}",
        )


def source_from_file(path: Path) -> Source:
    """Read an ONNX file with its external data, with functions put in place of their calls.

    A GraphError is raised for a file that cannot be read or is not standard ONNX.
    """
    again = "give an ONNX file as its exporter wrote it"
    try:
        proto = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged or no ONNX file"
        raise GraphError(str(reason), context=f"cannot read {path}", fix=again) from error
    _check_external(path, proto)
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
        if proto.functions:
            proto = inline_local_functions(proto)
        shapeless = [value.name for value in proto.graph.output if _add_shape(value)]
        onnx.checker.check_model(proto)
        proto.graph.name = "graph"  # nobody reads it, and it may be no text
        model = ir.from_proto(proto)
    except (
        OSError,
        ValueError,
        RuntimeError,
        onnx.checker.ValidationError,
        ir.serde.SerdeError,
    ) as error:
        first = str(error).strip().partition("\n")[0][:200]
        raise GraphError(first, context=f"{path} is not valid ONNX", fix=again) from error
    for value in model.graph.outputs:
        value.shape = None if value.name in shapeless else value.shape
    _check_operators(path, model)
    RemoveInitializersFromInputsPass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    model.graph.sort()
    return Source(path, model)


def _add_shape(value: onnx.ValueInfoProto) -> bool:
    """Give a shape to an output that has none, which the checker insists on and nobody else."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.HasField("shape"):
        return False
    tensor.shape.SetInParent()
    return True


def _check_external(path: Path, proto: onnx.ModelProto) -> None:
    total = path.stat().st_size
    for tensor in proto.graph.initializer:
        for fact in tensor.external_data:
            if fact.key == "location" and fact.value.startswith(OURS_ALONE):
                raise GraphError(
                    f"{path} is a graph of a bundle, and has weights that only motorVAE reads",
                    fix="run motorvae-export --model BUNDLE --no-external-data on a copy of it",
                )
            if fact.key == "location" and not (path.parent / fact.value).is_file():
                raise GraphError(
                    f"{path} keeps weights in {fact.value!r}, which is not beside it",
                    fix="copy that file, too, or export with external_data=False",
                )
            total += int(fact.value) if fact.key == "length" else 0
    if total >= _MOST_BYTES:
        raise GraphError(
            f"{path} has {total >> 20} MB of weights, and one ONNX file holds 2047 MB",
            fix="import a smaller model",
        )


def _check_operators(path: Path, model: ir.Model) -> None:
    opset = model.opset_imports.get("", 0)
    if opset not in _OPSETS:
        raise GraphError(
            f"{path} is of opset {opset}, and {_OPSETS[0]} to {_OPSETS[-1]} are read",
            fix="export it with opset 20",
        )
    for node in model.graph:
        if node.domain:
            raise GraphError(
                f"{path} has a node {node.name!r} of {node.op_type} from {node.domain}, which is "
                "not of ONNX itself",
                fix="export it without operators of one library, such as before optimisation",
            )
        if node.op_type in _CONTROL:
            raise GraphError(
                f"{path} has control flow: {node.op_type} {node.name!r}",
                fix="export it with fixed sizes, or with torch.onnx.export(dynamo=True)",
            )
        if "Sequence" in node.op_type or node.op_type.startswith(("String", "Optional")):
            raise GraphError(
                f"{path} has {node.op_type} {node.name!r}: only tensors of numbers are imported",
                fix="export it with fixed sizes, or with torch.onnx.export(dynamo=True)",
            )


def cut_to(source: Source, outputs: Sequence[ir.Value]) -> None:
    """Leave of a graph, in place, what these values need."""
    found = source.graph.outputs
    found.clear()
    found.extend(outputs)
    RemoveUnusedNodesPass()(source.model)


def check_deterministic(source: Source) -> None:
    """Raise a GraphError where what is left of a graph draws random numbers."""
    drawn: set[ir.Value] = set()
    first: ir.Node | None = None
    for node in source.graph:
        training = node.op_type == "Dropout" and _in_training(node)
        if node.op_type in RANDOM or training:
            first = first or node
            drawn.update(node.outputs)
            continue
        from_drawn = [value in drawn for value in node.inputs if value is not None]
        if node.op_type == "Add" and from_drawn.count(True) == 1:
            mean = node.inputs[from_drawn.index(False)]
            raise _random(source, first, f"--outputs mu={mean.name}" if mean else "")
        drawn.update(node.outputs if any(from_drawn) else ())
    if first is not None:
        raise _random(source, first, "")


def _random(source: Source, node: ir.Node | None, mean: str) -> GraphError:
    what = f"{node.op_type} {node.name!r}" if node else "random numbers"
    by_name = f", or try {mean}, to which the noise is added" if mean else ""
    return GraphError(
        f"{source.path} draws random numbers, in {what}, and its outputs depend on them",
        fix="export what gives mu and log_var, without sampling, after model.eval()" + by_name,
    )


def _in_training(node: ir.Node) -> bool:
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    if mode is None:
        return False
    return mode.const_value is None or bool(mode.const_value.numpy())


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def described(values: Sequence[ir.Value]) -> str:
    """Return names and shapes, as for a message."""
    parts = [f"{value.name} {shape_text(value)}" for value in values]
    return ", ".join(parts) or "none"


def shape_text(value: ir.Value) -> str:
    """Return a shape as it is written, such as (batch, 3, 64, 64)."""
    if value.shape is None:
        return "of unknown shape"
    return f"({', '.join(str(size) for size in value.shape)})"
