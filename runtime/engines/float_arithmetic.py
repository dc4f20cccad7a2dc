"""An FP16 graph with its arithmetic in float32, for ONNX Runtime on a CPU.

On x86-64 ONNX Runtime computes an FP16 graph so by itself: weights are FP16 numbers, and each
operator runs in float32. On arm64 it has convolutions that add up in FP16
(microsoft/onnxruntime, `MlasFp16AccelerationSupported`), and no setting that switches them off:
latents of the shipped model came out 0.13 of a spread off there, and 0.006 off here. With this, one
bundle means the same numbers on both.
"""

from __future__ import annotations

from collections.abc import Iterator

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
    text_of,
)

_FLOAT, _FLOAT16, _INT = 1, 10, 2
"""`TensorProto.DataType` and `AttributeProto.AttributeType` of onnx.proto."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _NODES, _INITIALIZERS, _VALUES = 7, 1, 5, 13  # fields of ModelProto, and of GraphProto

Bytes = bytes | memoryview


def float32_arithmetic(content: bytes) -> bytes:
    """Return an ONNX file whose FP16 constants are float32 ones of the same values.

    Nothing is rounded to FP16 any more. A ValueError, whose text is a clause, where the file is not
    such as a bundle holds: then none of it may be changed, as the rest might be FP16 all the same.
    It takes at most about three times as much memory as the file it returns.
    """
    reader = Reader()  # of all messages, whose number it limits
    model = memoryview(content)
    reader.read(model, MODEL)  # each field once, and known: there is one graph, and no function
    parts: list[Bytes] = []
    for number, whole, payload in _fields(model):
        parts += _field(_GRAPH, _graph(payload, reader)) if number == _GRAPH else [whole]
    return b"".join(parts)


def _graph(data: memoryview, reader: Reader) -> list[Bytes]:
    graph = reader.read(data, GRAPH)
    for value in reader.each([*graph["input"], *graph["output"]], VALUE):
        tensor = reader.read(value.get("type", data[:0]), TYPE).get("tensor_type", data[:0])
        if reader.read(tensor, TENSOR_TYPE).get("elem_type") == _FLOAT16:
            raise ValueError("it takes or gives FP16")
    parts: list[Bytes] = []
    for number, whole, payload in _fields(data):
        if number == _NODES:
            parts += _field(_NODES, _node(payload, reader))
        elif number == _INITIALIZERS:
            parts += _field(_INITIALIZERS, _tensor(payload, reader))
        elif number != _VALUES:  # types of what is inside follow from the rest
            parts.append(whole)
    return parts


def _node(data: memoryview, reader: Reader) -> list[Bytes]:
    node = reader.read(data, NODE)
    # Of every node: a constant or a graph in an attribute, which might be FP16, is refused.
    attributes = list(reader.each(node["attribute"], ATTRIBUTE))
    if text_of(node.get("op_type")) != "Cast":
        return [data]
    (attribute,) = attributes
    if text_of(attribute.get("name")) != "to" or node.get("domain"):
        raise ValueError("it has a Cast of another kind")
    if attribute.get("i") != _FLOAT16:
        return [data]
    to = [*_field(1, [b"to"]), bytes((3 << 3, _FLOAT)), _varint(20 << 3), bytes((_INT,))]
    names = [(1, node["input"]), (2, node["output"]), (3, [node.get("name") or b""])]
    kept = [part for number, found in names for name in found for part in _field(number, [name])]
    return [*kept, *_field(4, [b"Cast"]), *_field(5, to)]


def _tensor(data: memoryview, reader: Reader) -> list[Bytes]:
    tensor = reader.read(data, TENSOR)
    if tensor.get("data_type") != _FLOAT16:
        return [data]
    if not tensor.get("raw_data"):
        raise ValueError("it keeps FP16 numbers one by one")
    values = np.frombuffer(tensor["raw_data"], "<f2").astype("<f4")
    dims = b"".join(_varint(size) for size in tensor["dims"])
    return [
        *(_field(1, [dims]) if dims else ()),
        bytes((2 << 3, _FLOAT)),
        *_field(8, [tensor.get("name") or b""]),
        *_field(9, [values.tobytes()]),
    ]


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield the number of each field, all of its bytes, and what it holds where that is bytes."""
    position, end = 0, len(data)
    while position < end:
        start = position
        tag, position = _number(data, position)
        wire = tag & 7
        payload = data[:0]
        if wire == _VARINT:
            _, position = _number(data, position)
        elif wire == _BYTES:
            length, position = _number(data, position)
            payload = data[position : position + length]
            position += length
        elif wire in {_FIXED32, _FIXED64}:
            position += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError("a field in it is damaged")
        if position > end:
            raise ValueError("it is cut short")
        yield tag >> 3, data[start:position], payload


def _number(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[position : position + 10]:
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError("it is cut short")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


def _field(number: int, content: list[Bytes]) -> list[Bytes]:
    """Return a field that holds these bytes, in pieces: they are copied once, at the end."""
    return [_varint(number << 3 | _BYTES), _varint(sum(map(len, content))), *content]
