"""motorvae-doctor cameras: the cameras of this machine and the modes that they really deliver."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from ..core.errors import CameraError, SourceError
from ..core.frame import Frame, Mode
from ..sources.base import CaptureRequest, FrameSource
from ..sources.device_names import Camera, cameras
from ..sources.opencv import DeviceSource
from ..sources.spec import SourceSpec

FORMATS = ("MJPG", "YUYV")
SIZES = ((640, 480), (1280, 720), (1920, 1080))
RATES = (30.0, 60.0)
SILENCE_S = 3.0
"""A camera that sends nothing for so long does not deliver the mode that it confirmed."""
_HEADINGS = ("size", "format", "fps reported", "fps measured", "first ms", "damaged", "trouble")


class Measured(NamedTuple):
    """What a source delivered."""

    frames: int  # whole ones
    failed: int  # damaged ones
    fps: float | None  # of whole frames between the first and the last; None for fewer than two
    first_ms: float | None  # how long the first took to come
    trouble: str | None  # why no more came


def examine_cameras(console: Console, *, seconds: float = 1.0) -> int:
    """Print every camera with the modes that it delivers, each measured so long.

    The exit code that it returns is 0 where at least one camera delivered frames.
    """
    found = cameras()
    if not found:
        console.print(
            "no camera found: plug one in and run motorvae-doctor cameras again, or use --camera "
            "with a file, a URL or synthetic"
        )
        return 1
    delivered = [_examine(console, camera, seconds) for camera in found]
    return 0 if any(delivered) else 1


def measure(source: FrameSource, seconds: float) -> Measured:
    """Read an opened source for so many seconds from its first frame on."""
    started_ns = time.monotonic_ns()
    came_ns: list[int] = []
    failed = 0
    trouble = None
    while trouble is None and (not came_ns or came_ns[-1] - came_ns[0] < seconds * 1e9):
        try:
            item = source.read()
        except SourceError as error:
            trouble = error.clause()
            break
        now_ns = time.monotonic_ns()
        if item is None:
            trouble = "it ended"
        elif isinstance(item, Frame):
            came_ns.append(now_ns)
        else:
            failed += 1
            if now_ns - started_ns > (seconds + SILENCE_S) * 1e9:
                trouble = item.reason
    span_s = (came_ns[-1] - came_ns[0]) / 1e9 if came_ns else 0.0
    return Measured(
        frames=len(came_ns),
        failed=failed,
        fps=(len(came_ns) - 1) / span_s if span_s > 0 else None,
        first_ms=(came_ns[0] - started_ns) / 1e6 if came_ns else None,
        trouble=trouble,
    )


def candidates() -> Iterator[Mode]:
    """Yield every mode that is worth asking for."""
    for fourcc, (width, height), fps in itertools.product(FORMATS, SIZES, RATES):
        yield Mode(width=width, height=height, fps=fps, fourcc=fourcc)


def row_of(got: Mode, measured: Measured) -> tuple[str, ...]:
    """Return the cells of one mode."""
    return (
        f"{got.width}x{got.height}",
        got.fourcc or "?",
        "?" if got.fps is None else f"{got.fps:g}",
        "-" if measured.fps is None else f"{measured.fps:.1f}",
        "-" if measured.first_ms is None else f"{measured.first_ms:.0f}",
        str(measured.failed),
        measured.trouble or "",
    )


def _examine(console: Console, camera: Camera, seconds: float) -> bool:
    """Print one camera; return whether it delivered frames."""
    title = str(camera)
    if camera.path.exists() and not os.access(camera.path, os.R_OK | os.W_OK):
        console.print(
            f"{title}: permission denied; add this user to the group video "
            "(sudo usermod -aG video $USER) and log in again"
        )
        return False
    caption = str(camera.link or "no stable name")
    table = Table(*_HEADINGS, title=title, title_justify="left", caption=caption)
    seen: set[Mode] = set()
    delivered = False
    for mode in candidates():
        request = CaptureRequest(mode=mode, accept_mode=True, timeout_s=SILENCE_S)
        try:
            with DeviceSource(SourceSpec.device(camera.path), request) as source:
                if source.mode in seen:
                    continue
                seen.add(source.mode)
                measured = measure(source, seconds)
        except CameraError as error:
            # A USB camera has a second device for its facts, which delivers no video.
            console.print(f"{title}: {error.clause()}")
            break
        delivered = delivered or measured.frames > 0
        table.add_row(*row_of(source.mode, measured))
    if table.row_count:
        console.print(table)
    return delivered
