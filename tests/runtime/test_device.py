from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from motorvae.runtime import device
from motorvae.runtime.device import DeviceSource, cameras_found
from motorvae.runtime.errors import CameraError
from motorvae.runtime.frames import Frame

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="device files are Linux's")


def test_opencv_frames_are_stamped_counted_and_end_in_a_loss(
    clips: dict[str, Path], clip_tools: Any, drain: Callable
) -> None:
    """OpenCV reads a file through the same verbs as a camera, and then delivers no more."""
    frames: list[Frame] = []
    source = DeviceSource(str(clips["mjpeg.avi"]), api=cv2.CAP_FFMPEG)
    assert source.live
    assert source.fps == clip_tools.fps
    with pytest.raises(CameraError, match=r"lost camera .* after 24 frames.*check the cable"):
        drain(source, frames)
    assert [frame.index for frame in frames] == list(range(24))
    assert [clip_tools.index(frame.image) for frame in frames] == list(range(24))
    for one, other in itertools.pairwise(frames):
        assert one.grabbed_ns + one.capture_ns <= other.grabbed_ns
        assert one.image is not other.image


@on_linux
@pytest.mark.parametrize("named", [987, "/dev/video987"])
def test_no_such_camera_names_what_was_tried_and_found(named: int | str) -> None:
    with pytest.raises(CameraError) as caught:
        DeviceSource(named)
    text = str(caught.value)
    assert text.startswith(f"cannot open camera {named}: /dev/video987 does not exist; ")
    assert "cameras found: " in text
    assert "use --camera with a file, a URL or synthetic" in text
    assert "\n" not in text


@on_linux
def test_a_device_that_is_no_camera_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CameraError, match="OpenCV tried /dev/null, which did not open"):
        DeviceSource("/dev/null")
    assert capfd.readouterr().err == ""


def test_the_cameras_of_this_machine_are_listed_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in ((0, "Front\n"), (2, None), (10, "Rear\n")):
        node = tmp_path / f"video{number}"
        node.mkdir()
        if name:
            (node / "name").write_text(name)
    monkeypatch.setattr(device, "Path", lambda _: tmp_path)
    assert cameras_found() == [
        "/dev/video0 (Front)",
        "/dev/video2 (name unknown)",
        "/dev/video10 (Rear)",
    ]


@pytest.mark.camera
def test_a_real_camera_delivers_frames() -> None:
    if not Path("/dev/video0").exists():
        pytest.skip("no camera on this machine")
    with DeviceSource(0) as source:
        frames = [source.read() for _ in range(5)]
    assert [frame.index for frame in frames] == list(range(5))
