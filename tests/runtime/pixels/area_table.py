"""The average over areas by a summed-area table: the same as by weights, in another way."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.convert import WHITE, luma_from_image

Luma = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.float64]
_BT601_BGR = np.array([[0.114, 0.587, 0.299]])  # full range: ITU-R BT.601-7, section 2.5.1
_TABLE = 1 << 23  # samples


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
    luma, side = _square(luma, spec), spec.height
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
