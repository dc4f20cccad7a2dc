from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motorvae.runtime.core.errors import ConfigError, MotorVAEError, SourceError
from motorvae.runtime.sources.open import open_source
from motorvae.runtime.sources.spec import SourceSpec, SyntheticPlan, plan_from_query


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


ranges = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)).map(
        lambda pair: (min(pair), max(pair))
    ),
    min_size=1,
    max_size=5,
)


def test_nothing_asked_for_is_a_plain_camera() -> None:
    assert plan_from_query("") == SyntheticPlan(fps=30.0, seed=0, size=512, loop=None)


def test_every_key_is_read() -> None:
    query = "fps=12.5&seed=7&size=64&loop=240&frames=1000&drop=30..45,90&freeze=60..70&damage=80"
    assert plan_from_query(f"{query}&lose=100..130&stall=140..160") == SyntheticPlan(
        fps=12.5,
        seed=7,
        size=64,
        loop=240,
        frames=1000,
        drop=((30, 45), (90, 90)),
        freeze=((60, 70),),
        damage=((80, 80),),
        lose=((100, 130),),
        stall=((140, 160),),
    )


@given(ranges)
def test_ranges_read_back_in_ascending_order(found: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}..{last}" if last > first else str(first) for first, last in found)
    assert plan_from_query(f"drop={text}").drop == tuple(sorted(found))


def test_as_fast_as_it_is_read_repeats_its_pictures() -> None:
    plan = plan_from_query("fps=max")
    assert (plan.fps, plan.loop) == (None, 240)
    assert plan_from_query("fps=max&loop=3").loop == 3


def test_the_rate_asked_for_holds_where_the_query_names_none() -> None:
    assert plan_from_query("seed=1", fps=12).fps == 12
    assert plan_from_query("fps=20", fps=12).fps == 20
    assert plan_from_query("fps=max", fps=12).fps is None


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("fps=0", "fps='0': take a number above 0 and up to 1000, or max"),
        ("fps=nan", "fps='nan': take a number above 0"),
        ("fps=", "fps='': take a number above 0"),
        ("seed=-1", "seed='-1': take a whole number from 0 up to"),
        ("seed=1.5", "seed='1.5': take a whole number"),
        ("size=33", "size='33': take a multiple of 32 up to 4096"),
        ("size=0", "size='0': take a multiple of 32"),
        ("size=8192", "size='8192': take a multiple of 32 up to 4096"),
        ("loop=0", "loop='0': take a whole number from 1 up to"),
        ("frames=0", "frames='0': take a whole number from 1 up to"),
        ("drop=", "drop='': take frame numbers such as 90 or 30..45, joined by commas"),
        ("drop=9..3", "drop='9..3': take frame numbers"),
        ("freeze=1-3", "freeze='1-3': take frame numbers"),
        ("lose=1,,3", "lose='1,,3': take frame numbers"),
        ("loop=5000&size=512", "loop=5000 of size=512 takes more than 1024 MiB: take fewer"),
        ("colour=red", "'colour' is unknown: take fps, seed, size, loop, frames, drop, freeze"),
        ("fps=10&fps=20", "fps is given twice: give it once"),
        ("fps=max&lose=3", "lose lasts by the clock, and fps=max has none: name a rate"),
        ("fps=max&stall=3", "stall lasts by the clock, and fps=max has none: name a rate"),
    ],
)
def test_what_is_not_allowed_is_named_with_what_is(query: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_from_query(query)
    assert str(caught.value).startswith(f"synthetic: {message}")
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text_is_a_plan_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        plan_from_query(text)


def test_a_recorders_address_without_its_scheme_keeps_its_password_to_itself() -> None:
    with pytest.raises(MotorVAEError, match="no such source") as caught:
        SourceSpec.parse("192.168.1.2/user=admin&password=geheim&channel=1")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("port", ["0", "80800", "99999", "-1", "9" * 5000])
@pytest.mark.parametrize(
    "text", ["http://cam:{}/a", "rtsp://u:pw@cam:{}", "udp://@:{}?reuse=1", "rtsp://[::1]:{}/"]
)
def test_a_port_that_there_is_not_is_refused(text: str, port: str) -> None:
    with pytest.raises(SourceError, match=f"there is no port {port[:20]}: take one") as caught:
        SourceSpec.parse(text.format(port))
    assert "pw" not in str(caught.value)
    for fine in ("1", "8080", "65535"):
        assert SourceSpec.parse(text.format(fine)).kind == "url"
