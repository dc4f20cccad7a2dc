from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motorvae.runtime.core.errors import CameraError
from motorvae.runtime.core.frame import NS_PER_MS, Frame, Gap, Mode
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels import camera_formats
from motorvae.runtime.pixels.convert import fitted, luma_from_image
from motorvae.runtime.sources import opencv as device
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.opencv import OLDEST_STAMP_NS, DeviceSource, driver_stamp_ns
from motorvae.runtime.sources.pauses import HEARTBEAT
from motorvae.runtime.sources.spec import SourceSpec

DESCRIPTORS = Path("/proc/self/fd")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="device files are Linux's")


def test_opencv_frames_are_stamped_counted_and_end_in_a_loss(
    clips: dict[str, Path], clip_tools: Any, drain: Callable
) -> None:
    """OpenCV reads a file through the same verbs as a camera, and then delivers no more."""
    frames: list[Frame] = []
    source = DeviceSource(SourceSpec.device(str(clips["mjpeg.avi"])), api=cv2.CAP_FFMPEG)
    assert source.live
    assert source.fps == clip_tools.fps
    with pytest.raises(CameraError, match=r"lost camera .* after 24 frames: it stopped"):
        drain(source, frames)
    assert [frame.index for frame in frames] == list(range(24))
    assert [clip_tools.index(frame.image) for frame in frames] == list(range(24))
    for one, other in itertools.pairwise(frames):
        assert one.grabbed_ns <= other.grabbed_ns
        assert one.image is not other.image


@on_linux
@pytest.mark.parametrize("named", [987, "/dev/video987"])
def test_no_such_camera_names_what_was_tried_and_found(named: int | str) -> None:
    with pytest.raises(CameraError) as caught:
        DeviceSource(SourceSpec.device(named))
    text = str(caught.value)
    assert text.startswith(f"cannot open camera {named}: /dev/video987 does not exist; ")
    assert "cameras found: " in text
    assert "use --camera with a file, a URL or synthetic" in text
    assert "\n" not in text
    watches = HEARTBEAT._listeners
    with pytest.raises(CameraError):
        DeviceSource(SourceSpec.device(named))
    assert HEARTBEAT._listeners == watches


@on_linux
def test_a_device_that_is_no_camera_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CameraError, match="OpenCV tried /dev/null, which did not open"):
        DeviceSource(SourceSpec.device("/dev/null"))
    assert capfd.readouterr().err == ""


@on_linux
def test_the_stable_name_is_what_is_opened_and_told(tmp_path: Path) -> None:
    """A link to /dev/null stands for a camera: what is tried is the link."""
    link = tmp_path / "by-id" / "usb-Maker_Front_123-video-index0"
    link.parent.mkdir()
    link.symlink_to("/dev/null")
    with pytest.raises(CameraError) as caught:
        DeviceSource(SourceSpec.device("/dev/null"), links=tmp_path)
    assert str(caught.value).startswith(
        f"cannot open camera /dev/null ({link.name}): OpenCV tried {link}, which did not open; "
    )
    assert caught.value.clause() == f"OpenCV tried {link}, which did not open"
    with pytest.raises(CameraError, match=f"cannot open camera {link}: OpenCV tried"):
        DeviceSource(SourceSpec.device(str(link)), links=tmp_path)


@on_linux
def test_a_device_that_may_not_be_opened_says_how_to_be_let_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device.os, "access", lambda *_: False)  # the tests may run as root
    with pytest.raises(CameraError, match=r"permission denied for /dev/null; add .* group video"):
        DeviceSource(SourceSpec.device("/dev/null"))


