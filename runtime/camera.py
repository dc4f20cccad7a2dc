"""open_source: from what a user typed to the source of frames; image folders and synthetic."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from .device import DeviceSource
from .errors import ImageError, SourceError
from .frames import Frame, Gap
from .images import IMAGE_SUFFIXES, image_paths, luma_from_file
from .source import DEFAULT_FPS, FrameSource
from .vehicles import MovingVehicles
from .video import VideoSource

SYNTHETIC = "synthetic"
SYNTHETIC_SIZE = 512


class FolderSource(FrameSource):
    """The images of a folder, or one image file, in natural order.

    Raises:
        SourceError: The folder cannot be read or holds no image.
    """

    def __init__(self, path: Path) -> None:
        self.name = _printable(str(path))
        self._root = path if path.is_dir() else path.parent
        self._paths = image_paths(path) if path.is_dir() else [path]
        self.expected = len(self._paths)
        self._index = 0

    def read(self) -> Frame | Gap | None:
        """Decode the next image; one that does not decode is a gap."""
        if self._index == len(self._paths):
            return None
        path, index = self._paths[self._index], self._index
        self._index += 1
        name = _printable(path.relative_to(self._root).as_posix())
        captured_ns, grabbed_ns = time.time_ns(), time.monotonic_ns()
        try:
            image = luma_from_file(path)
        except ImageError as error:
            return Gap(index, _printable(str(error)), captured_ns, name)
        return Frame(
            image=image,
            index=index,
            captured_ns=captured_ns,
            grabbed_ns=grabbed_ns,
            capture_ns=time.monotonic_ns() - grabbed_ns,
            name=name,
        )

    def close(self) -> None:
        """Nothing is held open between two reads."""


class SyntheticSource(FrameSource):
    """Procedural vehicles driving by, delivered by the clock like a camera's frames.

    Args:
        seed: Which vehicles drive by.
        fps: Frames per second.
    """

    live = True
    name = SYNTHETIC

    def __init__(self, *, seed: int = 0, fps: float = DEFAULT_FPS) -> None:
        self.fps = fps
        self._period_s = 1 / fps
        self._vehicles = MovingVehicles(seed, SYNTHETIC_SIZE)
        self._start_s: float | None = None
        self._next = 0

    def read(self) -> Frame:
        """Wait for the next tick; ticks that passed unread are skipped, as a camera skips them."""
        now_s = time.monotonic()
        if self._start_s is None:
            self._start_s = now_s
        index = max(self._next, int((now_s - self._start_s) / self._period_s))
        time.sleep(max(0.0, self._start_s + index * self._period_s - time.monotonic()))
        captured_ns, grabbed_ns = time.time_ns(), time.monotonic_ns()
        image = self._vehicles.image(index * self._period_s)
        self._next = index + 1
        return Frame(
            image=image,
            index=index,
            captured_ns=captured_ns,
            grabbed_ns=grabbed_ns,
            capture_ns=time.monotonic_ns() - grabbed_ns,
            media_s=index * self._period_s,
        )

    def close(self) -> None:
        """Nothing is held open."""


def open_source(text: str) -> FrameSource:
    """Open what a user named as a camera.

    Args:
        text: A device index such as `0`, a device path, a video file, an image file or a folder
            of images, an http, https, rtsp, rtmp or udp URL, or `synthetic`.

    Raises:
        SourceError: There is no such thing, or it cannot be opened.
    """
    if text == SYNTHETIC:
        return SyntheticSource()
    if text.isdecimal():
        return DeviceSource(int(text))
    if "://" in text:
        return VideoSource(text, name=without_credentials(text), is_url=True)
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # leaves an unknown ~user as it is
    if not text or not path.exists():
        raise SourceError(
            f"no such source: {text!r}; name an existing file, folder or device, a URL, "
            "a camera index such as 0, or synthetic"
        )
    if path.is_char_device():
        return DeviceSource(str(path))
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return FolderSource(path)
    return VideoSource(str(path), name=_printable(str(path)), is_url=False)


def without_credentials(url: str) -> str:
    """Return a URL as it may be printed: user name, password and query are left out.

    All that stands before the last `@` is taken for credentials, as passwords with a `/` in
    them are typed too.
    """
    scheme, _, rest = url.partition("://")
    _, credentials, address = rest.rpartition("@")
    return f"{scheme}://{'***@' if credentials else ''}{re.split('[?#]', address)[0]}"


def _printable(text: str) -> str:
    """Return text in which the bytes of a file name that are no UTF-8 are spelt out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
