"""Geometry: how a coded picture is meant to be seen, turned, mirrored, of pixels not square."""

from __future__ import annotations

import functools
import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame

from ..core.errors import ImageError
from .orientation import UPRIGHT, turned

Pixels = npt.NDArray[np.uint8]

WIDEST = 16
"""Pixels that are said to be more than so many times as wide as high, or as high as wide, are
taken for square: no recording has them, and players would show a line."""
_LONGEST = 4096  # of what is longer, half a pixel at its edge no longer matters
_SWAPPED, _ROWS_REVERSED, _COLUMNS_REVERSED = {5, 6, 7, 8}, {3, 4, 6, 7}, {2, 3, 7, 8}
_ORIENTATIONS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
"""Where a display matrix leads steps to the right and downwards, and what EXIF calls that."""
_OF_ROTATION = {90: (0, -1, 1, 0), -90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), -180: (-1, 0, 0, -1)}
"""The same steps by degrees counter-clockwise, as FFmpeg counts."""
_SLANT = math.tan(math.radians(1))  # FFmpeg, too, takes a matrix within 1 degree for a right angle


@dataclass(frozen=True, slots=True)
class Geometry:
    """What is between a picture as it is coded and as it is seen."""

    orientation: int = UPRIGHT  # 1 to 8 as EXIF counts; applied after the pixels' shape
    aspect: float = 1.0  # how wide a coded pixel is, in units of its height

    def seen(self, image: Pixels) -> Pixels:
        """Return a coded image, (H, W) or (H, W, C), as it is seen; itself where that is so."""
        if self.aspect != 1:
            image = stretched(image, self.square_shape((image.shape[0], image.shape[1])))
        return turned(image, self.orientation)

    def square_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of a coded shape in square pixels: the shorter way grows."""
        height, width = shape
        if self.aspect >= 1:
            return height, round(width * self.aspect)
        return round(height / self.aspect), width

    @property
    def swaps_axes(self) -> bool:
        """Whether rows as coded are columns as seen."""
        return self.orientation in _SWAPPED

    @property
    def reversed_axes(self) -> tuple[bool, bool]:
        """Whether rows and columns as coded run the other way in what is seen."""
        return self.orientation in _ROWS_REVERSED, self.orientation in _COLUMNS_REVERSED


AS_CODED = Geometry()


def stretched(image: Pixels, shape: tuple[int, int]) -> Pixels:
    """Interpolate (H, W) or (H, W, C) uint8 to another height and width, up to `_LONGEST`."""
    wanted = [max(now, min(to, _LONGEST)) for now, to in zip(image.shape[:2], shape, strict=True)]
    if tuple(wanted) == image.shape[:2]:
        return image
    grown = cv2.resize(image, (wanted[1], wanted[0]), interpolation=cv2.INTER_LINEAR)
    return grown.astype(np.uint8, copy=False)


def sane_aspect(ratio: Fraction | None) -> float:
    """Return a sample aspect ratio as a number; 1 where there is none, or an absurd one."""
    aspect = 1.0 if ratio is None else float(ratio)
    return aspect if 1 / WIDEST <= aspect <= WIDEST else 1.0


def display_matrix(frame: VideoFrame) -> bytes | None:
    """Return the display matrix that a frame carries, for `orientation_of_matrix`, if it does."""
    container: Any = SideDataContainer  # PyAV's types show no constructor
    try:
        # `frame.side_data` would be kept in the frame and refer to it: such frames, 3 MB each at
        # 1080p, are not freed before the garbage collector runs, hundreds of them later.
        carried = container(frame)
    except ValueError:  # PyAV knows no name for something else that the frame carries
        steps = _OF_ROTATION.get(90 * round(frame.rotation / 90), (1, 0, 0, 1))
        a, b, c, d = (step << 16 for step in steps)
        return struct.pack("=9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    if not len(carried) or Type.DISPLAYMATRIX not in carried:  # most frames carry nothing
        return None
    return bytes(carried[Type.DISPLAYMATRIX])


@functools.lru_cache(maxsize=64)
def orientation_of_matrix(data: bytes) -> int:
    """Return the orientation of a display matrix, nine 32-bit integers in this machine's order.

    Its scale is no part of it, nor is where it moves the picture to; one that leaves nothing of
    the picture is upright. ImageError where it turns by no multiple of 90 degrees.
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", data[:36])
    right, down = math.hypot(a, b), math.hypot(c, d)
    if not (right and down):
        return UPRIGHT
    steps = (a / right, b / right, c / down, d / down)
    found = _ORIENTATIONS.get(tuple(0 if abs(step) <= _SLANT else _sign(step) for step in steps))  # type: ignore[arg-type]
    if found is None:
        degrees = math.degrees(math.atan2(b, a))
        raise ImageError(
            f"frame is to be turned by {degrees:.1f} degrees, which is no multiple of 90: have "
            "ffmpeg turn the video, or take its display matrix away"
        )
    return found


def _sign(value: float) -> int:
    return 1 if value > 0 else -1