def test_a_mode_is_read_back_and_a_refused_camera_is_released(clips: dict[str, Path]) -> None:
    """A clip has the mode it has, whatever is asked for."""
    path, asked = str(clips["mjpeg.avi"]), Mode(1280, 720, 60, "MJPG")
    descriptors = len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0
    with pytest.raises(CameraError) as caught:
        DeviceSource(SourceSpec.device(path), CaptureRequest(asked), api=cv2.CAP_FFMPEG)
    assert str(caught.value) == (
        f"camera {path}: asked for 1280x720 60 fps MJPG, got 96x64 10 fps MJPG; ask for what it "
        "can do (motorvae-doctor cameras), or take it with --accept-mode"
    )
    if descriptors:
        assert len(list(DESCRIPTORS.iterdir())) == descriptors
    with DeviceSource(
        SourceSpec.device(path), CaptureRequest(asked, accept_mode=True), api=cv2.CAP_FFMPEG
    ) as source:
        assert source.mode == Mode(96, 64, 10.0, "MJPG")
    DeviceSource(
        SourceSpec.device(path), CaptureRequest(Mode(fps=10.1)), api=cv2.CAP_FFMPEG
    ).close()


def test_a_camera_that_was_lost_is_opened_again_and_counted_on(
    clips: dict[str, Path], clip_tools: Any, drain: Callable
) -> None:
    source = DeviceSource(SourceSpec.device(str(clips["mjpeg.avi"])), api=cv2.CAP_FFMPEG)
    assert source.can_reconnect
    read: list[Frame] = []
    for _ in range(2):
        with pytest.raises(CameraError):
            drain(source, read)
        source.close()
        source.close()
        assert source.read() is None
        source.reopen()
    source.close()
    assert [clip_tools.index(frame.image) for frame in read] == [*range(24), *range(24)]
    assert [frame.index for frame in read] == list(range(48))


def test_a_frame_that_lay_there_is_no_younger_than_the_one_before(clips: dict[str, Path]) -> None:
    """The next frame of a clip is there at once, whenever it is asked for."""
    with DeviceSource(SourceSpec.device(str(clips["mjpeg.avi"])), api=cv2.CAP_FFMPEG) as source:
        source._capture = Instant(source._capture)
        opened_ns = time.monotonic_ns()
        first = source.read()
        taken_ns = time.monotonic_ns()
        second = source.read()
        assert first.grabbed_ns <= opened_ns
        assert second.grabbed_ns <= taken_ns
        assert second.grabbed_ns + second.capture_ns >= taken_ns
        age_ns = time.monotonic_ns() - second.grabbed_ns
        assert abs(time.time_ns() - second.captured_ns - age_ns) < 1e9
        assert second.clock == "host"


