from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from motorvae.runtime.camera import (
    FolderSource,
    SyntheticSource,
    open_source,
    without_credentials,
)
from motorvae.runtime.errors import CameraError, SourceError
from motorvae.runtime.frames import Frame, Gap
from motorvae.runtime.vehicles import MovingVehicles
from motorvae.runtime.video import VideoSource


def test_a_folder_gives_its_images_in_natural_order(
    image_folder: Path, drain: Callable, clip_tools: Any
) -> None:
    source = open_source(str(image_folder))
    assert isinstance(source, FolderSource)
    assert source.expected == 12
    assert not source.live
    items = drain(source)
    assert [item.name for item in items] == [f"frame{index}.png" for index in range(12)]
    assert [clip_tools.index(item.image) for item in items] == list(range(12))
    assert [item.index for item in items] == list(range(12))


def test_a_bad_image_is_a_gap_and_the_others_follow(
    image_folder: Path, tmp_path: Path, drain: Callable
) -> None:
    (tmp_path / "0.png").write_bytes((image_folder / "frame0.png").read_bytes())
    (tmp_path / "1.png").write_bytes(b"not a picture")
    (tmp_path / "2.png").write_bytes((image_folder / "frame2.png").read_bytes())
    first, bad, last = drain(open_source(str(tmp_path)))
    assert isinstance(first, Frame)
    assert isinstance(bad, Gap)
    assert (bad.index, bad.name) == (1, "1.png")
    assert "cannot decode" in bad.reason
    assert isinstance(last, Frame)
    assert last.index == 2


def test_one_image_is_a_source_too(image_folder: Path, drain: Callable) -> None:
    (only,) = drain(open_source(str(image_folder / "frame3.png")))
    assert only.name == "frame3.png"


def test_a_name_that_is_no_utf8_is_spelt_out(
    image_folder: Path, tmp_path: Path, drain: Callable, undecodable_name: str
) -> None:
    (tmp_path / undecodable_name).write_bytes((image_folder / "frame0.png").read_bytes())
    (item,) = drain(open_source(str(tmp_path)))
    assert item.name == r"caf\udce9.png"


def test_a_video_file_is_opened_as_one(clips: dict[str, Path], drain: Callable) -> None:
    source = open_source(str(clips["h264.mkv"]))
    assert isinstance(source, VideoSource)
    assert len(drain(source)) == 24


@pytest.mark.parametrize("text", ["nothing/there", "", "x" * 50, "~nobody-of-that-name/x"])
def test_what_is_not_there_is_quoted(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(text)
    assert str(caught.value).startswith(f"no such source: {text!r}; name an existing file")


def test_a_number_is_a_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CameraError, match="cannot open camera 987"):
        open_source("987")


def test_a_device_file_is_a_device() -> None:
    with pytest.raises(CameraError, match="cannot open camera /dev/zero"):
        open_source("/dev/zero")


def test_an_empty_folder_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no image in"):
        open_source(str(tmp_path))


def test_a_server_that_refuses_is_named_without_the_password(server: Any) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(server.url.replace("//", "//user:secret@") + "/private?key=secret")
    assert "/private: Server returned 401" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/a.mp4", "http://host/a.mp4"),
        ("http://host:8080/a?token=x#y", "http://host:8080/a"),
        ("rtsp://user:pass@host/live", "rtsp://***@host/live"),
        ("rtsp://user:p@ss@host:554/live", "rtsp://***@host:554/live"),
        ("rtsp://user:pa/ss@host/live", "rtsp://***@host/live"),
        ("rtsp://user:pa?s#s@host/live", "rtsp://***@host/live"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("http://[::1/a", "http://[::1/a"),
        ("http://", "http://"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_the_synthetic_camera_shows_its_world_at_the_time_of_each_tick() -> None:
    world = MovingVehicles(7, 512)
    with SyntheticSource(seed=7, fps=100) as source:
        assert source.live
        frames = [source.read() for _ in range(4)]
    for one, other in itertools.pairwise(frames):
        assert other.index > one.index
        assert other.grabbed_ns - one.grabbed_ns > 0
    for frame in frames:
        assert frame.media_s == pytest.approx(frame.index / 100)
        assert np.array_equal(frame.image, world.image(frame.index / 100))


def test_the_synthetic_camera_does_not_wait_for_a_late_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = {"now": 100.0}
    monkeypatch.setattr(time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.update(now=clock["now"] + seconds))
    source = SyntheticSource(fps=10)
    assert source.read().index == 0
    assert source.read().index == 1
    clock["now"] += 0.75
    assert source.read().index == 8
    assert clock["now"] == pytest.approx(100.85)
    assert source.read().index == 9


def test_a_picture_named_like_a_film_is_still_read(tmp_path: Path, drain: Callable) -> None:
    """FFmpeg looks at the content: one picture is a film of one frame."""
    path = tmp_path / "picture.mp4"
    path.write_bytes(cv2.imencode(".png", np.full((32, 32, 3), 80, np.uint8))[1].tobytes())
    (item,) = drain(open_source(str(path)))
    assert abs(int(item.image.mean()) - 80) <= 1
