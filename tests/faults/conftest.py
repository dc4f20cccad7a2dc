"""Servers that fail on command, the stream that watches them, and the check that all runs pass."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .checking import check_run
from .pictures import (
    HEIGHT,
    KINDS,
    WIDTH,
    Album,
    album_of,
    damaged_jpeg,
    headless_jpeg,
    jpeg,
    picture,
    video_luma,
)
from .processes import Server, StreamRun

HERE = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"
NEEDS = """
import gi
for name in ("Gst", "GstApp", "GstRtspServer"):
    gi.require_version(name, "1.0")
from gi.repository import Gst
Gst.init(None)
raise SystemExit(not all(map(Gst.ElementFactory.find, ("appsrc", "x264enc", "rtph264pay"))))
"""
LARGER = (160, 128)
FPS = 20


@pytest.fixture(scope="session")
def album(small_bundle: Path) -> Album:
    """The latents of the test pictures."""
    return album_of(small_bundle, [picture(kind) for kind in range(KINDS)])


@pytest.fixture
def watch(small_bundle: Path) -> Iterator[Callable[..., StreamRun]]:
    """Start motorvae-stream: `watch(camera, ..., options=(...))`."""
    runs = []

    def start(
        *cameras: object, options: tuple[object, ...] = (), reading: bool = True
    ) -> StreamRun:
        runs.append(StreamRun(small_bundle, cameras, *options, reading=reading))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, int], None]:
    """Keep what came of a fault, rows and exit code, for the table that `table.py` prints."""

    def kept(rows: str, code: int) -> None:
        request.node.user_properties += [("rows", rows), ("code", str(code))]

    return kept


@pytest.fixture
def check(album: Album, note: Callable[[str, int], None]) -> Callable[..., None]:
    """`check_run` with the test's album; the shape of its rows is noted."""

    def held(run: StreamRun, **expected: Any) -> None:
        shape = check_run(run, expected.pop("album", album), **expected)
        assert run.code is not None
        note(shape, run.code)

    return held


@pytest.fixture
def check_refused(note: Callable[[str, int], None]) -> Callable[..., None]:
    """A camera that cannot be opened at the start: one line that holds `words`, code 1, no row."""

    def held(run: StreamRun, words: str) -> None:
        run.wait_for_exit()
        assert run.code == 1
        assert run.rows == []
        assert run.stderr.count("\n") == 0, run.stderr
        assert run.stderr.startswith("motorvae-stream: ")
        assert words in run.stderr
        note("none", run.code)

    return held


@pytest.fixture(scope="session")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the MJPEG server serves."""
    folder = tmp_path_factory.mktemp("jpegs")
    for kind in range(KINDS):
        small = jpeg(picture(kind))
        (folder / f"a{kind:02}.jpg").write_bytes(small)
        (folder / f"b{kind:02}.jpg").write_bytes(jpeg(picture(kind, *LARGER)))
        (folder / f"damage{kind:02}.jpg").write_bytes(damaged_jpeg(small))
        (folder / f"headless{kind:02}.jpg").write_bytes(headless_jpeg(small))
    return folder


@pytest.fixture
def mjpeg(jpegs: Path) -> Iterator[Callable[[], Server]]:
    """Start an MJPEG camera."""
    servers = []

    def start() -> Server:
        command = [sys.executable, str(HERE / "mjpeg_server.py"), str(jpegs), str(FPS)]
        servers.append(Server(command, "http://127.0.0.1:{port}/"))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def camera(mjpeg: Callable[[], Server]) -> Server:
    """One MJPEG camera."""
    return mjpeg()


@pytest.fixture(scope="session")
def rtsp_command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What starts the RTSP server, but for the group of pictures and the port."""
    if (
        not Path(SYSTEM_PYTHON).exists()
        or subprocess.run([SYSTEM_PYTHON, "-c", NEEDS], capture_output=True, check=False).returncode
    ):
        pytest.skip(
            "the RTSP server needs gir1.2-gst-rtsp-server-1.0, python3-gi and "
            "gstreamer1.0-plugins-good, -bad and -ugly"
        )
    folder = tmp_path_factory.mktemp("rtsp")
    command = [SYSTEM_PYTHON, str(HERE / "rtsp_server.py")]
    for width, height in ((WIDTH, HEIGHT), LARGER):
        path = folder / str(width)
        pictures = [video_luma(picture(kind, width, height)) for kind in range(KINDS)]
        path.write_bytes(b"".join(image.tobytes() for image in pictures))
        command += [str(path), str(width), str(height)]
    return [*command, str(FPS)]


@pytest.fixture
def rtsp(rtsp_command: list[str]) -> Iterator[Callable[..., Server]]:
    """Start an RTSP camera; `group` is how many frames it sends from one key frame to the next."""
    servers = []

    def start(group: int = 1000) -> Server:
        servers.append(Server([*rtsp_command, str(group)], "rtsp://127.0.0.1:{port}/camera"))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