def test_raw_frames_become_luma_and_what_is_no_such_frame_is_converted_from_then_on(
    clips: dict[str, Path], clip_tools: Any
) -> None:
    """No camera is here: a clip stands for one, and hands over raw what a test gives it."""
    spec = ModelSpec(image_size=32, channels=(8, 8), latent_size=4)
    path = str(clips["mjpeg.avi"])
    with DeviceSource(
        SourceSpec.device(path), CaptureRequest(spec=spec), api=cv2.CAP_FFMPEG
    ) as source:
        assert not source._is_raw  # only V4L2 hands over what it has
        assert source.read().image.shape == (64, 96, 3)
        jpeg = cv2.imencode(".jpg", clip_tools.image(3))[1].reshape(1, -1)
        raw = [jpeg, jpeg[:, : jpeg.size // 2], np.zeros((64, 96, 3), np.uint8)]
        source._is_raw = True
        source._capture = Raw(source._capture, raw)
        frame = source.read()
        assert frame.image.shape == (32, 32)
        assert frame.convert_ns > 0
        expected = fitted(luma_from_image(clip_tools.image(3)), spec)
        assert np.abs(frame.image.astype(int) - expected).mean() < 2
        cut = source.read()
        assert isinstance(cut, Gap)
        assert cut.reason.startswith("frame does not decode: ")
        other = source.read()
        assert isinstance(other, Gap)
        assert other.reason == "frame of shape (64, 96, 3) is no 96x64 10 fps MJPG"
        after = source.read()
        assert after.image.shape == (64, 96, 3)
        assert after.index == 4


def test_a_large_jpeg_of_a_camera_is_decoded_on_two_cores(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    halved: list[int] = []
    in_halves = camera_formats.grey_in_halves

    def noted(data: bytes, *others: Any) -> Any:
        halved.append(len(data))
        return in_halves(data, *others)

    monkeypatch.setattr(camera_formats, "grey_in_halves", noted)
    random = np.random.default_rng(0)
    options = (cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_RST_INTERVAL, 80)
    picture = cv2.imencode(".jpg", random.integers(0, 99, (720, 1280), np.uint8), options)[1]
    spec, path = ModelSpec(image_size=32, channels=(8, 8), latent_size=4), str(clips["mjpeg.avi"])
    expected = camera_formats.fitted_from_jpeg(picture.tobytes(), spec)
    for cores, first in ((1, True), (2, False), (2, True)):
        monkeypatch.setattr(device, "runs_first", lambda first=first: first)
        asked = CaptureRequest(spec=spec, cores=cores)
        with DeviceSource(SourceSpec.device(path), asked, api=cv2.CAP_FFMPEG) as source:
            source._is_raw = True
            source._capture = Raw(source._capture, [picture.reshape(1, -1)])
            assert np.array_equal(source.read().image, expected)
    assert halved == [picture.size]


class Raw:
    """Hands over what a test gives it, in place of what was decoded."""

    def __init__(self, capture: cv2.VideoCapture, raw: list[Any]) -> None:
        self._capture, self._raw = capture, iter(raw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._capture, name)

    def retrieve(self) -> tuple[bool, Any]:
        return True, next(self._raw)


class Instant:
    """Grabs before it is asked to, as a driver that fills a queue does."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        self._grabbed = capture.grab()
        self._image = capture.retrieve()

    def grab(self) -> bool:
        return self._grabbed

    def retrieve(self) -> Any:
        image = self._image
        self._grabbed = self._capture.grab()
        self._image = self._capture.retrieve()
        return image

    def release(self) -> None:
        self._capture.release()


@pytest.mark.camera
def test_a_real_camera_delivers_frames() -> None:
    if not Path("/dev/video0").exists():
        pytest.skip("no camera on this machine")
    with DeviceSource(SourceSpec.device(0)) as source:
        frames = [source.read() for _ in range(5)]
    assert [frame.index for frame in frames] == list(range(5))


@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=True, allow_infinity=True),
            st.integers(0, 10**18),
        ),
        max_size=20,
    )
)
def test_a_driver_is_only_believed_where_it_can_be_right(calls: list[tuple[float, int]]) -> None:
    taken = [0]
    for stamp_ms, now_ns in calls:
        stamp_ns = driver_stamp_ns(stamp_ms, now_ns, taken[-1])
        if stamp_ns is not None:
            assert 0 <= now_ns - stamp_ns <= OLDEST_STAMP_NS
            assert stamp_ns == pytest.approx(stamp_ms * NS_PER_MS, abs=1)
            assert stamp_ns > taken[-1]
            taken.append(stamp_ns)


@given(st.integers(1, 10**17), st.integers(0, OLDEST_STAMP_NS - int(NS_PER_MS)))
def test_a_plausible_stamp_is_taken_once(stamp_ns: int, age_ns: int) -> None:
    stamp_ms, now_ns = stamp_ns / NS_PER_MS, stamp_ns + age_ns + 1000
    taken = driver_stamp_ns(stamp_ms, now_ns, 0)
    assert taken == pytest.approx(stamp_ns, abs=1000)
    assert driver_stamp_ns(stamp_ms, now_ns, taken or 0) is None  # it does not move


@pytest.mark.parametrize("stamp_ms", [0.0, -1.0, math.nan, math.inf, 1.8e12, 40.0])
def test_no_stamp_another_clock_and_a_position_in_a_film_are_not_taken(stamp_ms: float) -> None:
    assert driver_stamp_ns(stamp_ms, 3600 * 10**9, 0) is None
