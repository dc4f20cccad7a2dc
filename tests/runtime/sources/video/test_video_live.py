"""Ages that VideoSource claims, against the clock in the pictures of cameras that keep the pace."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from motorvae.benchmarks.under_test.stream_process import MjpegCamera
from motorvae.runtime.core.errors import SourceError
from motorvae.runtime.core.frame import Frame
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.source import VideoSource

from .live_server import FPS, HEIGHT, row

SERVER = Path(__file__).with_name("live_server.py")
SYSTEM_PYTHON = "/usr/bin/python3"
PROBE = """
import gi
gi.require_version("Gst", "1.0"), gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(map(Gst.ElementFactory.find, ("x264enc", "rtph264pay")))
"""
SLACK_S = 0.5
"""Between taking a picture and sending it, a busy machine may take this long."""


class PicturesOfNow(Sequence[bytes]):
    """JPEGs that are made when they are taken."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: Any) -> Any:
        image = np.tile(np.frombuffer(row(), np.uint8), (HEIGHT, 1))
        return cv2.imencode(".jpg", image)[1].tobytes()


def claimed_and_true(source: VideoSource) -> tuple[float, float]:
    """Read the next frame; return the age that it claims and its true one, in seconds."""
    while not isinstance(item := source.read(), Frame):
        pass
    now_s = time.monotonic()
    fields = item.image[48, :, 0].reshape(16, -1)[:, 20] > 128
    taken_ms = int(np.packbits(fields, bitorder="little").view("<u2")[0])
    return now_s - item.grabbed_ns / 1e9, (int(now_s * 1000) - taken_ms) % (1 << 16) / 1000


@contextlib.contextmanager
def rtsp_camera(*options: str) -> Iterator[str]:
    probe = [SYSTEM_PYTHON, "-c", PROBE]
    if (
        not Path(SYSTEM_PYTHON).exists()
        or subprocess.run(probe, capture_output=True, timeout=120, check=False).returncode
    ):
        pytest.skip("needs gir1.2-gst-rtsp-server-1.0, python3-gi and GStreamer's plugins")
    with subprocess.Popen(
        [SYSTEM_PYTHON, SERVER, *options], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield f"rtsp://127.0.0.1:{int(server.stdout.readline())}/camera"
        finally:
            server.kill()


@pytest.fixture(params=["http", "rtsp"])
def camera(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "rtsp":
        with rtsp_camera() as url:
            yield url
    else:
        with MjpegCamera(PicturesOfNow(), FPS) as server:
            yield server.url


def opened(camera: str) -> VideoSource:
    return VideoSource(SourceSpec("url", camera, "camera"), CaptureRequest(timeout_s=60))


def test_no_frame_claims_to_be_younger_than_it_is(camera: str) -> None:
    """Those that came while FFmpeg looked at the stream are handed over at once."""
    with opened(camera) as source:
        assert source.live
        ages = [claimed_and_true(source) for _ in range(50)]
    for claimed_s, true_s in ages:
        assert claimed_s > true_s - SLACK_S
    assert min(claimed_s for claimed_s, _ in ages[-10:]) < 1  # and does not stay old


def test_what_a_camera_sent_before_anybody_read_is_old(camera: str) -> None:
    with opened(camera) as source:
        time.sleep(1.5)  # the reader does something else; nobody waits for anything here
        ages = [claimed_and_true(source) for _ in range(10)]
    assert ages[0][1] > 1.4
    for claimed_s, true_s in ages:
        assert claimed_s > true_s - SLACK_S


def test_a_reader_that_fell_behind_is_told_so(camera: str) -> None:
    """By the camera's own time stamps, or because it did not have to wait for them."""
    with opened(camera) as source:
        for _ in range(40):
            claimed_and_true(source)
        time.sleep(1.5)  # as above
        late = [claimed_and_true(source) for _ in range(10)]
    assert late[0][1] > 1.4
    for claimed_s, true_s in late:
        assert claimed_s > true_s - SLACK_S


def test_rtsp_comes_over_udp_where_it_does_not_over_tcp() -> None:
    request = CaptureRequest(timeout_s=60)
    with rtsp_camera("udp") as url:
        with VideoSource(SourceSpec.parse(url), request) as source:
            assert isinstance(source.read(), Frame)
            source.reopen()
            assert isinstance(source.read(), Frame)
        with VideoSource(SourceSpec.parse(url, transport="udp"), request) as source:
            assert isinstance(source.read(), Frame)
        with pytest.raises(SourceError, match="cannot open"):
            VideoSource(SourceSpec.parse(url, transport="tcp"), request)
