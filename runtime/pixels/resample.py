"""Resizing one 8-bit plane: averages over areas by FFmpeg's scaler, other filters by Pillow's."""

from __future__ import annotations

import functools
import threading

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from ..core.spec import Interpolation

Plane = npt.NDArray[np.uint8]
Averages = npt.NDArray[np.uint16]

PER_LEVEL = 256  # averages are uint16 and count so many parts of a level
LARGEST_RATIO = 128
"""FFmpeg's filters have at most 256 taps."""


class _Scalers(threading.local):
    """FFmpeg's scalers `of` sizes and formats, each set up once; every thread has its own."""

    def __init__(self) -> None:
        self.of = functools.lru_cache(maxsize=16)(lambda *_: VideoReformatter())


SCALERS = _Scalers()


def resized(plane: Plane, height: int, width: int, interpolation: Interpolation) -> Averages:
    """Resize an (H, W) uint8 plane; (height, width) uint16, in units of 1/256 of a level."""
    if interpolation == "area" or plane.shape == (height, width):
        return averaged(plane, height, width)
    if interpolation == "bilinear-no-antialias":
        found = cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.multiply(found, PER_LEVEL, dtype=np.uint16)
    from .files.pillow_filters import filtered  # noqa: PLC0415  # few models ask for it

    scaled = filtered(plane, height, width, interpolation)
    return np.multiply(scaled, PER_LEVEL, dtype=np.uint16)


def averaged(plane: Plane, height: int, width: int) -> Averages:
    """Average an (H, W) uint8 plane over areas, with fractional coverage at their edges.

    An axis that grows is interpolated, after the other has shrunk. The result is (height, width)
    uint16, in units of 1/256 of a level: averages are right to 0.1 levels up to a ratio of 32, to
    0.3 up to `LARGEST_RATIO`, and to whole levels beyond.
    """
    smaller = min(plane.shape[0], height), min(plane.shape[1], width)
    if smaller == plane.shape:
        shrunk: Averages = plane * np.uint16(PER_LEVEL)
    elif max(plane.shape[0] / smaller[0], plane.shape[1] / smaller[1]) <= LARGEST_RATIO:
        if plane.strides[1] != 1 or plane.strides[0] < plane.shape[1]:
            plane = np.ascontiguousarray(plane)
        frame = VideoFrame.from_numpy_buffer(plane, format="gray")
        scaled = SCALERS.of(*plane.shape, *smaller).reformat(
            frame, *smaller[::-1], format="gray16le", interpolation="AREA", threads=1
        )
        shrunk = scaled.to_ndarray().astype(np.uint16, copy=False)
    else:
        whole_levels = cv2.resize(plane, smaller[::-1], interpolation=cv2.INTER_AREA)
        shrunk = whole_levels * np.uint16(PER_LEVEL)
    if smaller == (height, width):
        return shrunk
    grown = cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)
    return grown.astype(np.uint16, copy=False)


def levels_from_averages(averages: Averages, gain: float = 1.0) -> Plane:
    """Multiply averages by `gain` and round to levels; what is brighter than white is white."""
    levels = cv2.convertScaleAbs(averages, alpha=gain / PER_LEVEL)
    return levels.astype(np.uint8, copy=False)
