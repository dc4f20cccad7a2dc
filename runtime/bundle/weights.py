"""Graphs whose weights lie in a bundle's one file of weights, made whole again as they are read.

Each large constant of a bundle's graphs is kept once, in `weights.bin`, page-aligned. Graphs name
their part of it as ONNX's external data does ("location", "offset" and "length" of a TensorProto;
onnx/onnx, docs/ExternalData.md), so that other programs read them in their folder. FP16 weights are
float32 ones of that file, each rounded to one of its two neighbours: one bit a weight says to
which, and no other program knows of that.

Nothing here is trusted: offsets are numbers in a file. Whoever reads a graph compares the hash of
what is made with the one that the manifest has of the whole graph.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import IO, NamedTuple

from ..core.documents import opened_regular
from ..core.errors import BundleError
from .manifest import WEIGHTS
from .onnx_wire import GRAPH, MODEL, TENSOR, Field, Message, Reader, Values, field_start, text_of
from .onnx_wire import message_bytes as written

ROUNDED = "rounded-by-motorvae"
"""How the location of FP16 weights begins that are made of float32 ones: there is no such file,
which is what other programs say. Behind it stand offset and length of the part of the file of
weights that says which of them go to the other neighbour: a bit each, deflated."""
PAGE = 4096

_BYTES = 2  # a field of bytes in protobuf
ENTRY: Message = {1: Field("key", _BYTES), 2: Field("value", _BYTES)}
_PACKED: Message = {**TENSOR, 13: Field("external_data", _BYTES, repeated=True)}
_GRAPH_HEAD: Message = {number: field for number, field in GRAPH.items() if number < 5}
_GRAPH_TAIL: Message = {number: field for number, field in GRAPH.items() if number > 5}
_MODEL_HEAD: Message = {number: field for number, field in MODEL.items() if number < 7}
_MODEL_TAIL: Message = {number: field for number, field in MODEL.items() if number > 7}
_TENSOR_HEAD: Message = {number: field for number, field in TENSOR.items() if number < 9}
_TENSOR_TAIL: Message = {12: TENSOR[12]}
_FLOAT16 = 10
_MOST_DIGITS = 12
_MOST_SAID = 4096  # bytes of a constant that says where it is
_MOST_WHOLE = (2 << 30) - 1  # more is no protobuf
_MOST_OVER = 64
"""Bytes that deflated bits may be longer than they are, beside a 4096th part: zlib's worst case."""

Part = bytes | memoryview


class Place(NamedTuple):
    """Where constants are kept: a part of the file of weights."""

    offset: int
    length: int
    flips: tuple[int, int] | None = None  # another part of it, where FP16 weights are made

    @property
    def entries(self) -> tuple[tuple[str, str], ...]:
        """The same as keys and values of ONNX's external data."""
        location = WEIGHTS
        if self.flips is not None:
            location = ".".join([ROUNDED, *map(str, self.flips)])
        numbers = {"offset": self.offset, "length": self.length}
        return ("location", location), *((key, f"{one}") for key, one in numbers.items())


def whole_graph(data: bytes, folder: Path, most_bytes: int) -> bytes:
    """Return a graph's file with all of its constants inside, of so many bytes at most.

    `data` is the file; one that names nothing outside itself is returned as it is. A ValueError,
    its text a clause, where it is no ONNX file, or names anything but parts of `weights.bin` in
    `folder`; a BundleError where that cannot be read.
    """
    reader = Reader()
    model = reader.read(memoryview(data), MODEL)
    if "graph" not in model:
        return data
    graph = reader.read(model["graph"], GRAPH)
    tensors = [_read(tensor, reader) for tensor in graph["initializer"]]
    if not any(place for _, place in tensors):
        return data
    left = most_bytes  # for constants alone; the rest is as large as the file that was read
    for values, place in tensors:
        left -= 0 if place is None else place.length // (1 if place.flips is None else 2)
        if left < 0:
            raise ValueError(f"with {text_of(values.get('name'))[:40]!r} it is larger than it says")
    parts: list[Part] = [written(graph, _GRAPH_HEAD)]
    path = folder / WEIGHTS
    again = "copy the whole bundle again"
    with opened_regular(path, most_bytes=None, error=BundleError, again=again) as file:
        for data_of_tensor, (values, place) in zip(graph["initializer"], tensors, strict=True):
            inner: list[Part] = [data_of_tensor]
            if place is not None:
                constants = _constants(file, place)
                inner = [written(values, _TENSOR_HEAD), field_start(9, len(constants)), constants]
                inner.append(written(values, _TENSOR_TAIL))
            parts += [field_start(5, sum(map(len, inner))), *inner]
    parts.append(written(graph, _GRAPH_TAIL))
    start = [written(model, _MODEL_HEAD), field_start(7, sum(map(len, parts)))]
    return b"".join([*start, *parts, written(model, _MODEL_TAIL)])


