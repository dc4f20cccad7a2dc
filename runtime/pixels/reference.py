"""reference_luma: frame to luma in float64, which training uses and every fast path is held to."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..core.spec import ModelSpec
from .convert import luma_from_image
from .resize import WHITE, Luma

Levels = npt.NDArray[np.float64]

BT601_BGR = np.array([[0.114, 0.587, 0.299]])
"""Luma of full-range B, G and R (ITU-R BT.601-7, section 2.5.1)."""


def reference_luma(image: npt.NDArray[Any], spec: ModelSpec) -> Luma:
    """Turn an image into fitted luma as the contract says it, without short cuts.

    BT.601 luma is rounded to 8 bits, then fitted, then averaged over areas with exact fractional
    coverage, and rounded once more. An axis that grows is interpolated between pixel centres.

    Images are taken as by `luma_from_image`. Returns (S, S) uint8; a grey image of that size comes
    out as it is.
    """
    if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size:
        exact = cv2.transform(image.astype(np.float64), BT601_BGR)
        luma = np.rint(exact).astype(np.uint8)
    else:
        luma = luma_from_image(image)
    side = spec.image_size
    luma = _square(luma, spec)
    if luma.shape == (side, side):
        return luma
    levels = _averaged(luma, min(luma.shape[0], side), min(luma.shape[1], side))
    for _ in range(2):  # one axis, then the other
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


def _averaged(luma: Luma, height: int, width: int) -> Levels:
    """Average over areas by a summed-area table (Crow, SIGGRAPH 1984); (height, width).

    Within a pixel the sum up to a point is bilinear, so that fractional coverage is exact.
    """
    sums = cv2.integral(luma, sdepth=cv2.CV_64F).astype(np.float64, copy=False)
    for count in (height, width):
        size = len(sums) - 1
        at_edges = _rows_at(sums, np.arange(count + 1) * size / count)
        sums = np.diff(at_edges, axis=0).T * (count / size)
    return sums


def _rows_at(table: Levels, places: Levels) -> Levels:
    """Interpolate between the rows of a table; a place is a row's number and a fraction."""
    above = np.minimum(places.astype(np.int64), max(0, len(table) - 2))
    below = np.minimum(above + 1, len(table) - 1)
    share = (places - above)[:, None]
    between: Levels = table[above] * (1 - share) + table[below] * share
    return between
