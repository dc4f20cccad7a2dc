"""fitted_plane: one plane of an image fitted to the model's square by averaging over areas."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ..core.spec import ModelSpec
from .swscale_area import LARGEST_RATIO, PER_LEVEL, area_averages

WHITE = 255


def fitted_plane(
    plane: npt.NDArray[np.uint8], spec: ModelSpec, shape: tuple[int, int], white: int = WHITE
) -> npt.NDArray[np.uint16]:
    """Fit one plane of an image to the model's square by averaging over areas.

    Args:
        plane: (H, W) uint8: all of the image, at full size or at a whole fraction of it, such as a
            plane of 4:2:0 chroma.
        spec: Gives the side S and the fit.
        shape: Height and width of the image in pixels.
        white: What a padded border holds.

    Returns:
        (S, S) uint16, in units of 1/256 of a level.
    """
    side, square = spec.image_size, max(shape)
    down, across = plane.shape[0] / shape[0], plane.shape[1] / shape[1]
    if spec.fit == "crop":
        square = min(shape)
        top, left = ((length - square) // 2 for length in shape)
        # A chroma plane may be so thin that nothing but its first line is left.
        rows = slice(round(top * down), max(round((top + square) * down), round(top * down) + 1))
        columns = slice(
            round(left * across), max(round((left + square) * across), round(left * across) + 1)
        )
        plane = plane[rows, columns]
    elif spec.fit == "pad" and shape[0] != shape[1]:
        top, left = ((square - length) // 2 for length in shape)
        box = [length * side for length in (top, left, *shape)]
        if plane.shape[0] >= side <= plane.shape[1] and not any(edge % square for edge in box):
            # The border ends where pixels of the result do, so it need not be averaged.
            top, left, height, width = (edge // square for edge in box)
            fitted = np.full((side, side), white * PER_LEVEL, np.uint16)
            fitted[top : top + height, left : left + width] = averaged(plane, height, width)
            return fitted
        above, before = round(top * down), round(left * across)
        plane = cv2.copyMakeBorder(  # type: ignore[assignment]
            plane,
            above,
            round(square * down) - plane.shape[0] - above,
            before,
            round(square * across) - plane.shape[1] - before,
            cv2.BORDER_CONSTANT,
            value=(white,),
        )
    return averaged(plane, side, side)


def averaged(plane: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint16]:
    """Bring a plane to a size: areas are averaged, and an axis that grows is interpolated.

    Args:
        plane: (H, W) uint8.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        (height, width) uint16, in units of 1/256 of a level.
    """
    smaller = min(plane.shape[0], height), min(plane.shape[1], width)
    if smaller == plane.shape:
        shrunk: npt.NDArray[np.uint16] = plane * np.uint16(PER_LEVEL)
    elif max(plane.shape[0] / smaller[0], plane.shape[1] / smaller[1]) <= LARGEST_RATIO:
        shrunk = area_averages(plane, *smaller)  # the axis that shrinks goes first
    else:
        shrunk = cv2.resize(plane, smaller[::-1], interpolation=cv2.INTER_AREA) * np.uint16(
            PER_LEVEL
        )
    if smaller == (height, width):
        return shrunk
    grown = cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)
    return grown.astype(np.uint16, copy=False)


def levels_from_averages(
    averages: npt.NDArray[np.uint16], gain: float = 1.0
) -> npt.NDArray[np.uint8]:
    """Round averages to whole levels.

    Args:
        averages: uint16 of any shape, in units of 1/256 of a level.
        gain: What levels are multiplied by before.

    Returns:
        uint8 of the same shape; what is brighter than white is white.
    """
    levels = cv2.convertScaleAbs(averages, alpha=gain / PER_LEVEL)
    return levels.astype(np.uint8, copy=False)
