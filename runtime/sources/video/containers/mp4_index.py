"""IndexLimit: refuses an MP4 or MOV whose index would fill memory, before FFmpeg makes it.

FFmpeg keeps an entry for each sample of each track, and copies those that an entry of an edit list
is about, back to the key frame before them (ISO/IEC 14496-12). Numbers of both are the file's own,
and a file of kilobytes can ask for gigabytes.
"""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

_PARENTS = {
    *(b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"dinf", b"udta", b"tref", b"sinf"),
    *(b"moof", b"traf", b"mvex", b"wave", b"gmhd", b"schi", b"cmov", b"meta"),
    *(b"ilst", b"iprp"),
}
"""Boxes in which FFmpeg looks for others, wherever they are."""
_DEEPEST = 10
_MOST_BOXES = 50_000  # in an index: some hundred tracks have as many
_MOST_OUTER_BOXES = 4_000_000  # five hours of two fragments a frame
_MOST_KEYS = 10_000  # FFmpeg compares each of its metadata with all before it
_MOST_TABLE_BYTES = _MOST_PACKED = 64 << 20  # together
_MOST_ENTRIES = 20_000_000  # of 28 bytes: ten hours of 60 frames a second are two million
_IN_FRAGMENT = re.compile(rb"(?:trun|senc).{4}(.{4})", re.DOTALL)
_MISPLACED = re.compile(rb"elst|st(?:sz|z2|ts|ss|co|sc)|co64|trun|senc|cmvd|trak|moov")
_SOUND_SAMPLES = 1024  # an entry, of PCM
_TABLES = {
    b"elst": np.dtype([("duration", ">u4"), ("start", ">i4"), ("rate", ">u4")]),
    b"stts": np.dtype([("count", ">u4"), ("delta", ">u4")]),
    b"stss": np.dtype([("number", ">u4")]),
    b"stsc": np.dtype([("first", ">u4"), ("count", ">u4"), ("description", ">u4")]),
}
_LONG_EDITS = np.dtype([("duration", ">u8"), ("start", ">i8"), ("rate", ">u4")])

Table = npt.NDArray[np.float64]
Side = Literal["left", "right"]


@dataclass(slots=True)
class _Track:
    """What a track says of its samples."""

    is_sound: bool = False
    samples: int = 0
    chunks: int = 0
    samples_in_chunk: float = 0  # in the largest
    scale: int = 0  # units of its time in a second
    edits: list[tuple[Table, Table]] = field(default_factory=list)  # durations and starts
    times: tuple[Table, Table] | None = None  # counts of samples, and how long each of them is
    keys: Table | None = None  # numbers of samples; None: each is one
    is_odd: bool = False  # something is said twice

    def read(self, kind: bytes, file: BinaryIO) -> None:
        """Read what a box says of the track, if it does."""
        if kind == b"mdhd":
            self.scale = _time_scale(file)
        elif kind == b"hdlr":
            handler = file.read(12)[8:]
            if handler in {b"soun", b"vide"}:
                self.is_sound = handler == b"soun"
        elif kind in {b"stsz", b"stz2"}:
            self.samples = max(self.samples, int.from_bytes(file.read(12)[8:], "big"))
        elif kind in {b"stco", b"co64"}:
            self.chunks = max(self.chunks, int.from_bytes(file.read(8)[4:], "big"))

    def take_table(self, kind: bytes, table: npt.NDArray[Any]) -> None:
        """Keep what a table says."""
        columns = [table[name].astype(np.float64) for name in table.dtype.names or ()]
        if kind == b"elst":
            self.edits.append((columns[0], columns[1]))
        elif kind == b"stts":
            self.is_odd |= self.times is not None
            self.times = columns[0], columns[1]
        elif kind == b"stsc":
            self.samples_in_chunk = max(self.samples_in_chunk, columns[1].max(initial=0))
        else:
            self.is_odd |= self.keys is not None
            self.keys = columns[0]

    def entries(self, movie_scale: int) -> float:
        """Return how many entries FFmpeg's index has at most."""
        counts, deltas = self.times or (np.zeros(0), np.zeros(0))
        # PCM is a sample a tick, and indexed by chunks.
        by_chunk = self.is_sound and len(counts) == 1 and deltas[0] == 1
        count = float(self.samples)
        if by_chunk:
            count = self.chunks * max(1.0, np.ceil(self.samples_in_chunk / _SOUND_SAMPLES))
        total = count
        for durations, starts in self.edits:
            if by_chunk or self.is_odd or not len(counts):
                total += count * len(durations)
                continue
            seconds = durations / max(movie_scale, 1)
            ends = np.where(durations > 0, starts + seconds * self.scale, np.inf)
            covered = _samples_at(ends, counts, deltas, "right") - _samples_at(
                starts, counts, deltas, "left"
            )
            each = np.clip(covered + self._longest_group(count) + 1, 0, count)
            total += float(each[(starts >= 0) & (each > 0)].sum())
        return total

    def _longest_group(self, count: float) -> float:
        if self.keys is None:
            return 1.0
        inner = self.keys[(self.keys > 0) & (self.keys <= count)]
        return float(np.diff(np.concatenate(([0.0], np.sort(inner), [count + 1]))).max())


def _samples_at(times: Table, counts: Table, deltas: Table, side: Side) -> Table:
    """Return how many samples begin before some times (left), or up to and with them (right)."""
    knots = np.concatenate(([0.0], np.cumsum(counts * deltas)))
    passed = np.concatenate(([0.0], np.cumsum(counts)))
    run = np.clip(np.searchsorted(knots, times, side) - 1, 0, len(counts) - 1)
    within = (times - knots[run]) / np.maximum(deltas, 1)[run]
    if side == "left":
        within = np.floor(within)
    else:  # samples of no length are all passed at once
        within = np.where(deltas[run] > 0, np.ceil(within) + 1, np.inf)
    found: Table = passed[run] + np.clip(within, 0, counts[run])
    return found


