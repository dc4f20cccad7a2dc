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

import io
import os
import zlib
from collections.abc import Iterable
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
_BLOCK = 1 << 20
"""Bytes of constants that are read at a time; of FP16 ones a whole number of bytes of bits."""
_MOST_OVER = 64
"""Bytes that deflated bits may be longer than they are, beside a 4096th part: zlib's worst case."""

Part = bytes | memoryview


class Place(NamedTuple):
    """Where constants are kept: a part of the file of weights."""

    offset: int
    length: int
    flips: tuple[int, int] | None = None  # another part of it, where FP16 weights are made

    @property
    def size(self) -> int:
        """How many bytes of a graph's own file they are."""
        return self.length if self.flips is None else self.length // 2

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
        left -= 0 if place is None else place.size
        if left < 0:
            raise ValueError(f"with {text_of(values.get('name'))[:40]!r} it is larger than it says")
    parts: list[Part | Place] = [written(graph, _GRAPH_HEAD)]
    for data_of_tensor, (values, place) in zip(graph["initializer"], tensors, strict=True):
        inner: list[Part | Place] = [data_of_tensor]
        if place is not None:
            inner = [written(values, _TENSOR_HEAD), field_start(9, place.size), place]
            inner.append(written(values, _TENSOR_TAIL))
        parts += [field_start(5, _size_of(inner)), *inner]
    parts.append(written(graph, _GRAPH_TAIL))
    start = [written(model, _MODEL_HEAD), field_start(7, _size_of(parts))]
    path = folder / WEIGHTS
    again = "copy the whole bundle again"
    # Constants go in block by block: a list of them to join would take the graph's size once more.
    whole = io.BytesIO()
    with opened_regular(path, most_bytes=None, error=BundleError, again=again) as file:
        for part in (*start, *parts, written(model, _MODEL_TAIL)):
            if isinstance(part, Place):
                _write_constants(whole, file, part)
            else:
                whole.write(part)
    return whole.getvalue()


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


def _size_of(parts: Iterable[Part | Place]) -> int:
    return sum(one.size if isinstance(one, Place) else len(one) for one in parts)


def _write_constants(whole: IO[bytes], file: IO[bytes], place: Place) -> None:
    """Write the constants at a place, as they stand in a graph's own file."""
    _check_there(file, place.offset, place.length)  # all of them, before any is written
    places = range(0, place.length, _BLOCK)
    blocks = ((at, min(_BLOCK, place.length - at)) for at in places)
    if place.flips is None:
        for at, length in blocks:
            whole.write(_part(file, place.offset + at, length))
        return
    from .rounded_weights import rounded_from  # noqa: PLC0415  # numpy may be missing, as doctors say

    packed = _part(file, *place.flips)
    count = (place.length // 4 + 7) // 8
    unfolded = zlib.decompressobj()
    try:
        bits = unfolded.decompress(packed, count + 1)  # more would be too many, and is not made
    except zlib.error as error:
        raise ValueError(f"{WEIGHTS} is damaged") from error
    if len(bits) != count:
        raise ValueError(f"{WEIGHTS} is damaged")
    for at, length in blocks:
        exact = _part(file, place.offset + at, length)
        whole.write(rounded_from(exact, bits[at // 32 : (at + length + 31) // 32]))


def _check_there(file: IO[bytes], offset: int, length: int) -> None:
    if offset + length > os.fstat(file.fileno()).st_size:  # before memory is taken for it
        raise ValueError(f"{WEIGHTS} is cut short")


def _part(file: IO[bytes], offset: int, length: int) -> bytes:
    """Return a part of the file of weights, all of it."""
    _check_there(file, offset, length)
    try:
        found = os.pread(file.fileno(), length, offset)
    except (OSError, MemoryError) as error:
        raise BundleError(f"cannot read {WEIGHTS}: {error}; copy the whole bundle again") from error
    if len(found) != length:
        raise ValueError(f"{WEIGHTS} is cut short")
    return found
