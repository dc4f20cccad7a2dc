"""ONNX files as protobuf: the few messages that our graphs are made of, and nothing else.

A file is understood in one way or refused: a field that is not in these tables, one that stands
twice where it may stand once, or one of another wire type. Protobuf's own readers merge, skip and
convert there, so that what was checked would not be what an engine reads. Nothing is copied, and
nothing is nested deeper than the tables. A refusal is a ValueError whose text is a clause. The
formats are those of protobuf's "Encoding" page and of onnx.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_MOST_FIELDS = 200_000
"""Of all messages of a file; an INT8 decoder of five layers has 6,000."""
_MOST_COUNTED = 1 << 18
"""Numbers of a constant that is not kept as raw bytes; each takes more memory than in the file."""
_NOT_LAST = bytes(range(0x80, 0x100))
"""Bytes of a number after which more of it come."""
_TOO_LONG = f"it has a constant of more than {_MOST_COUNTED} numbers that are not raw bytes"
_VARINT, _BYTES, _FIXED32 = 0, 2, 5


class Field(NamedTuple):
    """A field that is read: its name, wire type, and whether it may stand several times."""

    name: str
    wire: int
    repeated: bool = False
    counted: bool = False  # of numbers side by side only how many there are is read, as zeros


Message = Mapping[int, Field]
Values = dict[str, Any]
"""By the name of a field: a number or a view of bytes, of repeated ones a list."""

MODEL: Message = {
    1: Field("ir_version", _VARINT),
    2: Field("producer_name", _BYTES),
    3: Field("producer_version", _BYTES),
    4: Field("domain", _BYTES),
    5: Field("model_version", _VARINT),
    6: Field("doc_string", _BYTES),
    7: Field("graph", _BYTES),
    8: Field("opset_import", _BYTES, repeated=True),
    14: Field("metadata_props", _BYTES, repeated=True),
}
OPSET: Message = {1: Field("domain", _BYTES), 2: Field("version", _VARINT)}
GRAPH: Message = {
    1: Field("node", _BYTES, repeated=True),
    2: Field("name", _BYTES),
    5: Field("initializer", _BYTES, repeated=True),
    10: Field("doc_string", _BYTES),
    11: Field("input", _BYTES, repeated=True),
    12: Field("output", _BYTES, repeated=True),
    13: Field("value_info", _BYTES, repeated=True),
}
NODE: Message = {
    1: Field("input", _BYTES, repeated=True),
    2: Field("output", _BYTES, repeated=True),
    3: Field("name", _BYTES),
    4: Field("op_type", _BYTES),
    5: Field("attribute", _BYTES, repeated=True),
    6: Field("doc_string", _BYTES),
    7: Field("domain", _BYTES),
}
ATTRIBUTE: Message = {
    1: Field("name", _BYTES),
    2: Field("f", _FIXED32),
    3: Field("i", _VARINT),
    4: Field("s", _BYTES),
    8: Field("ints", _VARINT, repeated=True),
    13: Field("doc_string", _BYTES),
    20: Field("type", _VARINT),
}
TENSOR: Message = {
    1: Field("dims", _VARINT, repeated=True),
    2: Field("data_type", _VARINT),
    4: Field("float_data", _FIXED32, repeated=True, counted=True),
    5: Field("int32_data", _VARINT, repeated=True, counted=True),
    7: Field("int64_data", _VARINT, repeated=True),
    8: Field("name", _BYTES),
    9: Field("raw_data", _BYTES),
    12: Field("doc_string", _BYTES),
    14: Field("data_location", _VARINT),  # 0 is this file
}
VALUE: Message = {
    1: Field("name", _BYTES),
    2: Field("type", _BYTES),
    3: Field("doc_string", _BYTES),
}
TYPE: Message = {1: Field("tensor_type", _BYTES)}
TENSOR_TYPE: Message = {1: Field("elem_type", _VARINT), 2: Field("shape", _BYTES)}
SHAPE: Message = {1: Field("dim", _BYTES, repeated=True)}
DIMENSION: Message = {1: Field("dim_value", _VARINT), 2: Field("dim_param", _BYTES)}

_REFUSED: dict[int, dict[int, str]] = {
    id(MODEL): {20: "training information", 25: "functions of its own", 26: "device settings"},
    id(GRAPH): {14: "quantisation notes", 15: "sparse constants"},
    id(NODE): {8: "an overload", 10: "device settings"},
    id(ATTRIBUTE): {6: "a graph inside a node", 11: "graphs inside a node"},
    id(TENSOR): {13: "data in another file"},
}
"""What is refused and has a name that says why."""


class Reader:
    """Reads the messages of one file, whose fields in all are counted."""

    def __init__(self) -> None:
        self._left = _MOST_FIELDS

    def read(self, data: memoryview, message: Message) -> Values:
        """Return the fields of a message; those of repeated ones are there, as an empty list."""
        found: Values = {field.name: [] for field in message.values() if field.repeated}
        position, end = 0, len(data)
        while position < end:
            tag, position = self._varint(data, position)
            number, wire = tag >> 3, tag & 7
            field = message.get(number)
            if field is None:
                named = _REFUSED.get(id(message), {}).get(number, f"a field {number}")
                raise ValueError(f"it has {named}, which no graph of ours has")
            if wire == _BYTES:
                length, position = self._varint(data, position)
                if length > end - position:
                    raise ValueError("it is cut short")
                value: Any = data[position : position + length]
                position += length
            elif wire == _VARINT:
                value, position = self._varint(data, position)
            elif wire == _FIXED32 and end - position >= 4:
                value, position = data[position : position + 4], position + 4
            else:
                raise ValueError(f"its field {field.name} is damaged")
            if not field.repeated:
                if wire != field.wire or field.name in found:
                    raise ValueError(f"its field {field.name} is damaged or stands twice")
                found[field.name] = value
            elif wire == field.wire:
                found[field.name].append(value)
            elif wire == _BYTES:  # numbers side by side
                self._add_packed(found[field.name], value, field)
            else:
                raise ValueError(f"its field {field.name} is damaged")
        return found

    def each(self, parts: Sequence[memoryview], message: Message) -> Iterator[Values]:
        """Read several messages of one kind."""
        return (self.read(part, message) for part in parts)

    def _add_packed(self, values: list[Any], data: memoryview, field: Field) -> None:
        if field.counted:
            if len(data) > 10 * _MOST_COUNTED:  # bytes of the longest number
                raise ValueError(_TOO_LONG)
            count = len(data) // 4
            if field.wire == _VARINT:
                count = len(bytes(data).translate(None, _NOT_LAST))
            elif len(data) % 4:
                raise ValueError(f"its field {field.name} is damaged")
            values += [0] * count
            if len(values) > _MOST_COUNTED:
                raise ValueError(_TOO_LONG)
            return
        position = 0
        while position < len(data):
            value, position = self._varint(data, position)
            values.append(value)

    def _varint(self, data: memoryview, position: int) -> tuple[int, int]:
        """Return a number as signed 64 bits, and where it ends."""
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it has more than {_MOST_FIELDS} fields")
        value = shift = 0
        while shift < 70:
            if position >= len(data):
                raise ValueError("it is cut short")
            byte = data[position]
            value |= (byte & 0x7F) << shift
            position, shift = position + 1, shift + 7
            if byte < 0x80:
                if value >> 64:
                    break
                return value - ((value >> 63) << 64), position
        raise ValueError("a number in it has more than 64 bits")


def message_bytes(values: Values, message: Message) -> bytes:
    """Return a message that `Reader.read` gave, or one like it, as protobuf writes it.

    Of fields that are only counted nothing is known, so that they must be empty.
    """
    parts: list[bytes | memoryview] = []
    for number, field in message.items():
        held = values.get(field.name, [])
        for value in held if field.repeated else [held] if field.name in values else []:
            parts.append(_varint_bytes(number << 3 | field.wire))
            if field.wire == _BYTES:
                parts.append(_varint_bytes(len(value)))
            parts.append(_varint_bytes(value) if field.wire == _VARINT else value)
    return b"".join(parts)


def field_start(number: int, length: int) -> bytes:
    """Return what stands before so many bytes of a field, which are written apart."""
    return _varint_bytes(number << 3 | _BYTES) + _varint_bytes(length)


def _varint_bytes(value: int) -> bytes:
    value &= (1 << 64) - 1  # of signed numbers all 64 bits are written
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


def text_of(value: memoryview | None) -> str:
    """Return a name as text."""
    try:
        return str(value or b"", "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("a name in it is not UTF-8") from error


def int64s_of(tensor: Values) -> list[int]:
    """Return the numbers of a short INT64 tensor, however they are kept."""
    if "raw_data" in tensor:
        raw = tensor["raw_data"]
        return list(struct.unpack(f"<{len(raw) // 8}q", raw[: len(raw) // 8 * 8]))
    return [*tensor["int64_data"]]


def float32s_of(tensor: Values) -> list[float]:
    """Return the numbers of a short FLOAT tensor that keeps them as raw bytes."""
    raw = tensor["raw_data"]
    return list(struct.unpack(f"<{len(raw) // 4}f", raw[: len(raw) // 4 * 4]))