class IndexLimit:
    """Counts the entries of an index; OSError where there are too many."""

    def __init__(self) -> None:
        self._boxes = self._outer_boxes = self._tracks = self._table_bytes = 0
        self._movie_scale = 0
        self._entries = 0.0
        self._track = _Track()

    def check_file(self, file: BinaryIO) -> None:
        """Look at the index of an opened file, and at those of its fragments."""
        self._walk(file, 0, file.seek(0, io.SEEK_END), depth=0)

    def _count(self, entries: float, what: str = "") -> None:
        self._entries += entries
        if self._entries > _MOST_ENTRIES:
            raise OSError(
                f"its index would have {self._entries:.0f} entries{what}, and "
                f"{_MOST_ENTRIES} are allowed"
            )

    def _walk(self, file: BinaryIO, start: int, end: int, *, depth: int) -> None:
        place = start
        while place + 8 <= end:
            file.seek(place)
            header = file.read(16)
            size, kind, body = int.from_bytes(header[:4], "big"), header[4:8], place + 8
            if size == 1:
                size, body = int.from_bytes(header[8:], "big"), place + 16
            stop = end if size == 0 else min(place + size, end)
            self._boxes += depth > 0
            self._outer_boxes += depth == 0
            if self._boxes > _MOST_BOXES:
                raise OSError(f"its index has more than {_MOST_BOXES} boxes")
            if self._outer_boxes > _MOST_OUTER_BOXES:
                raise OSError(f"it has more than {_MOST_OUTER_BOXES} boxes; remux it with ffmpeg")
            if stop < body:
                return  # FFmpeg stops here, too
            if kind == b"moof":
                self._fragment(file, body, stop)
            elif kind in _PARENTS and depth < _DEEPEST:
                self._inside(file, kind, body + 4 * (kind == b"meta"), stop, depth)
            else:
                self._read(file, kind, body, stop)
            place = stop

    def _fragment(self, file: BinaryIO, body: int, stop: int) -> None:
        """Count the samples of a fragment, and what FFmpeg keeps for each track of each."""
        file.seek(body)
        data = file.read(self._bounded(stop - body))
        self._table_bytes = 0
        runs = sum(int.from_bytes(found[1], "big") for found in _IN_FRAGMENT.finditer(data))
        self._count(runs + self._tracks, " in fragments")

    def _inside(self, file: BinaryIO, kind: bytes, body: int, stop: int, depth: int) -> None:
        if kind == b"trak":
            self._tracks += 1
            self._track = _Track()
        self._walk(file, body, stop, depth=depth + 1)
        if kind == b"trak":
            track, self._track = self._track, _Track()
            edits = sum(len(durations) for durations, _ in track.edits)
            what = f" for {track.samples} samples and {edits} edits of a track"
            self._count(track.entries(self._movie_scale), what)

    def _read(self, file: BinaryIO, kind: bytes, body: int, stop: int) -> None:
        """Read what a box says, if it is one of those that count."""
        file.seek(body)
        if kind == b"mvhd":
            self._movie_scale = _time_scale(file)
        elif kind in {b"trun", b"senc"}:
            self._count(int.from_bytes(file.read(8)[4:], "big"), f" in {kind.decode()}")
        elif kind == b"keys" and (count := int.from_bytes(file.read(8)[4:], "big")) > _MOST_KEYS:
            raise OSError(f"its metadata has {count} keys, and {_MOST_KEYS} are allowed")
        elif kind == b"stsd":  # in which FFmpeg looks for any box
            if found := _MISPLACED.search(file.read(self._bounded(stop - body))):
                raise OSError(f"its description of samples holds a box {found[0].decode()}")
        elif kind == b"cmvd":
            self._unpacked(file.read(self._bounded(stop - body)))
        elif kind in _TABLES:
            self._track.take_table(kind, self._table(file, body, stop, kind))
        else:
            self._track.read(kind, file)

    def _table(self, file: BinaryIO, body: int, stop: int, kind: bytes) -> npt.NDArray[Any]:
        """Read a box that is a table: version, number of rows, rows; as many as it holds."""
        form = _TABLES[kind]
        head = file.read(8)
        if kind == b"elst" and head[:1] == b"\1":
            form = _LONG_EDITS
        count = int.from_bytes(head[4:], "big")
        rows = min(count, max(0, stop - body - 8) // form.itemsize)
        data = file.read(self._bounded(rows * form.itemsize))
        return np.frombuffer(data[: len(data) // form.itemsize * form.itemsize], form)

    def _bounded(self, size: int) -> int:
        """Return how many bytes to read, where all together are not too many."""
        self._table_bytes += size
        if self._table_bytes > _MOST_TABLE_BYTES:
            raise OSError(f"tables of its index have more than {_MOST_TABLE_BYTES} bytes")
        return size

    def _unpacked(self, data: bytes) -> None:
        """Look at an index that QuickTime compressed."""
        size = int.from_bytes(data[:4], "big")
        if size > _MOST_PACKED:
            raise OSError(
                f"its packed index announces {size} bytes, and {_MOST_PACKED} are allowed"
            )
        try:
            index = zlib.decompressobj().decompress(data[4:], max(size, 1))
        except zlib.error:
            return  # FFmpeg refuses it
        self._walk(io.BytesIO(index), 0, len(index), depth=1)


def _time_scale(file: BinaryIO) -> int:
    data = file.read(24)
    at = 20 if data[:1] == b"\1" else 12
    return int.from_bytes(data[at : at + 4], "big")
