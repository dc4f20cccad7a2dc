"""Real clips, a real web server, the commands, and sources fed by hand."""

from __future__ import annotations

import contextlib
import http.server
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import orjson
import pytest

from motorvae.benchmarks.under_test.stream_process import CONTENT_TYPE, part_of
from motorvae.runtime.core.frame import Frame, Gap
from motorvae.runtime.sources.base import FrameSource

FRAMES = 24
FPS = 10
WIDTH, HEIGHT = 96, 64

# Name of a clip: container format, codec, pixel format, options of the codec, of the container.
CLIPS: dict[str, tuple[str, str, str, dict[str, str], dict[str, str]]] = {
    "mjpeg.avi": ("avi", "mjpeg", "yuvj420p", {}, {}),
    "mpeg4.avi": ("avi", "mpeg4", "yuv420p", {"sc_threshold": "1000000000", "qmax": "3"}, {}),
    "h264.mp4": (
        "mp4",
        "libx264",
        "yuv420p",
        {"x264-params": "scenecut=0:bframes=2:b-adapt=0"},
        {},
    ),
    "faststart.mp4": (
        "mp4",
        "libx264",
        "yuv420p",
        {"x264-params": "scenecut=0:bframes=2:b-adapt=0"},
        {"movflags": "faststart"},
    ),
    "h264.mkv": (
        "matroska",
        "libx264",
        "yuv420p",
        {"x264-params": "scenecut=0:bframes=2:b-adapt=0"},
        {},
    ),
    "ffv1.mkv": ("matroska", "ffv1", "bgr0", {}, {}),
}


def image_of(index: int) -> npt.NDArray[np.uint8]:
    """A picture that says which one it is: a grey level, over a texture that moves slowly."""
    image = np.full((HEIGHT, WIDTH, 3), 24 + 8 * index, np.uint8)
    texture = np.random.default_rng(0).integers(0, 256, (16, WIDTH), np.uint8)
    image[:16] = np.roll(texture, 3 * index, axis=1)[:, :, None]
    return image


def index_of(image: npt.NDArray[np.uint8]) -> int:
    """Which picture this is, whatever a lossy codec made of it."""
    return round((float(image[24:].mean()) - 24) / 8)


