"""The versions of ONNX that all our graphs are written in, and whether two compute the same."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from ..runtime.bundle.graph_key import GraphKey, Part
from ..runtime.bundle.load import Bundle
from ..runtime.core.errors import BundleError

OPSET = 20
"""The newest that TensorRT 10.3's parser and every current ONNX Runtime read."""
IR_VERSION = 10
"""What goes with it; ONNX Runtime 1.18 and later read it."""


def is_exported_as(bundle: Bundle, graphs: Mapping[Part, ir.Model]) -> bool:
    """Return whether a bundle's float32 graphs compute what these do, whatever wrote them.

    Operators, attributes, constants and their order count; names inside, which versions of torch
    choose differently, and who produced a file do not.
    """
    try:
        held = {part: bundle.content(bundle.entry(GraphKey(part))) for part in graphs}
    except BundleError:
        return False
    return all(
        _content(ir.from_proto(onnx.load_from_string(held[part]))) == _content(graph)
        for part, graph in graphs.items()
    )


def _content(model: ir.Model) -> list[object]:
    """Return all that decides what a graph computes, to be compared."""
    numbers: dict[ir.Value, int] = {}

    def named(value: ir.Value | None) -> object:
        tensor = value.const_value if value is not None else None
        if tensor is not None:
            return (tensor.dtype, tuple(tensor.shape), tensor.tobytes())
        return None if value is None else numbers.setdefault(value, len(numbers))

    content: list[object] = [model.opset_imports, [value.name for value in model.graph.outputs]]
    content.append([(value.name, value.dtype, named(value)) for value in model.graph.inputs])
    for node in model.graph:
        attributes = [
            ir.serde.serialize_attribute(attribute).SerializeToString(deterministic=True)
            for _, attribute in sorted(node.attributes.items())
        ]
        inputs, outputs = map(named, node.inputs), map(named, node.outputs)
        content.append((node.domain, node.op_type, attributes, [*inputs], [*outputs]))
    content.append([named(value) for value in model.graph.outputs])
    return content
