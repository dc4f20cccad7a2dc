"""fitted_plane: one plane of an image fitted to the model's square by averaging over areas."""

from __future__ import annotations

import functools
import threading

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from ..core.spec import ModelSpec

Luma = npt.NDArray[np.uint8]
Averages = npt.NDArray[np.uint16]

WHITE = 255
PER_LEVEL = 256
"""Averages are uint16 and count so many parts of a level."""
_LARGEST_RATIO = 128  # FFmpeg's filters have at most 256 taps


class _Scalers(threading.local):
    """FFmpeg's scalers `of` sizes and formats, each set up once; every thread has its own."""

    def __init__(self) -> None:
        self.of = functools.lru_cache(maxsize=16)(lambda *_: VideoReformatter())


SCALERS = _Scalers()


def fitted_plane(
    plane: Luma, spec: ModelSpec, shape: tuple[int, int], white: int = WHITE
) -> Averages:
    """Fit one plane of an image of a `shape` (height, width) to the model's square by averaging.

    The (H, W) uint8 plane is all of the image, at full size or at a whole fraction of it, as a
    plane of 4:2:0 chroma is; a padded border is `white`. Returns (S, S) uint16, in units of 1/256
    of a level.
    """
    side = spec.image_size
    down, across = plane.shape[0] / shape[0], plane.shape[1] / shape[1]
    if spec.fit == "crop":
        square = min(shape)
        top, left = ((length - square) // 2 for length in shape)
        plane = plane[_part(top, square, down), _part(left, square, across)]
    elif spec.fit == "pad" and shape[0] != shape[1]:
        square = max(shape)
        top, left = ((square - length) // 2 for length in shape)
        box = [length * side for length in (top, left, *shape)]
        if plane.shape[0] >= side <= plane.shape[1] and not any(edge % square for edge in box):
            # The border ends where pixels of the result do, so it need not be averaged.
            top, left, height, width = (edge // square for edge in box)
            fitted = np.full((side, side), white * PER_LEVEL, np.uint16)
            fitted[top : top + height, left : left + width] = averaged(plane, height, width)
            return fitted
        above, before = round(top * down), round(left * across)
        below = round(square * down) - plane.shape[0] - above
        behind = round(square * across) - plane.shape[1] - before
        plane = cv2.copyMakeBorder(  # type: ignore[assignment]
            plane, above, below, before, behind, cv2.BORDER_CONSTANT, value=(white,)
        )
    return averaged(plane, side, side)


def averaged(plane: Luma, height: int, width: int) -> Averages:
    """Average an (H, W) uint8 plane over areas, with fractional coverage at their edges.

    An axis that grows is interpolated, after the other has shrunk. The result is (height, width)
    uint16, in units of 1/256 of a level: averages are right to 0.1 levels up to a ratio of 32, to
    0.3 up to `_LARGEST_RATIO`, and to whole levels beyond.
    """
    smaller = min(plane.shape[0], height), min(plane.shape[1], width)
    if smaller == plane.shape:
        shrunk: Averages = plane * np.uint16(PER_LEVEL)
    elif max(plane.shape[0] / smaller[0], plane.shape[1] / smaller[1]) <= _LARGEST_RATIO:
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


def levels_from_averages(averages: Averages, gain: float = 1.0) -> Luma:
    """Multiply averages by `gain` and round to levels; what is brighter than white is white."""
    levels = cv2.convertScaleAbs(averages, alpha=gain / PER_LEVEL)
    return levels.astype(np.uint8, copy=False)


def _part(start: int, length: int, scale: float) -> slice:
    """Scale an interval; of a chroma plane so thin that none of it is left, its first line is."""
    first = round(start * scale)
    return slice(first, max(round((start + length) * scale), first + 1))
