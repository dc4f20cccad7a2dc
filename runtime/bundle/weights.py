"""Graphs whose weights lie in a bundle's one file of weights, made whole again as they are read.

Each large constant of a bundle's graphs is kept once, in `weights.bin`, page-aligned. Graphs name
their part of it as ONNX's external data does ("location", "offset" and "length" of a TensorProto;
onnx/onnx, docs/ExternalData.md), so that other programs read them in their folder. FP16 weights are
float32 ones of that file, each rounded to one of its two neighbours: one bit a weight says to
which. INT8 weights may be float32 ones as well, each row by a factor of its own, or deflated. No
other program knows of these.

Nothing here is trusted: offsets are numbers in a file. Whoever reads a graph compares the hash of
what is made with the one that the manifest has of the whole graph.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterable, Iterator
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
QUANTIZED = "quantized-by-motorvae"
"""The same of INT8 weights that are made of float32 ones. Behind it stand offset and length of the
part that says how, and the number of rows: a float32 factor for each row, and for each weight what
is added to its rounded product, deflated together."""
DEFLATED = "deflated-by-motorvae"
"""The same of constants that are kept deflated (RFC 1950). Behind it stands how many bytes they
are."""
_MADE = {ROUNDED: 2, QUANTIZED: 3, DEFLATED: 1}  # how many numbers stand behind each
OURS_ALONE = tuple(_MADE)
"""How a location begins that no other program knows."""
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
_INT8, _FLOAT16 = 3, 10
_MOST_DIGITS = 12
_MOST_SAID = 4096  # bytes of a constant that says where it is
_MOST_WHOLE = (2 << 30) - 1  # more is no protobuf
BLOCK = 1 << 20
"""Bytes of constants that are read at a time; of FP16 ones a whole number of bytes of bits, of INT8
ones that are made of float32 ones at least a row."""
_FED = 1 << 16
"""Deflated bytes that are unfolded at a time, as what is left of them is copied each time."""
SHORTEST_ROW = 8  # weights; a factor takes the bytes of four
_MOST_OVER = 64
"""Bytes that what is deflated may be longer than it is, beside what grows with it."""

Part = bytes | memoryview


class Place(NamedTuple):
    """Where constants are kept: a part of the file of weights."""

    offset: int
    length: int
    way: str = WEIGHTS  # or one of `OURS_ALONE`: what is made of it
    numbers: tuple[int, ...] = ()  # that stand behind that

    @property
    def size(self) -> int:
        """How many bytes of a graph's own file they are."""
        if self.way == DEFLATED:
            return self.numbers[0]
        return self.length // {ROUNDED: 2, QUANTIZED: 4}.get(self.way, 1)

    @property
    def entries(self) -> tuple[tuple[str, str], ...]:
        """The same as keys and values of ONNX's external data."""
        said = {
            "location": ".".join([self.way, *map(str, self.numbers)]),
            "offset": str(self.offset),
            "length": str(self.length),
        }
        return tuple(said.items())


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
    if not any(one.encode() in data for one in OURS_ALONE):
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
    way, texts = said.pop("location", ""), [said.get("offset", ""), said.get("length", "")]
    for made in OURS_ALONE:
        if way.startswith(f"{made}."):
            texts += way.removeprefix(f"{made}.").split(".")
            way = made
    is_known = said.keys() == {"offset", "length"} and all(map(_is_number, texts))
    if not is_known or len(texts) - 2 != {WEIGHTS: 0, **_MADE}.get(way):
        raise ValueError(f"its constant {name!r} has data in another file than {WEIGHTS}")
    if any(tensor.get(key) for key in ("raw_data", "float_data", "int32_data", "int64_data")):
        raise ValueError(f"its constant {name!r} is in it and in another file")
    offset, length, *numbers = map(int, texts)
    place = Place(offset, length, way, tuple(numbers))
    if (wrong := _wrong(place, tensor.get("data_type"))) is not None:
        raise ValueError(f"its constant {name!r} is {wrong}")
    return tensor, place


