"""Frame, what was grabbed and when; Gap, one that is missing; Mode, how a camera delivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Clock = Literal["driver", "packet", "host"]
NS_PER_MS = 1e6
DEFAULT_FPS = 30.0
"""Of what has no rate of its own."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One image with the facts that were stamped when it was grabbed.

    Attributes:
        image: (H, W) luma or (H, W, 3) BGR, uint8.
        index: Position in its source, counting from 0; frames that were lost count.
        captured_ns: Unix time of the grab in nanoseconds.
        grabbed_ns: The same moment on the monotonic clock; ages are counted from here.
        capture_ns: From that moment to the decoded image being there, in nanoseconds.
        name: What the user would call this image, such as a file name; may be empty.
        media_s: Position in the recording in seconds, where the source has one.
        clock: Who stamped the moment: the device's `driver`, the arrival of the frame's `packet`,
            or this `host` right after the grab.
        convert_ns: What the source itself spent on turning the decoded picture into fitted luma,
            in nanoseconds; it follows `capture_ns` and is no part of it.
    """

    image: npt.NDArray[np.uint8]
    index: int
    captured_ns: int
    grabbed_ns: int
    capture_ns: int
    name: str = ""
    media_s: float | None = None
    clock: Clock = "host"
    convert_ns: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """A frame that should have been there and was not; it never becomes a latent.

    Attributes:
        index: Position in its source, as in `Frame`.
        reason: Why there is no image, in one line.
        captured_ns: Unix time at which the loss was noticed, in nanoseconds.
        name: As in `Frame`.
    """

    index: int
    reason: str
    captured_ns: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Mode:
    """How a camera is to deliver, or delivers; None is not asked for, or not known.

    Attributes:
        width: Pixels.
        height: Pixels.
        fps: Frames per second.
        fourcc: Four letters that name the pixel format, such as MJPG or YUYV.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    fourcc: str | None = None

    def __str__(self) -> str:
        size = f"{self.width or '?'}x{self.height or '?'}" if self.width or self.height else ""
        rate = f"{self.fps:g} fps" if self.fps else ""
        return " ".join(part for part in (size, rate, self.fourcc or "") if part) or "unknown"
