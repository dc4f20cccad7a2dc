"""Small files that would take gigabytes: kept frames, and edit lists of a million entries."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
import time
import zlib
from pathlib import Path

import av
import numpy as np
import pytest

from motorvae.runtime.core.errors import SourceError
from motorvae.runtime.core.frame import Frame
from motorvae.runtime.sources.base import CaptureRequest, Gap
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.announcement import EditLists
from motorvae.runtime.sources.video.source import VideoSource


def encoded(
    codec: str, container: str, size: tuple[int, int] = (640, 480), count: int = 20, **options: str
) -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(count):
            image = np.full((size[1], size[0], 3), 5 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        out.mux(stream.encode(None))
    return target.getvalue()


def h264(references: int, container: str = "mp4", size: tuple[int, int] = (640, 480)) -> bytes:
    return encoded(
        "libx264", container, size, preset="ultrafast", bf="0", refs=str(references), tune="film"
    )


def items(path: Path, data: bytes, megapixels: float) -> list[Frame | Gap]:
    path.write_bytes(data)
    request = CaptureRequest(max_picture=megapixels)
    with VideoSource(SourceSpec("video", str(path), "clip"), request) as source:
        return list(iter(source.read, None))


def test_the_frames_that_h264_keeps_count(tmp_path: Path) -> None:
    """16 frames of 640 x 480 and two at work are 8.3 MB, one and two are 1.4; 4 are allowed."""
    few = items(tmp_path / "few.mp4", h264(1), 1.0)
    assert [type(item) for item in few] == 20 * [Frame]
    with pytest.raises(SourceError, match=r"640 x 480 .* takes 8 MB .* 4 are .*--max-picture 3"):
        items(tmp_path / "many.mp4", h264(16), 1.0)
    assert len(items(tmp_path / "many.mp4", h264(16), 3.0)) == 20


@pytest.mark.parametrize(
    ("codec", "container", "kept"),
    [("libx265", "mp4", 16), ("libvpx-vp9", "webm", 10), ("mpeg4", "avi", 4)],
)
def test_other_codecs_count_what_they_may_keep(
    tmp_path: Path, codec: str, container: str, kept: int
) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    data = encoded(codec, container, count=3, **options)
    enough = kept * 1.5 * 640 * 480 / 4e6
    assert len(items(tmp_path / "clip", data, enough + 0.01)) == 3
    with pytest.raises(SourceError, match=r"takes . MB to decode"):
        items(tmp_path / "clip", data, enough - 0.01)


def test_a_video_that_becomes_too_large_is_lost_from_there(tmp_path: Path) -> None:
    data = h264(1, "mpegts", (320, 240)) + h264(16, "mpegts", (1280, 960))
    found = items(tmp_path / "grows.ts", data, 1.0)
    assert [type(item) for item in found] == 20 * [Frame] + 20 * [Gap]


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def edited(count: int) -> bytes:
    """An MP4 whose edit list shows all of it again and again."""
    data = encoded("mpeg4", "mp4")
    whole = struct.pack(">IiI", 800, 0, 1 << 16)
    edits = box(b"edts", box(b"elst", struct.pack(">II", 0, count) + count * whole))
    moov, trak, mdia = (data.index(kind) - 4 for kind in (b"moov", b"trak", b"mdia"))
    earlier = data.find(b"edts", trak, mdia) - 4
    before, behind = data[: earlier if earlier > 0 else mdia], data[mdia:]
    grown = len(before) + len(edits) + len(behind) - len(data)
    changed = bytearray(before + edits + behind)
    for place in (moov, trak):
        size = int.from_bytes(data[place : place + 4], "big")
        changed[place : place + 4] = struct.pack(">I", size + grown)
    return bytes(changed)


MOST = 1_100_000  # entries, of 20 samples


def test_a_few_edits_are_usual(tmp_path: Path) -> None:
    assert len(items(tmp_path / "clip.mp4", edited(3), 200)) >= 20


def test_an_edit_list_without_relation_to_its_file_is_refused_at_once(tmp_path: Path) -> None:
    started_s = time.process_time()
    with pytest.raises(SourceError, match=r"an edit list of 1100000 entries for 20 samples"):
        items(tmp_path / "clip.mp4", edited(MOST), 200)
    assert time.process_time() - started_s < 10  # FFmpeg takes minutes


def test_so_it_is_through_a_pipe(tmp_path: Path) -> None:
    data, path = edited(MOST), tmp_path / "clip.mp4"
    moov = data.index(b"moov") - 4
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe, contextlib.suppress(BrokenPipeError):
            pipe.write(data[:28] + data[moov:])  # the index first

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    with pytest.raises(SourceError, match="an edit list of"):
        VideoSource(SourceSpec("pipe", str(path), "clip"))
    writer.join()


def looked_at(*parts: bytes) -> None:
    lists = EditLists()
    for part in parts:
        lists.check(part)


def test_no_cut_hides_an_edit_list_and_none_counts_twice() -> None:
    elst = box(b"elst", struct.pack(">II", 0, 1000) + bytes(12_000))
    stsz = box(b"stsz", struct.pack(">III", 0, 0, 20_001) + bytes(8))
    track = box(b"tkhd", bytes(8)) + elst + stsz
    for place in range(0, len(track), 1 if len(track) < 1000 else 7):
        with pytest.raises(OSError, match="an edit list"):
            looked_at(track[:place], track[place:])
    fair = track.replace(struct.pack(">I", 20_001), struct.pack(">I", 10_001))
    for place in (*range(60), *range(len(fair) - 60, len(fair))):
        looked_at(fair[:place], fair[place:])


def test_each_track_counts_by_itself_and_all_together() -> None:
    def track(edits: int, samples: int) -> bytes:
        elst = box(b"elst", struct.pack(">II", 0, edits) + 12 * edits * b"\0")
        return box(b"tkhd", bytes(8)) + elst + box(b"stsz", struct.pack(">III", 0, 0, samples))

    looked_at(track(16, 1 << 30), track(1000, 1000), track(1, 1 << 31))
    with pytest.raises(OSError, match="an edit list"):
        looked_at(*(25 * [track(100, 10_000)]))


def test_a_packed_index_is_unpacked() -> None:
    elst = box(b"elst", struct.pack(">II", 0, 30_000) + bytes(360_000))
    index = box(b"trak", elst + box(b"stsz", struct.pack(">III", 0, 0, 30_000)))
    packed = box(b"cmvd", struct.pack(">I", len(index)) + zlib.compress(index))
    with pytest.raises(OSError, match="an edit list of 30000 entries"):
        looked_at(box(b"moov", box(b"cmov", box(b"dcom", b"zlib") + packed)))
    looked_at(packed[:-20] + b"no end")
