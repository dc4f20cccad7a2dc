from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from motorvae.runtime.core.errors import CameraError, ConfigError, SourceError
from motorvae.runtime.core.frame import Frame, Gap, Mode
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.folder import FolderSource
from motorvae.runtime.sources.open import open_source
from motorvae.runtime.sources.synthetic.source import SyntheticSource
from motorvae.runtime.sources.video.source import VideoSource


def test_a_video_file_is_opened_as_one(clips: dict[str, Path], drain: Callable) -> None:
    source = open_source(str(clips["h264.mkv"]))
    assert isinstance(source, VideoSource)
    assert len(drain(source)) == 24


@pytest.mark.parametrize("text", ["nothing/there", "", "x" * 5000, "~nobody-of-that-name/x"])
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
    assert "/private: the server answered 401 Unauthorized" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_picture_named_like_a_film_is_still_read(tmp_path: Path, drain: Callable) -> None:
    """FFmpeg looks at the content: one picture is a film of one frame."""
    path = tmp_path / "picture.mp4"
    path.write_bytes(cv2.imencode(".png", np.full((32, 32, 3), 80, np.uint8))[1].tobytes())
    (item,) = drain(open_source(str(path)))
    assert abs(int(item.image.mean()) - 80) <= 1


def test_a_pattern_takes_what_it_matches_in_natural_order(
    image_folder: Path, tmp_path: Path, drain: Callable
) -> None:
    for number in (2, 10, 1):
        shutil.copy(image_folder / f"frame{number}.png", tmp_path)
    (tmp_path / "notes.txt").write_text("not matched")
    source = open_source(str(tmp_path / "frame*.png"))
    assert isinstance(source, FolderSource)
    assert source.name == str(tmp_path / "frame*.png")
    assert [item.name for item in drain(source)] == ["frame1.png", "frame2.png", "frame10.png"]


def test_a_pattern_starts_at_home(
    image_folder: Path, tmp_path: Path, drain: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    shutil.copy(image_folder / "frame1.png", tmp_path / "a")
    shutil.copy(image_folder / "frame2.png", tmp_path / "b")
    monkeypatch.setenv("HOME", str(tmp_path))
    names = [item.name for item in drain(open_source("~/*/frame[0-9].png"))]
    assert names == ["a/frame1.png", "b/frame2.png"]


def test_a_pattern_that_matches_one_video_opens_it(clips: dict[str, Path]) -> None:
    folder = clips["h264.mkv"].parent
    with open_source(str(folder / "ffv1*")) as source:
        assert isinstance(source, VideoSource)


def test_a_pattern_that_matches_several_videos_says_what_to_do(clips: dict[str, Path]) -> None:
    with pytest.raises(SourceError, match=r"not all images.*narrow the pattern.*own --camera"):
        open_source(str(clips["h264.mkv"].parent / "*.m*"))


def test_a_pattern_that_matches_nothing_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing matches .*\*\.jpg: check the pattern"):
        open_source(str(tmp_path / "*.jpg"))


def test_a_name_with_brackets_is_a_name_first(image_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a[1].png"
    shutil.copy(image_folder / "frame1.png", path)
    assert open_source(str(path)).expected == 1


@pytest.mark.parametrize("text", ["gopher://h/x", "file:///etc", "rstp://user:secret@host/live"])
def test_an_unknown_scheme_is_named_with_the_known_ones(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(text)
    message = str(caught.value)
    assert message.startswith(f"{text.partition(':')[0]}:// is no source: take http://, ")
    for scheme in ("rtsp://", "csi://", "gst:", "synthetic"):
        assert scheme in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "text", ["user:secret@host/live", "rtsp:/user:secret@host/live", "admin:s*cret@10.0.0.2/live"]
)
def test_a_password_is_not_repeated_where_the_scheme_is_missing(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(text)
    assert "cret" not in str(caught.value)


def test_synthetic_takes_its_settings_after_a_question_mark() -> None:
    source = open_source("synthetic?fps=12&size=64&frames=3")
    assert isinstance(source, SyntheticSource)
    assert (source.fps, source.expected) == (12.0, 3)
    with pytest.raises(ConfigError, match="'wheels' is unknown: take fps, seed, size"):
        open_source("synthetic?wheels=4")


def test_synthetic_honours_a_rate_and_refuses_another() -> None:
    assert open_source("synthetic", CaptureRequest(Mode(fps=12))).fps == 12
    with pytest.raises(CameraError, match=r"asked for 12 fps, got 512x512 20 fps; change fps"):
        open_source("synthetic?fps=20", CaptureRequest(Mode(fps=12)))
    assert open_source("synthetic?fps=20", CaptureRequest(Mode(fps=12), accept_mode=True)).fps == 20


def test_a_recording_of_another_mode_than_asked_for_is_refused(clips: dict[str, Path]) -> None:
    text = str(clips["mjpeg.avi"])
    request = Mode(width=640, height=480, fps=30, fourcc="MJPG")
    with pytest.raises(CameraError) as caught:
        open_source(text, CaptureRequest(request))
    assert str(caught.value) == (
        f"{text}: asked for 640x480 30 fps MJPG, got 96x64 10 fps MJPG; ask for that, or take it "
        "with --accept-mode"
    )
    open_source(text, CaptureRequest(request, accept_mode=True)).close()
    open_source(text, CaptureRequest(Mode(96, 64, 10, "mjpg"))).close()


def test_images_have_no_mode(image_folder: Path) -> None:
    with pytest.raises(ConfigError, match="asked for 9 fps, but images come as they are"):
        open_source(str(image_folder), CaptureRequest(Mode(fps=9)))
    assert (
        open_source(str(image_folder), CaptureRequest(Mode(fps=9), accept_mode=True)).expected == 12
    )


@pytest.mark.parametrize("text", ["csi://", "csi://front", "csi://0?fps=max", "csi://0?depth=1"])
def test_a_csi_camera_is_a_number(text: str) -> None:
    with pytest.raises(ConfigError, match="csi:// takes the number of a camera: write csi://0"):
        open_source(text)


def test_a_named_pipe_is_a_live_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match=r"pipe: nothing came for 0\.1 s; check who writes to it"):
        open_source(str(tmp_path / "pipe"), CaptureRequest(timeout_s=0.1))


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
