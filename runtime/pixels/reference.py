"""reference_luma: frame to luma in float64, which training uses and every fast path is held to."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..core.spec import ModelSpec
from .convert import luma_from_image
from .resize import WHITE

Luma = npt.NDArray[np.uint8]

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
    shrunk = _averaged(luma, min(luma.shape[0], side), min(luma.shape[1], side))
    grown = _interpolated(_interpolated(shrunk, side).T, side).T
    fitted: Luma = np.rint(grown).astype(np.uint8)
    return fitted


def _square(luma: Luma, spec: ModelSpec) -> Luma:
    """Crop to the square in the middle, or pad with white, where the fit is not to stretch."""
    height, width = luma.shape
    if spec.fit == "crop":
        square = min(height, width)
        top, left = (height - square) // 2, (width - square) // 2
        return luma[top : top + square, left : left + square]
    if spec.fit == "pad":
        square = max(height, width)
        top, left = (square - height) // 2, (square - width) // 2
        borders = ((top, square - height - top), (left, square - width - left))
        return np.pad(luma, borders, constant_values=WHITE)
    return luma


def _averaged(luma: Luma, height: int, width: int) -> npt.NDArray[np.float64]:
    """Average over areas by a summed-area table (Crow, SIGGRAPH 1984); (height, width).

    Within a pixel the sum up to a point is bilinear, so that fractional coverage is exact.
    """
    sums = cv2.integral(luma, sdepth=cv2.CV_64F).astype(np.float64, copy=False)
    for count in (height, width):  # one axis, then the other
        size = len(sums) - 1
        edges = np.arange(count + 1) * size / count
        whole = np.minimum(edges.astype(np.int64), size - 1)
        share = (edges - whole)[:, None]
        at_edges = sums[whole] * (1 - share) + sums[whole + 1] * share
        sums = np.diff(at_edges, axis=0).T * (count / size)
    return sums


def _interpolated(levels: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Interpolate the rows of (N, M) levels to a larger count; (count, M)."""
    size = len(levels)
    if size == count:
        return levels
    centres = np.clip((np.arange(count) + 0.5) * size / count - 0.5, 0, size - 1)
    above = centres.astype(np.int64)
    share = (centres - above)[:, None]
    return levels[above] * (1 - share) + levels[np.minimum(above + 1, size - 1)] * share
