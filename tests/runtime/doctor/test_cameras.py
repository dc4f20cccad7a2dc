from __future__ import annotations

import io
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from rich.console import Console

from motorvae.runtime.core.frame import Mode
from motorvae.runtime.doctor import cameras as doctor_cameras
from motorvae.runtime.doctor.cameras import candidates, examine_cameras, measure, row_of
from motorvae.runtime.sources.device_names import Camera
from motorvae.runtime.sources.open import open_source
from motorvae.runtime.sources.opencv import DeviceSource
from motorvae.runtime.sources.spec import SourceSpec


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w", format="avi") as output:
        stream = output.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for _ in range(12):
            image = np.full((64, 96, 3), 90, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        output.mux(stream.encode())
    return path


def examined(seconds: float = 0.1) -> tuple[int, str]:
    text = io.StringIO()
    console = Console(file=text, width=300, highlight=False, markup=False, emoji=False)
    return examine_cameras(console, seconds=seconds), text.getvalue()


def test_a_rate_is_measured() -> None:
    with open_source("synthetic?fps=100&size=32&loop=1") as source:
        measured = measure(source, 0.3)
    assert measured.failed == 0
    assert measured.fps is not None
    assert 0 < measured.fps < 110
    assert measured.first_ms is not None
    assert measured.trouble is None


def test_damage_is_counted() -> None:
    """Without a rate: a live source leaves out frames where it is read too late."""
    with open_source("synthetic?fps=max&size=32&frames=12&damage=3..4") as source:
        measured = measure(source, 60)
    assert (measured.frames, measured.failed, measured.trouble) == (10, 2, "it ended")


def test_a_camera_that_stops_is_reported_with_its_cause(clip: Path) -> None:
    """OpenCV reads a clip through the verbs of a camera, and then delivers no more."""
    with DeviceSource(SourceSpec.device(str(clip)), api=cv2.CAP_FFMPEG) as source:
        mode, measured = source.mode, measure(source, 60)
    assert measured.frames == 12
    assert measured.trouble == "it stopped"
    assert row_of(mode, measured)[:3] == ("96x64", "MJPG", "10")
    assert row_of(mode, measured)[-1] == "it stopped"


def test_a_source_that_only_fails_ends() -> None:
    with open_source("synthetic?fps=max&size=32&frames=50&damage=0..49") as source:
        measured = measure(source, 1)
    assert (measured.frames, measured.failed, measured.trouble) == (0, 50, "it ended")
    assert measured.fps is measured.first_ms is None
    assert row_of(Mode(), measured)[3:5] == ("-", "-")


def test_each_mode_is_asked_for_once() -> None:
    modes = list(candidates())
    assert len(modes) == len(set(modes)) == 12
    assert Mode(1280, 720, 60.0, "MJPG") in modes


def test_no_camera_is_one_line_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_cameras, "cameras", list)
    code, text = examined()
    assert code == 1
    assert text.startswith("no camera found: plug one in")
    assert text.count("\n") == 1


def test_what_is_no_camera_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    null = Camera(Path("/dev/null"), "Nothing", None)
    monkeypatch.setattr(doctor_cameras, "cameras", lambda: [null])
    code, text = examined()
    assert code == 1
    assert text == "/dev/null (Nothing): OpenCV tried /dev/null, which did not open\n"


def test_a_device_that_may_not_be_opened_is_told_with_the_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device = tmp_path / "video0"
    device.touch()
    monkeypatch.setattr(doctor_cameras, "cameras", lambda: [Camera(device, "Front", None)])
    monkeypatch.setattr(doctor_cameras.os, "access", lambda *_: False)  # the tests may run as root
    code, text = examined()
    assert code == 1
    assert "permission denied" in text
    assert "sudo usermod -aG video $USER" in text


@pytest.mark.camera
def test_a_real_camera_has_a_mode() -> None:
    if not Path("/dev/video0").exists():
        pytest.skip("no camera on this machine")
    code, text = examined(0.5)
    assert code == 0
    assert "fps measured" in text
