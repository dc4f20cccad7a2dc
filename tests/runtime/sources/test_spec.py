from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from motorvae.runtime.sources.open import open_source
from motorvae.runtime.sources.spec import SourceSpec


@pytest.fixture
def folder(image_folder: Path, clips: dict[str, Path], tmp_path: Path) -> Path:
    """A folder of one thing of each kind that has a path."""
    (tmp_path / "photos").mkdir()
    for number in (2, 10, 1):
        shutil.copy(image_folder / f"frame{number}.png", tmp_path / "photos")
    shutil.copy(clips["h264.mkv"], tmp_path / "film.mkv")
    (tmp_path / "camera").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


CAMERA, RECORDING = (True, True), (False, False)
"""Live, and worth opening again."""


@pytest.mark.parametrize(
    ("text", "kind", "name", "delivers"),
    [
        ("0", "device", "camera 0", CAMERA),
        ("camera", "device", "camera camera", CAMERA),
        ("film.mkv", "video", "film.mkv", RECORDING),
        ("fil?.mkv", "video", "film.mkv", RECORDING),
        ("photos", "images", "photos", RECORDING),
        ("photos/*.png", "images", "photos/*.png", RECORDING),
        ("photos/frame1.png", "images", "photos/frame1.png", RECORDING),
        ("pipe", "pipe", "pipe", CAMERA),
        ("http://u:secret@host/mjpeg?key=secret", "url", "http://***@host/mjpeg", CAMERA),
        ("RTSP://u:secret@host/live", "url", "rtsp://***@host/live", CAMERA),
        ("csi://0?fps=30", "csi", "csi://0", CAMERA),
        ("gst:rtspsrc user-pw=secret ! decodebin", "gst", "gst:rtspsrc", CAMERA),
        ("synthetic", "synthetic", "synthetic", CAMERA),
        ("synthetic?fps=12&lose=3", "synthetic", "synthetic", CAMERA),
        ("synthetic?fps=max", "synthetic", "synthetic", RECORDING),
    ],
)
def test_a_text_is_parsed_once_to_what_it_names_and_how_its_frames_come(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    kind: str,
    name: str,
    delivers: tuple[bool, bool],
) -> None:
    monkeypatch.chdir(folder)
    spec = SourceSpec.parse(text)
    assert (spec.kind, spec.name) == (kind, name)
    assert (spec.live, spec.can_reconnect) == delivers
    assert "secret" not in repr(spec)
    # By the clock a recording is as live as a camera, but what has ended does not come back.
    played = SourceSpec.parse(text, realtime=True)
    assert (played.live, played.can_reconnect) == (True, delivers[1])


@pytest.mark.parametrize(
    ("text", "live", "can_reconnect"),
    [
        ("film.mkv", False, False),
        ("photos/*.png", False, False),
        ("photos", False, False),
        ("synthetic?fps=max&size=32", False, False),
        ("synthetic?size=32", True, True),
    ],
)
@pytest.mark.parametrize("realtime", [False, True])
def test_an_opened_source_does_as_its_spec_says(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    live: bool,
    can_reconnect: bool,
    realtime: bool,
) -> None:
    monkeypatch.chdir(folder)
    spec = SourceSpec.parse(text, realtime=realtime)
    with open_source(spec) as source:
        assert (source.live, source.can_reconnect) == (live or realtime, can_reconnect)
        assert (source.live, source.can_reconnect) == (spec.live, spec.can_reconnect)
        assert source.name == spec.name


def test_only_a_connection_tells_a_camera_from_a_served_recording(
    clips: dict[str, Path], server: Any
) -> None:
    film = server.put("/film.mp4", clips["faststart.mp4"].read_bytes())
    assert SourceSpec.parse(film).is_recording is None
    with open_source(film) as source:
        assert (source.live, source.can_reconnect) == (False, False)
    with open_source(SourceSpec.parse(film, realtime=True)) as source:
        assert (source.live, source.can_reconnect) == (True, False)
    with open_source(SourceSpec.parse(server.url + "/mjpeg", realtime=True)) as source:
        assert (source.live, source.can_reconnect) == (True, True)


def test_a_rate_asked_for_is_the_synthetic_cameras_unless_it_names_its_own() -> None:
    assert SourceSpec.parse("synthetic", fps=12).plan.fps == 12
    assert SourceSpec.parse("synthetic?fps=20", fps=12).plan.fps == 20
    assert SourceSpec.parse("synthetic?fps=max", fps=12).plan.fps is None