def _wrong(place: Place, data_type: object) -> str | None:
    """Return what a constant is that cannot be made as its place says."""
    length, count, numbers = place.length, place.length // 4, place.numbers
    found: list[tuple[bool, str]] = []
    if place.way == ROUNDED:
        is_typed = data_type == _FLOAT16 and length % 4 == 0 and count > 0
        most = _most_deflated(count // 8 + 1)
        found = [
            (not is_typed, "no FP16 one"),
            (numbers[1] > most, "rounded by more than a bit a weight"),
        ]
    elif place.way == QUANTIZED:
        rows = max(1, numbers[2])
        row, most = length // rows, _most_deflated(4 * rows + count)
        found = [
            (data_type != _INT8 or not count, "no INT8 one"),
            (numbers[2] < 1 or length % (4 * rows) > 0, f"not of {numbers[2]} rows"),
            (row > BLOCK, f"of rows of {row} bytes, and {BLOCK} are the most"),
            (row < 4 * SHORTEST_ROW, f"of rows of fewer than {SHORTEST_ROW} weights"),
            (numbers[1] > most, f"made with {numbers[1]} bytes, and {most} are the most"),
        ]
    elif place.way == DEFLATED:
        found = [
            (not length, "deflated to nothing"),
            (length > _most_deflated(numbers[0]), f"deflated from {numbers[0]} bytes to {length}"),
        ]
    return next((text for is_so, text in found if is_so), None)


def _most_deflated(count: int) -> int:
    """Return what so many bytes deflate to at most; more would be read, and thrown away.

    As zlib's own `compressBound` has it (compress.c), and some bytes beside.
    """
    return count + (count >> 12) + (count >> 14) + (count >> 25) + _MOST_OVER


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _size_of(parts: Iterable[Part | Place]) -> int:
    return sum(one.size if isinstance(one, Place) else len(one) for one in parts)


def _write_constants(whole: IO[bytes], file: IO[bytes], place: Place) -> None:
    """Write the constants at a place, as they stand in a graph's own file."""
    _check_there(file, place.offset, place.length)  # all of them, before any is written
    if place.way == DEFLATED:
        _write_inflated(whole, _part(file, place.offset, place.length), place.size)
    elif place.way == WEIGHTS:
        for _, block in _blocks(file, place, BLOCK):
            whole.write(block)
    else:
        _write_made(whole, file, place)


def _write_made(whole: IO[bytes], file: IO[bytes], place: Place) -> None:
    """Write constants that are made of float32 ones."""
    # numpy may be missing, as doctors say
    from .made_weights import quantized_from, rounded_from  # noqa: PLC0415

    said, count = io.BytesIO(), place.length // 4
    deflated = _part(file, place.numbers[0], place.numbers[1])
    if place.way == ROUNDED:
        _write_inflated(said, deflated, (count + 7) // 8)
        bits = said.getvalue()
        for at, exact in _blocks(file, place, BLOCK):
            whole.write(rounded_from(exact, bits[at // 32 : (at + len(exact) + 31) // 32]))
        return
    rows = place.numbers[2]
    row = place.length // rows
    _write_inflated(said, deflated, 4 * rows + count)
    factors, added = said.getbuffer()[: 4 * rows], said.getbuffer()[4 * rows :]
    for at, exact in _blocks(file, place, BLOCK // row * row):
        first, end = at // row, (at + len(exact)) // row
        part = added[at // 4 : (at + len(exact)) // 4]
        whole.write(quantized_from(exact, factors[4 * first : 4 * end], part))


def _blocks(file: IO[bytes], place: Place, step: int) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes at a place, so many at a time, each with where it begins there."""
    for at in range(0, place.length, step):
        yield at, _part(file, place.offset + at, min(step, place.length - at))


def _write_inflated(whole: IO[bytes], deflated: bytes, count: int) -> None:
    """Write what deflated bytes unfold to, which must be so many; one more is made at most."""
    unfolded, fed = zlib.decompressobj(), memoryview(deflated)
    damaged = ValueError(f"{WEIGHTS} is damaged")
    for at in range(0, len(fed), _FED):
        if unfolded.eof:
            raise damaged
        data: Part = fed[at : at + _FED]
        block = b"begun"
        while block or data:
            try:
                block = unfolded.decompress(data, min(BLOCK, count + 1))
            except zlib.error as error:
                raise damaged from error
            data = unfolded.unconsumed_tail
            if len(block) > count:
                raise damaged
            whole.write(block)
            count -= len(block)
    if count or not unfolded.eof or unfolded.unused_data:
        raise damaged


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