def write_clip(
    path: Path,
    *,
    container: str,
    codec: str,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    frames: int = FRAMES,
    group: int = 8,
) -> Path:
    """Encode a clip for real."""
    with av.open(str(path), "w", format=container, options=container_options or {}) as output:
        stream = output.add_stream(codec, rate=FPS, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.gop_size, stream.bit_rate = group, 4_000_000
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(image_of(index), format="bgr24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One clip for each container and codec, all of the same pictures."""
    folder = tmp_path_factory.mktemp("clips")
    return {
        name: write_clip(
            folder / name,
            container=container,
            codec=codec,
            pixels=pixels,
            options=options,
            container_options=container_options,
        )
        for name, (container, codec, pixels, options, container_options) in CLIPS.items()
    }


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose natural order differs from their alphabetical one."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(12):
        assert cv2.imwrite(str(folder / f"frame{index}.png"), image_of(index))
    return folder


@pytest.fixture
def clip_tools() -> Any:
    """`image_of`, `index_of` and `write_clip`, which test modules cannot import from here."""

    class Tools:
        frames, fps = FRAMES, FPS
        image = staticmethod(image_of)
        index = staticmethod(index_of)
        write = staticmethod(write_clip)

    return Tools


def read_all(source: FrameSource, into: list[Frame | Gap] | None = None) -> list[Frame | Gap]:
    """Everything a source gives until it ends; also in `into`, should it fail."""
    items = [] if into is None else into
    with source:
        while (item := source.read()) is not None:
            items.append(item)
    return items


@pytest.fixture
def drain() -> Callable[[FrameSource], list[Frame | Gap]]:
    return read_all


class HandFed(FrameSource):
    """A live source that delivers what a test gives it, when the test gives it."""

    live = True
    name = "hand-fed"

    def __init__(self) -> None:
        self._items: queue.Queue[Frame | Gap | Exception | None] = queue.Queue()
        self._asked = threading.Semaphore(0)
        self.closed = 0

    def read(self) -> Frame | Gap | None:
        self._asked.release()
        item = self._items.get(timeout=60)
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        self.closed += 1

    def wait_until_asked(self) -> None:
        """Wait until the reader has dealt with all that it was given and wants more."""
        assert self._asked.acquire(timeout=60)

    def give(self, item: Frame | Gap, *, last: bool = False) -> None:
        """Deliver an item, and wait until the reader has dealt with it."""
        self._items.put(item)
        if not last:
            self.wait_until_asked()

    def end(self, item: Exception | None = None) -> None:
        """End, or fail."""
        self._items.put(item)


@pytest.fixture
def hand_fed() -> Iterator[HandFed]:
    source = HandFed()
    yield source
    source.end()


@pytest.fixture
def frame_at() -> Callable[..., Frame]:
    """A frame of one grey level, as if it was grabbed just now."""

    def make(index: int, level: int = 128, **facts: Any) -> Frame:
        image = np.full((48, 64), level, np.uint8)
        given = {
            "captured_ns": time.time_ns(),
            "grabbed_ns": time.monotonic_ns(),
            "capture_ns": 0,
            **facts,
        }
        return Frame(image=image, index=index, **given)

    return make


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, every line of which must be JSON."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture(scope="session")
def read_rows() -> Callable[[Path], list[dict[str, Any]]]:
    return rows_of


@dataclass
class Finished:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line that a failed command says."""
        assert "Traceback" not in self.stderr
        assert self.code == 1, self.stderr
        assert self.stderr.count("\n") == 1, self.stderr
        return self.stderr.rstrip("\n")


Command = Callable[..., Finished]


@pytest.fixture
def in_process(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command's main function here."""

    def call(main: Callable[[Sequence[str]], int], *args: object) -> Finished:
        capfd.readouterr()
        code = main([str(arg) for arg in args])
        captured = capfd.readouterr()
        return Finished(code, captured.out, captured.err)

    return call


@pytest.fixture
def stream(in_process: Command, small_bundle: Path) -> Command:
    """motorvae-stream on the small bundle."""
    from motorvae.runtime.cli import stream_main

    return lambda *args: in_process(stream_main, "--model", small_bundle, *args)


@pytest.fixture
def encode(in_process: Command, small_bundle: Path) -> Command:
    """motorvae-encode with the small bundle."""
    from motorvae.runtime.encode_cli import encode_main

    return lambda *args: in_process(encode_main, "--model", small_bundle, *args)


@pytest.fixture(scope="session")
def script() -> Callable[[str], str]:
    """Where an installed command lies."""
    return lambda name: str(Path(sys.executable).with_name(name))


@pytest.fixture
def python() -> Command:
    """Run Python source in a process of its own."""

    def call(source: str, *args: object, **more: Any) -> Finished:
        done = subprocess.run(
            [sys.executable, "-c", source, *map(str, args)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **more,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return call


@dataclass
class Server:
    """A web server on this machine.

    Attributes:
        url: Where it listens, without a path.
        files: Path to the bytes it serves, and how many of them it really sends.
        stalled: Set when a stalling stream has sent all that it will.
        release: Set by a test to let stalling streams end.
    """

    url: str
    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    stalled: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def put(self, path: str, content: bytes, sent: int | None = None) -> str:
        """Serve bytes under a path; return the URL."""
        self.files[path] = (content, len(content) if sent is None else sent)
        return self.url + path


@pytest.fixture
def server() -> Iterator[Server]:
    """Serves files and `/mjpeg`, which ends; `/mjpeg-cut` breaks off, `/mjpeg-stall` stays."""
    found: Server

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if path in found.files:
                    self._file(*found.files[path])
                elif path.startswith("/mjpeg"):
                    self._stream(path)
                else:
                    self.send_error(401 if path == "/private" else 404)

        def _file(self, content: bytes, sent: int) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:sent])

        def _stream(self, path: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.end_headers()
            for index in range(FRAMES):
                part = part_of(cv2.imencode(".jpg", image_of(index))[1].tobytes())
                self.wfile.write(part)
            if path == "/mjpeg-cut":
                self.wfile.write(part[: len(part) // 2])
            if path == "/mjpeg-stall":
                found.stalled.set()
                found.release.wait(60)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        found = Server(f"http://127.0.0.1:{listening.server_address[1]}")
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield found
        found.release.set()
        listening.shutdown()
        thread.join()


@pytest.fixture
def undecodable_name() -> str:
    """A file name whose bytes are no UTF-8."""
    return os.fsdecode(b"caf\xe9.png")
