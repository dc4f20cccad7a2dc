"""Frame, what was grabbed and when; Gap, one that is missing; Mode, how a camera delivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Clock = Literal["driver", "packet", "host"]
NS_PER_MS = 1e6
DEFAULT_FPS = 30.0  # of what has no rate of its own


@dataclass(frozen=True, slots=True)
class Frame:
    """One image with the facts that were stamped when it was grabbed.

    `captured_ns` is Unix time, `grabbed_ns` the same moment on the monotonic clock, from which ages
    are counted; all times are in nanoseconds.
    """

    image: npt.NDArray[np.uint8]  # (H, W) luma or (H, W, 3) BGR; fitted, see `is_fitted`
    index: int  # in its source, counting from 0; frames that were lost count
    captured_ns: int
    grabbed_ns: int
    capture_ns: int  # from that moment to the decoded image being there
    name: str = ""  # what the user would call this image, such as a file name
    media_s: float | None = None  # in the recording, where the source has one
    clock: Clock = "host"  # who stamped it: the device, the arrival of its packet, or this host
    convert_ns: int = 0  # what the source spent after `capture_ns` on fitting it to a model
    is_fitted: bool = False  # whether the image is a model's input already, of its `picture_shape`


@dataclass(frozen=True, slots=True)
class Gap:
    """A frame that should have been there and was not; it never becomes a latent."""

    index: int  # in its source, as in `Frame`
    reason: str  # why there is no image, in one line
    captured_ns: int  # Unix time at which the loss was noticed
    name: str = ""
    # False: no frame is known to be missing, as before the first key frame of a stream that was
    # joined half way; it makes no row, and shows that something came.
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Mode:
    """How a camera is to deliver, or delivers; None is not asked for, or not known."""

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    fourcc: str | None = None  # four letters that name the pixel format, such as MJPG or YUYV

    def __str__(self) -> str:
        size = f"{self.width or '?'}x{self.height or '?'}" if self.width or self.height else ""
        rate = f"{self.fps:g} fps" if self.fps else ""
        return " ".join(part for part in (size, rate, self.fourcc or "") if part) or "unknown"
