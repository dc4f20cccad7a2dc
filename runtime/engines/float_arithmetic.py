"""An FP16 graph with its arithmetic in float32, for ONNX Runtime on a CPU.

On x86-64 ONNX Runtime computes an FP16 graph so by itself: weights are FP16 numbers, and each
operator runs in float32. On arm64 it has convolutions that add up in FP16
(microsoft/onnxruntime, `MlasFp16AccelerationSupported`), and no setting that switches them off:
latents were outside the gate's limit there (docs/arm64.md). With this, one bundle means the same
numbers on both.
"""

from __future__ import annotations

import numpy as np

from ..bundle.onnx_wire import (
    ATTRIBUTE,
    GRAPH,
    MODEL,
    NODE,
    TENSOR,
    TENSOR_TYPE,
    TYPE,
    VALUE,
    Reader,
    Values,
    message_bytes,
    text_of,
)

_FLOAT, _FLOAT16 = 1, 10
"""`TensorProto.DataType` of onnx.proto."""

Bytes = bytes | memoryview


def float32_arithmetic(content: bytes) -> bytes:
    """Return an ONNX file whose FP16 constants are float32 ones of the same values.

    Nothing is rounded to FP16 any more. A ValueError, whose text is a clause, where the file is not
    such as a bundle holds: then none of it may be changed, as the rest might be FP16 all the same.
    """
    reader = Reader()  # of all messages, whose number it limits
    model = reader.read(memoryview(content), MODEL)
    graph = reader.read(model.get("graph", memoryview(b"")), GRAPH)
    for value in reader.each([*graph["input"], *graph["output"]], VALUE):
        if _element_type(value, reader) == _FLOAT16:
            raise ValueError("it takes or gives FP16")
    graph["node"] = [_node(node, reader) for node in graph["node"]]
    graph["initializer"] = [_tensor(tensor, reader) for tensor in graph["initializer"]]
    graph["value_info"] = []  # types of what is inside follow from the rest
    model["graph"] = message_bytes(graph, GRAPH)
    return message_bytes(model, MODEL)


def _element_type(value: Values, reader: Reader) -> int | None:
    empty = memoryview(b"")
    tensor = reader.read(value.get("type", empty), TYPE).get("tensor_type", empty)
    found: int | None = reader.read(tensor, TENSOR_TYPE).get("elem_type")
    return found


def _node(data: memoryview, reader: Reader) -> Bytes:
    node = reader.read(data, NODE)
    # Of every node: a constant or a graph in an attribute, which might be FP16, is refused.
    attributes = list(reader.each(node["attribute"], ATTRIBUTE))
    if text_of(node.get("op_type")) != "Cast":
        return data
    (to,) = attributes
    if text_of(to.get("name")) != "to" or node.get("domain"):
        raise ValueError("it has a Cast of another kind")
    if to.get("i") != _FLOAT16:
        return data
    node["attribute"] = [message_bytes({**to, "i": _FLOAT}, ATTRIBUTE)]
    return message_bytes(node, NODE)


def _tensor(data: memoryview, reader: Reader) -> Bytes:
    tensor = reader.read(data, TENSOR)
    if tensor.get("data_type") != _FLOAT16:
        return data
    if not tensor.get("raw_data"):
        raise ValueError("it keeps FP16 numbers one by one")
    values = np.frombuffer(tensor["raw_data"], "<f2").astype("<f4")
    changed: Values = {"data_type": _FLOAT, "raw_data": values.tobytes()}
    kept = {name: tensor[name] for name in ("dims", "name") if name in tensor}
    return message_bytes(changed | kept, TENSOR)
