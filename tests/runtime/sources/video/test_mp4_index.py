"""Indices of MP4 and MOV that would take gigabytes, and those of long and edited recordings."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from motorvae.runtime.core.errors import SourceError
from motorvae.runtime.core.frame import Frame, Gap
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.containers.mp4_index import IndexLimit, IndexWatch
from motorvae.runtime.sources.video.source import VideoSource

COUNT = 20


def recorded(*, fragments: bool = False) -> bytes:
    """An MP4 of 20 frames in 0.8 s, its index at the end."""
    target = io.BytesIO()
    options = {"movflags": "frag_keyframe+empty_moov"} if fragments else {}
    with av.open(target, "w", format="mp4", options=options) as out:
        stream = out.add_stream("mpeg4", rate=25, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(COUNT):
            image = np.full((48, 64, 3), 10 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        out.mux(stream.encode(None))
    return target.getvalue()


def box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


def edit_list(*entries: tuple[int, int]) -> bytes:
    """Durations, in the movie's time, and starts, in the track's."""
    rows = b"".join(struct.pack(">IiI", *entry, 1 << 16) for entry in entries)
    return box(b"edts", box(b"elst", struct.pack(">II", 0, len(entries)), rows))


def edited(count: int) -> bytes:
    """An MP4 whose edit list shows all of it again and again."""
    data = recorded()
    edits = edit_list(*[(800, 0)] * count)
    moov, trak, mdia = (data.index(kind) - 4 for kind in (b"moov", b"trak", b"mdia"))
    earlier = data.find(b"edts", trak, mdia) - 4
    before, behind = data[: earlier if earlier > 0 else mdia], data[mdia:]
    changed = bytearray(before + edits + behind)
    for place in (moov, trak):
        size = int.from_bytes(data[place : place + 4], "big") + len(changed) - len(data)
        changed[place : place + 4] = struct.pack(">I", size)
    return bytes(changed)


def items(path: Path, data: bytes) -> list[Frame | Gap]:
    path.write_bytes(data)
    with VideoSource(SourceSpec("video", str(path), "clip"), CaptureRequest()) as source:
        return list(iter(source.read, None))


MANY = edited(1_100_000)
REFUSED = r"its index would have 22000020 entries for 20 samples and 1100000 edits of a track"


def test_a_few_edits_are_usual(tmp_path: Path) -> None:
    assert len(items(tmp_path / "clip.mp4", edited(3))) >= COUNT


def test_an_edit_list_without_relation_to_its_file_is_refused_at_once(tmp_path: Path) -> None:
    started_s = time.process_time()
    with pytest.raises(SourceError, match=REFUSED):
        items(tmp_path / "clip.mp4", MANY)
    assert time.process_time() - started_s < 10  # FFmpeg takes minutes


@pytest.mark.parametrize("piece", [7, 4096, 1 << 30])
def test_so_it_is_through_a_pipe(tmp_path: Path, piece: int) -> None:
    path, moov = tmp_path / "clip.mp4", MANY.index(b"moov") - 4
    data = MANY[:28] + MANY[moov:]  # the index first
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe, contextlib.suppress(BrokenPipeError):
            for start in range(0, 4 * piece if piece < 4096 else len(data), piece):
                pipe.write(data[start : start + piece])
            pipe.write(data[4 * piece :] if piece < 4096 else b"")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    with pytest.raises(SourceError, match=REFUSED):
        VideoSource(SourceSpec("pipe", str(path), "clip"))


@pytest.mark.parametrize("address", ["/clip.mp4", "/chunked.mp4"])
def test_so_it_is_over_http(server: Any, address: str) -> None:
    url = server.put(address, MANY)
    with pytest.raises(SourceError, match=REFUSED):
        VideoSource(SourceSpec("url", url, "clip", is_live=False))


@pytest.mark.parametrize("fragments", [False, True])
def test_a_recording_is_read_over_http_as_its_file(
    server: Any, tmp_path: Path, fragments: bool
) -> None:
    data = recorded(fragments=fragments)
    url = server.put("/clip.mp4", data)
    with VideoSource(SourceSpec("url", url, "clip")) as source:
        sent = list(iter(source.read, None))
    filed = items(tmp_path / "clip.mp4", data)
    assert [type(item) for item in filed] == [Frame] * COUNT
    for ours, theirs in zip(sent, filed, strict=True):
        assert isinstance(ours, Frame)
        assert isinstance(theirs, Frame)
        assert np.array_equal(ours.image, theirs.image)


def track(
    *edits: tuple[int, int],
    samples: int,
    every: int = 1,
    kind: bytes = b"vide",
    keys: tuple[int, ...] | None = None,
    sizes: bytes = b"stsz",
) -> bytes:
    """Samples of `every` ticks of a thousandth of a second; edits in the same unit."""
    table = [
        box(b"stts", struct.pack(">IIII", 0, 1, samples, every)),
        box(sizes, struct.pack(">III", 0, 0, samples)),
        box(b"stco", struct.pack(">II", 0, samples // 1000)),
    ]
    if keys is not None:
        table.append(box(b"stss", struct.pack(f">II{len(keys)}I", 0, len(keys), *keys)))
    return box(
        b"trak",
        edit_list(*edits),
        box(
            b"mdia",
            box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, 1000, samples * every, 0)),
            box(b"hdlr", bytes(8), kind, bytes(12)),
            box(b"minf", box(b"stbl", *table)),
        ),
    )


def movie(*tracks: bytes) -> bytes:
    return box(b"moov", box(b"mvhd", struct.pack(">IIIIII", 0, 0, 0, 1000, 0, 0)), *tracks)


def check(data: bytes) -> None:
    IndexLimit().check_file(io.BytesIO(data))


HOUR = 3_600_000
CUTS = [(HOUR // 100, HOUR // 100 * number) for number in range(100)]
KEYS = tuple(range(1, 108_000, 250))
FAIR = {
    "an hour of 100 cuts": lambda: movie(track(*CUTS, samples=108_000, every=33, keys=KEYS)),
    "PCM of 100 cuts": lambda: movie(track(*CUTS, samples=172_800_000, kind=b"soun")),
    "ten hours": lambda: movie(track((10 * HOUR, 0), samples=2_160_000, every=16, keys=(1,))),
    "many tracks": lambda: movie(*[track((HOUR, 0), samples=100_000, every=36)] * 30),
    "empty edits": lambda: movie(track(*[(9, -1)] * 1000, samples=100_000, every=36)),
    "nothing in it": lambda: movie(box(b"trak", box(b"mdia"), edit_list((1, 1)))),
}
BOMBS: dict[str, Callable[[], bytes]] = {
    "all again": lambda: movie(track(*[(HOUR, 0)] * 300, samples=100_000, every=36)),
    "to the end": lambda: movie(track(*[(0, 0)] * 300, samples=100_000, every=36)),
    "from one key frame": lambda: movie(
        track(*[(40, HOUR - 40)] * 300, samples=100_000, every=36, keys=(1,))
    ),
    "other sizes": lambda: movie(track(*[(0, 0)] * 300, samples=100_000, every=36, sizes=b"stz2")),
    "few edits": lambda: movie(track(*[(0, 0)] * 4, samples=8_000_000)),
    "samples alone": lambda: movie(track((1, 0), samples=60_000_000)),
    "many in a tick": lambda: movie(track(*[(1, 0)] * 300, samples=100_000, every=0)),
    "two tables": lambda: movie(
        track(*[(36, 0)] * 300, samples=100_000, every=36).replace(b"stco", b"stts")
    ),
    "in a description": lambda: movie(
        box(b"trak", box(b"stsd", bytes(30), box(b"stsz", struct.pack(">III", 0, 0, 1 << 30))))
    ),
    "tracks together": lambda: movie(*[track((0, 0), (0, 0), samples=1_000_000)] * 10),
    "a fragment": lambda: box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 1, 1 << 30)))),
    "many fragments": lambda: (
        30 * box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 1, 1_000_000))))
    ),
}


@pytest.mark.parametrize("what", FAIR)
def test_what_recorders_and_editors_write_is_fair(what: str) -> None:
    check(FAIR[what]())


@pytest.mark.parametrize("what", BOMBS)
def test_what_would_fill_memory_is_refused(what: str) -> None:
    for data in (BOMBS[what](), box(b"\xff\xfe\1\2", b"unknown") + BOMBS[what]()):
        with pytest.raises(OSError, match=r"its index would have \d+ entries.* are allowed"):
            check(data)


def test_a_packed_index_is_unpacked() -> None:
    index = BOMBS["all again"]()
    packed = box(b"cmvd", struct.pack(">I", len(index)) + zlib.compress(index))
    wrapped = box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), packed))
    with pytest.raises(OSError, match="300 edits"):
        check(wrapped)
    check(box(b"moov", box(b"cmov", packed[:-20])))
    with pytest.raises(OSError, match="its packed index announces 2147483648 bytes"):
        check(
            wrapped.replace(struct.pack(">I", len(index)) + b"x", struct.pack(">I", 1 << 31) + b"x")
        )


def test_room_in_an_index_is_not_read(tmp_path: Path) -> None:
    """FFmpeg goes over it, too."""
    path, size = tmp_path / "a.mp4", 900 << 20
    with path.open("wb") as file:
        file.write(struct.pack(">I4sI4s", size + 16, b"moov", size + 8, b"free"))
        file.truncate(size + 16)
    started_s = time.process_time()
    with path.open("rb") as file:
        IndexLimit().check_file(file)
    assert time.process_time() - started_s < 1


def watched(*parts: bytes) -> bytes:
    rest = list(parts)
    watch, found = IndexWatch(), b""
    while rest:
        found += watch.look(rest.pop(0), lambda _: rest.pop(0) if rest else b"")
    return found


def test_no_cut_of_a_stream_hides_an_index_and_none_changes_it() -> None:
    start, fair, bomb = (
        box(b"ftyp", bytes(12)),
        FAIR["an hour of 100 cuts"](),
        BOMBS["to the end"](),
    )
    for place in (*range(len(start) - 3, len(start) + 40), len(start) + 500):
        for rest in (fair, bomb):
            data = start + rest + b"what follows"
            pieces = data[:place], data[place : place + 5], data[place + 5 :]
            if rest is bomb:
                with pytest.raises(OSError, match="300 edits"):
                    watched(*pieces)
            else:
                assert watched(*pieces) == data
    with pytest.raises(OSError, match="300 edits"):
        watched(*(bytes([byte]) for byte in start + bomb))
    with pytest.raises(OSError, match="its index has 4026531840 bytes"):
        watched(struct.pack(">I4sI4s", 0xF0000000, b"moov", 108, b"mvhd"))


def test_fragments_of_a_stream_count_together_and_once() -> None:
    run = box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 1, 1_000_000), bytes(30))))
    index = movie(track(samples=0))
    for place in range(len(run)):
        watched(index, *(20 * [run[:place], run[place:]]))
        with pytest.raises(OSError, match="its index would have 21000000 entries"):
            watched(index, *(21 * [run[:place], run[place:]]))
    watched(*(30 * [run]))  # no MP4
