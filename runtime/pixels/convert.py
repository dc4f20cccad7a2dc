"""Frame to model input: the fast conversion of streams, and the exact one that it is held to."""

from __future__ import annotations

import functools
import threading
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from ..core.errors import ImageError
from ..core.spec import ModelSpec
from .geometry import AS_CODED, Geometry, stretched
from .orientation import turned

Luma = npt.NDArray[np.uint8]
Averages = npt.NDArray[np.uint16]
Levels = npt.NDArray[np.float64]

_BT601_BGR = np.array([[0.114, 0.587, 0.299]])  # full range: ITU-R BT.601-7, section 2.5.1
WHITE = 255
PER_LEVEL = 256  # averages are uint16 and count so many parts of a level
_STRIPE, _TABLE = 1 << 18, 1 << 23  # samples
_LARGEST_RATIO = 128  # FFmpeg's filters have at most 256 taps
LARGEST_SQUARE = 1 << 28
"""Pixels that what is not square may be padded to."""


class _Scalers(threading.local):
    """FFmpeg's scalers `of` sizes and formats, each set up once; every thread has its own."""

    def __init__(self) -> None:
        self.of = functools.lru_cache(maxsize=16)(lambda *_: VideoReformatter())


SCALERS = _Scalers()


def luma_from_image(image: npt.NDArray[Any]) -> Luma:
    """Return the 8-bit luma of an image: BT.601 weights, full range, alpha over white.

    Takes (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, uint8 or uint16, and returns (H, W)
    uint8. A grey uint8 image is returned as it is, not copied. Anything else is an ImageError.
    """
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    if channels not in {1, 3, 4} or image.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise ImageError(
            f"image of shape {image.shape} and dtype {image.dtype}: "
            "expected 8- or 16-bit grey, BGR or BGRA; convert it first"
        )
    if image.size == 0:
        raise ImageError(f"image of shape {image.shape} has no pixels: replace it")
    if image.dtype == np.uint16 or channels == 4:  # in stripes, which stay in the cache
        luma = np.empty(image.shape[:2], np.uint8)
        rows = max(1, _STRIPE // (image.shape[1] * channels))
        for top in range(0, len(luma), rows):
            luma[top : top + rows] = _luma_from_rare(image[top : top + rows])
        return luma
    if channels == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return image.astype(np.uint8, copy=False)


def _luma_from_rare(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Make luma of 16-bit levels, and of what has alpha."""
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=1 / 257)
    if image.ndim == 3 and image.shape[2] == 4:
        alpha = image[:, :, 3:].astype(np.float32) / WHITE
        over_white = image[:, :, :3] * alpha + WHITE * (1 - alpha)
        image = np.rint(over_white).astype(np.uint8)
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def fitted_luma(luma: Luma, spec: ModelSpec, geometry: Geometry = AS_CODED) -> Luma:
    """Fit (H, W) luma to the model's square, (S, S), by averaging over areas; copies if it must.

    The luma is as coded, and what is returned as it is seen.
    """
    is_square = geometry.aspect == 1 or spec.fit == "stretch"
    if luma.shape != (spec.image_size, spec.image_size) or not is_square:
        luma = levels_from_averages(fitted_plane(luma, spec, luma.shape, geometry=geometry))
    return turned(luma, geometry.orientation)


def input_from_luma(luma: Luma) -> npt.NDArray[np.float32]:
    """Return uint8 luma of any shape times 1/255 as float32."""
    out = np.empty(luma.shape, np.float32)
    write_input(luma, out)
    return out


def write_input(luma: Luma, out: npt.NDArray[Any]) -> None:
    """Write fitted luma into an encoder's input of its shape: uint8, or float32 in [0, 1]."""
    if out.dtype == np.uint8:
        np.copyto(out, luma)
    else:
        np.multiply(luma, np.float32(1 / 255), out=out)


def fitted_plane(
    plane: Luma,
    spec: ModelSpec,
    shape: tuple[int, int],
    white: int = WHITE,
    geometry: Geometry = AS_CODED,
) -> Averages:
    """Fit one plane of an image of a `shape` (height, width) to the model's square by averaging.

    The (H, W) uint8 plane is all of the image, at full size or at a whole fraction of it, as a
    plane of 4:2:0 chroma is; a padded border is `white`. Returns (S, S) uint16, in units of 1/256
    of a level, not turned yet: of that, `geometry` decides only on which side an odd line lies.
    What is too long to be padded is an ImageError.
    """
    side = spec.image_size
    down, across = plane.shape[0] / shape[0], plane.shape[1] / shape[1]
    if geometry.aspect != 1 and spec.fit != "stretch":
        shape = geometry.square_shape(shape)
        plane = stretched(plane, (round(shape[0] * down), round(shape[1] * across)))
        down, across = plane.shape[0] / shape[0], plane.shape[1] / shape[1]
    if spec.fit == "crop":
        square = min(shape)
        top, left = geometry.before(shape, square)
        plane = plane[_part(top, square, down), _part(left, square, across)]
    elif spec.fit == "pad" and shape[0] != shape[1]:
        square = max(shape)
        top, left = (-rest for rest in geometry.before(shape, square))
        box = [length * side for length in (top, left, *shape)]
        if plane.shape[0] >= side <= plane.shape[1] and not any(edge % square for edge in box):
            # The border ends where pixels of the result do, so it need not be averaged.
            top, left, height, width = (edge // square for edge in box)
            fitted = np.full((side, side), white * PER_LEVEL, np.uint16)
            fitted[top : top + height, left : left + width] = averaged(plane, height, width)
            return fitted
        height, width = round(square * down), round(square * across)
        if height * width > LARGEST_SQUARE:
            raise ImageError(
                f"it has {shape[1]} x {shape[0]} pixels, {height * width / 1e6:.0f} million when "
                "padded to a square",
                fix="use a model of another --fit",
            )
        above, before = round(top * down), round(left * across)
        below, behind = height - plane.shape[0] - above, width - plane.shape[1] - before
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


def reference_luma(image: npt.NDArray[Any], spec: ModelSpec) -> Luma:
    """Turn an image into fitted luma as the contract has it, without short cuts.

    BT.601 luma is rounded to 8 bits, then fitted, then averaged over areas with exact fractional
    coverage, and rounded once more. An axis that grows is interpolated between pixel centres.
    Takes what `luma_from_image` does; a grey image of the size (S, S) uint8 comes out as it is.
    """
    if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size:
        exact = cv2.transform(image.astype(np.float64), _BT601_BGR)
        luma = np.rint(exact).astype(np.uint8)
    else:
        luma = luma_from_image(image)
    luma, side = _square(luma, spec), spec.image_size
    if luma.shape == (side, side):
        return luma
    # The average over areas by a summed-area table (Crow, SIGGRAPH 1984): within a pixel the sum up
    # to a point is bilinear, so that fractional coverage is exact. One axis, then the other.
    levels = _row_sums(luma, min(len(luma), side))
    for size in luma.shape:
        count = min(size, side)
        if len(levels) > count:
            levels = np.diff(_rows_at(levels, np.arange(count + 1) * size / count), axis=0)
        levels = levels.T * (count / size)
    for _ in luma.shape:
        size = len(levels)
        centres = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
        levels = (levels if size == side else _rows_at(levels, centres)).T
    fitted: Luma = np.rint(levels).astype(np.uint8)
    return fitted


def _square(luma: Luma, spec: ModelSpec) -> Luma:
    """Crop to the square in the middle, or pad with white, where the fit is not to stretch."""
    if spec.fit == "stretch":
        return luma
    side = min(luma.shape) if spec.fit == "crop" else max(luma.shape)
    top, left = (abs(length - side) // 2 for length in luma.shape)
    if spec.fit == "crop":
        return luma[top : top + side, left : left + side]
    square = np.full((side, side), WHITE, np.uint8)
    square[top : top + luma.shape[0], left : left + luma.shape[1]] = luma
    return square


def _row_sums(luma: Luma, count: int) -> Levels:
    """Sum (H, W) luma over `count` equal heights, and up to each edge of its columns.

    The table of a large picture would take eight times its memory: it is made in parts.
    """
    edges = np.arange(count + 1) * len(luma) / count
    sums = np.empty((count, luma.shape[1] + 1))
    step = max(1, int(_TABLE * count / luma.size))
    for first in range(0, count, step):
        places = edges[first : first + step + 1]
        start, stop = int(places[0]), min(int(places[-1]) + 1, len(luma))
        table = cv2.integral(luma[start:stop], sdepth=cv2.CV_64F).astype(np.float64, copy=False)
        sums[first : first + step] = np.diff(_rows_at(table, places - start), axis=0)
    return sums


def _rows_at(table: Levels, places: Levels) -> Levels:
    """Interpolate between the rows of a table; a place is a row's number and a fraction."""
    above = np.minimum(places.astype(np.int64), max(0, len(table) - 2))
    below = np.minimum(above + 1, len(table) - 1)
    share = (places - above)[:, None]
    between: Levels = table[above] * (1 - share) + table[below] * share
    return between


def _part(start: int, length: int, scale: float) -> slice:
    """Scale an interval; of a chroma plane so thin that none of it is left, its first line is."""
    first = round(start * scale)
    return slice(first, max(round((start + length) * scale), first + 1))