def made_whole(path: Path) -> bytes | None:
    """Return a graph's file of a bundle made whole, where no other program could read its weights.

    None of all other files. A BundleError where its weights cannot be read, or are none.
    """
    data = path.read_bytes()
    if ROUNDED.encode() not in data:
        return None
    try:
        return whole_graph(data, path.parent, _MOST_WHOLE)
    except ValueError as error:
        raise BundleError(f"{path} cannot be made whole: {error}; copy the bundle again") from error


def _read(data: memoryview, reader: Reader) -> tuple[Values, Place | None]:
    """Return a constant's fields, and where it is kept if that is not its own file."""
    # Most lie in the file and are read once, by whoever checks the whole graph.
    if len(data) > _MOST_SAID or b"location" not in bytes(data):
        return {}, None
    tensor = reader.read(data, _PACKED)
    if not tensor.get("data_location", 0):
        if tensor["external_data"]:
            raise ValueError("it has a constant that is in it and in another file")
        return tensor, None
    name = text_of(tensor.get("name"))[:40]
    said: dict[str, str] = {}
    for entry in reader.each(tensor["external_data"], ENTRY):
        said[text_of(entry.get("key"))] = text_of(entry.get("value"))
    location, _, flips_at = said.pop("location", "").partition(f"{ROUNDED}.")
    texts = [said.get("offset", ""), said.get("length", "")]
    texts += flips_at.split(".") if flips_at else []
    is_known = said.keys() == {"offset", "length"} and all(map(_is_number, texts))
    if not is_known or (location, len(texts)) not in {(WEIGHTS, 2), ("", 4)}:
        raise ValueError(f"its constant {name!r} has data in another file than {WEIGHTS}")
    offset, length, *flips = map(int, texts)
    if any(tensor.get(key) for key in ("raw_data", "float_data", "int32_data", "int64_data")):
        raise ValueError(f"its constant {name!r} is in it and in another file")
    if not flips:
        return tensor, Place(offset, length)
    if tensor.get("data_type") != _FLOAT16 or length % 4 or not length:
        raise ValueError(f"its constant {name!r} is no FP16 one")
    bits = length // 32 + 1
    if flips[1] > bits + bits // 4096 + _MOST_OVER:  # would be read, and thrown away
        raise ValueError(f"its constant {name!r} is rounded by more than a bit a weight")
    return tensor, Place(offset, length, (flips[0], flips[1]))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _constants(file: IO[bytes], place: Place) -> Part:
    """Return the constants at a place, as they stand in a graph's own file."""
    kept = _part(file, place.offset, place.length)
    if place.flips is None:
        return kept
    from .rounded_weights import rounded_from  # noqa: PLC0415  # numpy may be missing, as doctors say

    packed = _part(file, *place.flips)
    count = (len(kept) // 4 + 7) // 8
    unfolded = zlib.decompressobj()
    try:
        bits = unfolded.decompress(packed, count + 1)  # more would be too many, and is not made
    except zlib.error as error:
        raise ValueError(f"{WEIGHTS} is damaged") from error
    if len(bits) != count:
        raise ValueError(f"{WEIGHTS} is damaged")
    return rounded_from(kept, bits)


def _part(file: IO[bytes], offset: int, length: int) -> bytes:
    """Return a part of the file of weights, all of it."""
    size = os.fstat(file.fileno()).st_size
    if offset + length > size:  # before memory is taken for it
        raise ValueError(f"{WEIGHTS} is cut short")
    try:
        found = os.pread(file.fileno(), length, offset)
    except (OSError, MemoryError) as error:
        raise BundleError(f"cannot read {WEIGHTS}: {error}; copy the whole bundle again") from error
    if len(found) != length:
        raise ValueError(f"{WEIGHTS} is cut short")
    return found
