"""What an ONNX file says before anything runs: its files, its precision, and what is random."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no types
from onnx.external_data_helper import uses_external_data

from ...runtime.bundle.graph_key import Precision
from ...runtime.bundle.manifest import WEIGHTS, FileEntry
from ...runtime.bundle.weights import OURS_ALONE
from ...runtime.core.errors import BackendError
from ...runtime.core.text import printable

_RANDOM = {
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("Bernoulli", "Multinomial"),
}
_TENSORS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """Facts of one ONNX file."""

    files: tuple[FileEntry, ...]  # itself, and the files that hold its weights
    precision: Precision  # of most of its weights; int8 where it quantises anything
    random_nodes: tuple[str, ...]  # such as "RandomNormalLike 'sample/eps'"
    outputs: tuple[str, ...] = ()  # in order; empty where it does not say


def facts_of(path: Path) -> GraphFacts:
    """Read the facts of an ONNX file, its weights in other files not read but hashed.

    A BackendError where it is no ONNX file, or a file that it names is not there or not below its
    own folder.
    """
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (ValueError, DecodeError) as error:
        raise BackendError(f"{path} is no ONNX file: name one") from error
    except OSError as error:
        raise BackendError(
            f"cannot read {path}: {error.strerror or error}; name an ONNX file"
        ) from error
    if not model.graph.node:
        raise BackendError(f"{path} is no ONNX file, or a graph without a node: name another")
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [taken.name for taken in model.graph.input if taken.name not in constants]
    if len(inputs) != 1:
        names_of = printable(", ".join(inputs)) or "none"
        raise BackendError(
            f"{path} has {len(inputs)} inputs ({names_of}), and is given images or latents alone: "
            "export it with one input"
        )
    tensors = list(_weights_of(model))
    names = {
        WEIGHTS if entry.value.startswith(OURS_ALONE) else entry.value
        for tensor in tensors
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return GraphFacts(
        files=(_entry(path, path.name), *(_entry(path, name) for name in sorted(names))),
        precision=_precision_of(model, tensors),
        outputs=tuple(output.name for output in model.graph.output),
        random_nodes=tuple(
            f"{node.op_type} {printable(node.name or node.output[0])!r}"
            for node in _all_nodes(model)
            if node.op_type in _RANDOM or _trains(node)
        ),
    )


def _entry(path: Path, name: str) -> FileEntry:
    file = path.parent / name
    shown = printable(name)
    if not file.resolve().is_relative_to(path.parent.resolve()):
        raise BackendError(f"{path} keeps weights in {shown}, outside its folder: put them there")
    try:
        entry = FileEntry.of(file)
    except OSError as error:
        raise BackendError(
            f"{path} keeps weights in {shown}, which cannot be read ({error.strerror or error}): "
            "put it beside the graph"
        ) from error
    return entry.model_copy(update={"file": shown})


def _precision_of(model: onnx.ModelProto, tensors: list[onnx.TensorProto]) -> Precision:
    operators = {node.op_type for node in _all_nodes(model)}
    if any(name.startswith(("Quantize", "Dequantize", "QLinear")) for name in operators) or (
        operators & {"ConvInteger", "MatMulInteger"}
    ):
        return "int8"
    counts: dict[int, int] = dict.fromkeys(map(int, _TENSORS), 0)
    for tensor in tensors:
        if tensor.data_type in counts:
            counts[tensor.data_type] += math.prod(tensor.dims)
    most = max(counts, key=lambda kind: counts[kind])
    found: dict[int, Precision] = {int(_TENSORS[1]): "fp16", int(_TENSORS[2]): "bf16"}
    return found.get(most, "fp32")


def _trains(node: onnx.NodeProto) -> bool:
    """Whether it is a Dropout that may drop values: it has its input `training_mode`."""
    return node.op_type == "Dropout" and len(node.input) > 2 and bool(node.input[2])


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _nodes_of(model.graph.node)
    for function in model.functions:
        yield from _nodes_of(function.node)


def _nodes_of(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes, and those of the graphs inside If, Loop and Scan."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes_of(graph.node)


def _weights_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    for node in _all_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for graph in (attribute.g, *attribute.graphs):
                yield from graph.initializer
