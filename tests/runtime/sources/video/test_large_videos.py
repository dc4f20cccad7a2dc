"""Small files that would take gigabytes by the frames that their decoders keep."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from motorvae.runtime.core.errors import SourceError
from motorvae.runtime.core.frame import Frame
from motorvae.runtime.sources.base import CaptureRequest, Gap
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.source import VideoSource


def encoded(
    codec: str, container: str, size: tuple[int, int] = (640, 480), count: int = 20, **options: str
) -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
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
    [("libx265", "mp4", 15), ("libvpx-vp9", "webm", 10), ("mpeg4", "avi", 4)],
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


@pytest.mark.parametrize("codec", ["libx264", "mjpeg"])
def test_sizes_that_ffmpeg_rounds_up_are_no_larger(tmp_path: Path, codec: str) -> None:
    """A time-lapse of 24 megapixels: what is above 16.7 is compared with the size at opening."""
    container = "mp4" if codec == "libx264" else "avi"
    data = encoded(codec, container, (6000, 4000), 2, preset="ultrafast", threads="1")
    assert [type(item) for item in items(tmp_path / "clip", data, 200)] == [Frame] * 2


def test_what_is_refused_leaves_nothing_that_runs(tmp_path: Path) -> None:
    (tmp_path / "clip.ts").write_bytes(h264(16, "mpegts"))
    spec = SourceSpec("video", str(tmp_path / "clip.ts"), "clip", is_live=True)
    before = {thread.name for thread in threading.enumerate()}
    for _ in range(3):
        with pytest.raises(SourceError, match="takes 8 MB"):
            VideoSource(spec, CaptureRequest(max_picture=1.0))
    assert {thread.name for thread in threading.enumerate()} == before
