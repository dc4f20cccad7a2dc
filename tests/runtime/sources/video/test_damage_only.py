"""Live streams of which no frame is whole, by servers that send them for ever."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import pytest

from motorvae.benchmarks.under_test.stream_process import MjpegCamera
from motorvae.runtime.core.errors import CameraError
from motorvae.runtime.core.frame import Frame, Gap
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.source import VideoSource

TS_PACKET, VIDEO_PID = 188, 256
FPS = 25


@contextlib.contextmanager
def served(chunks: Sequence[bytes], period_s: float) -> Iterator[str]:
    """Serve chunks of a stream over HTTP, again and again and without an end."""
    closed = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            with contextlib.suppress(OSError):
                for chunk in itertools.cycle(chunks):
                    if closed.wait(period_s):
                        return
                    self.wfile.write(chunk)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            closed.set()
            server.shutdown()


def transport_stream(keys: str) -> bytes:
    """Two seconds of H.264 with a key frame where FFmpeg's expression says so."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("needs the program ffmpeg")
    command = f"-v error -f lavfi -i testsrc=size=64x48:rate={FPS}:duration=2 -c:v libx264"
    options = ["-preset", "ultrafast", "-bf", "0", "-force_key_frames", keys, "-f", "mpegts", "-"]
    return subprocess.run(
        [ffmpeg, *command.split(), *options], capture_output=True, check=True
    ).stdout


def with_slices_spoilt(stream: bytes) -> bytes:
    """Keep packets, units and their headers; what is in the pictures becomes noise."""
    noise = np.random.default_rng(0).integers(0, 256, len(stream), np.uint8).tobytes()
    out = bytearray(stream)
    for start in range(0, len(stream), TS_PACKET):
        if int.from_bytes(stream[start + 1 : start + 3], "big") & 0x1FFF != VIDEO_PID:
            continue
        has_field = stream[start + 3] & 0x20
        body = start + (5 + stream[start + 4] if has_field else 4)
        unit = stream.rfind(b"\0\0\1", body, start + TS_PACKET)
        first = body if unit < 0 else min(unit + 12, start + TS_PACKET)
        out[first : start + TS_PACKET] = noise[first : start + TS_PACKET]
    return bytes(out)


def drain(source: VideoSource) -> None:
    while source.read() is not None:
        pass


def opened(url: str) -> VideoSource:
    return VideoSource(SourceSpec("url", url, "camera"), CaptureRequest(timeout_s=30))


def chunked(stream: bytes) -> list[bytes]:
    size = 7 * TS_PACKET
    return [stream[start : start + size] for start in range(0, len(stream), size)]


def test_each_damaged_jpeg_is_a_gap_before_any_whole_one() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    middle = len(data) // 2
    spoilt = data[:middle] + bytes(60) + data[middle + 60 :]
    with MjpegCamera([spoilt], FPS) as camera, opened(camera.url) as source:
        items = [source.read() for _ in range(10)]
    assert all(isinstance(item, Gap) and item.counts for item in items)
    assert [item.index for item in items if item is not None] == list(range(10))


def test_each_damaged_frame_of_h264_is_a_gap_although_none_is_ever_shown() -> None:
    stream = with_slices_spoilt(transport_stream("expr:eq(mod(n,10),0)"))
    chunks = chunked(stream)
    with served(chunks, 2 / len(chunks)) as url, opened(url) as source:
        items = [source.read() for _ in range(40)]
    counted = [item for item in items if item is not None and not isinstance(item, Frame)]
    assert len(counted) == 40
    assert [item.index for item in counted if item.counts] == list(
        range(sum(item.counts for item in counted))
    )
    assert sum(item.counts for item in counted) >= 35


def test_what_comes_before_the_first_key_frame_does_not_count() -> None:
    """Joined half way, a stream begins with frames that nobody could decode."""
    stream = transport_stream("expr:eq(n,40)")
    chunks = chunked(stream)
    late = chunks[len(chunks) // 3 :]  # without the key frame of the start
    with served(late, 4 / len(late)) as url, opened(url) as source:
        items: list[Frame | Gap | None] = []
        while not items or not isinstance(items[-1], Frame):
            items.append(source.read())
    assert not any(item.counts for item in items if isinstance(item, Gap))
    (first,) = [item for item in items if isinstance(item, Frame)]
    assert first.index == 0


def test_a_stream_of_noise_is_no_silence() -> None:
    """FFmpeg finds no packet in it, and what came cannot be told from nothing."""
    stream = transport_stream("expr:eq(mod(n,10),0)")
    noise = np.random.default_rng(0).integers(0, 256, len(stream), np.uint8).tobytes()
    with served([stream, *chunked(noise * 40)], 0.01) as url:
        source = VideoSource(SourceSpec("url", url, "camera"), CaptureRequest(timeout_s=1))
        with source, pytest.raises(CameraError, match=r"no frame came for 1 s, whole or damaged$"):
            drain(source)
