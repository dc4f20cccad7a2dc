"""Indices of MP4 and MOV that would take gigabytes, and those of long and edited recordings."""

from __future__ import annotations

import io
import struct
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
from motorvae.runtime.sources.video.containers import mp4_index
from motorvae.runtime.sources.video.containers.mp4_index import IndexLimit
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
    more: bytes = b"",
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
            box(b"minf", box(b"stbl", *table, more)),
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
    "tracks together": lambda: movie(*[track((0, 0), (0, 0), samples=1_000_000)] * 10),
    "a fragment": lambda: box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 1, 1 << 30)))),
    "encrypted": lambda: movie(box(b"trak", box(b"senc", struct.pack(">II", 0, 1 << 28)))),
    "PCM in large chunks": lambda: movie(
        track(
            samples=20_000_000,
            kind=b"soun",
            more=box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1 << 24, 1)),
        )
    ),
    "a run outside": lambda: box(b"trun", struct.pack(">II", 0x0F000001, 1 << 30)),
    "tracks by fragments": lambda: movie(*[track(samples=0)] * 900) + 30_000 * box(b"moof"),
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


def test_a_recording_of_a_frame_a_fragment_is_fair() -> None:
    run = box(b"traf", box(b"trun", struct.pack(">II", 1, 1), bytes(12)))
    check(movie(track(samples=0), track(samples=0)) + 500_000 * box(b"moof", run))


OTHER_BOMBS = {
    "a description": (
        lambda: box(b"stsd", bytes(30), 300_000 * b"elst"),
        "its description of samples holds a box elst",
    ),
    "edit lists": (
        lambda: 9 * box(b"elst", struct.pack(">II", 0, 700_000), bytes(8_400_000)),
        "tables of its index have more than 67108864 bytes",
    ),
    "boxes": (lambda: 60_000 * box(b"free"), "its index has more than 50000 boxes"),
    "keys": (lambda: box(b"meta", bytes(4), box(b"keys", bytes(4), b"\1" * 4)), "keys, and 10000"),
}


@pytest.mark.parametrize("what", OTHER_BOMBS)
def test_the_look_itself_takes_little(what: str) -> None:
    bomb, words = OTHER_BOMBS[what]
    started_s = time.process_time()
    with pytest.raises(OSError, match=words):
        check(movie(box(b"trak", bomb())))
    assert time.process_time() - started_s < 5


def test_an_index_behind_pictures_that_are_gone_is_named(server: Any, tmp_path: Path) -> None:
    data = recorded()
    start = data.index(b"moov") - 4
    data = data[:start] + box(b"free", bytes(1 << 20)) + data[start:]
    assert [type(item) for item in items(tmp_path / "clip.mp4", data)] == [Frame] * COUNT
    url = server.put("/clip.mp4", data)
    with VideoSource(SourceSpec("url", url, "clip")) as source:
        (gap,) = iter(source.read, None)
    assert isinstance(gap, Gap)
    assert gap.reason.startswith("reading failed: its index seems to come after its pictures")


def test_boxes_without_end_are_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred megabytes hold 12 million of them."""
    monkeypatch.setattr(mp4_index, "_MOST_OUTER_BOXES", 10_000)
    check(9_000 * box(b"free"))
    with pytest.raises(OSError, match="it has more than 10000 boxes; remux it"):
        check(11_000 * box(b"free"))
