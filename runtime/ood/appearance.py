"""What an image looks like in some 35 numbers: exposure, texture at each scale, coarse layout."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from ..core.spec import Color
from ..pixels.convert import image_from_picture, luma_from_image

_LARGEST_SIDE = 256  # larger images are averaged down to it first: enough to see a lens cap
_DARKEST, _BRIGHTEST = 2, 253
_QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
_QUANTILES_SIDE = 32  # quantiles are those of the image averaged down to at most this side
_LEVELS_PER_UNIT = 16  # quantiles then spread about as far as the logarithms beside them
_LEAST_SIDE, _LEAST_MAP = 4, 8
_TEXTURES = (4, 16)  # sides in pixels of the blocks whose variances are looked at
_LAYOUT_SIDE = 4
LAYOUT = "layout"  # how names of the coarsest image's values begin
_NOISE = 0.05
"""Variance in squared levels below which energies count as none: that of rounding to 8 bits."""
_SHARE = 1e-3
_SPREAD = 0.02

Luma = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]


class Appearance:
    """Measures images on the host, with neither engine nor precision in between.

    An image is averaged over 2 x 2 pixels again and again. What the mean square loses in a step
    is the energy of that band of the Haar transform, which is orthogonal (Mallat 1989). Beside
    the bands stand mean and deviation of the logarithm of the variance in blocks of two sizes:
    photographs have flat and busy parts, noise is alike everywhere. The share of black and of
    white pixels and quantiles of the coarse image measure exposure, and 4 x 4 averages the layout.

    Of colours their luma is measured. What is no square of an even side up to 256 is averaged to
    one first.

    One thread at a time: its planes are allocated once. `names` has what each value is, with the
    sides of blocks in pixels. `height` and `width` are of the images, from 8 on.
    """

    def __init__(self, height: int, width: int, color: Color = "grey") -> None:
        self._color, self._shape = color, (height, width)
        self._side = min(height // 2 * 2, width // 2 * 2, _LARGEST_SIDE)
        sides = [self._side]
        while sides[-1] % 2 == 0 and sides[-1] // 2 >= _LEAST_SIDE:
            sides.append(sides[-1] // 2)
        self._luma: Luma = np.empty((self._side, self._side), np.uint8)
        self._mask = np.empty_like(self._luma)
        self._full: Plane = np.empty((self._side, self._side), np.float32)
        self._means: list[Plane] = [np.empty((s, s), np.float32) for s in sides[1:]]
        small = [mean for mean in self._means if len(mean) <= _QUANTILES_SIDE]
        self._coarse = (small or self._means[-1:])[0]
        textured = [n for n, s in enumerate(sides[1:]) if 2 << n in _TEXTURES and s >= _LEAST_MAP]
        self._textures = {level: np.empty_like(self._means[level]) for level in textured}
        squared = self._means[: max(textured, default=-1) + 1]
        self._mean_squares = [np.empty_like(mean) for mean in squared]
        last = self._coarse.size - 1
        self._ranks = np.array([round(level * last) for level in _QUANTILES])
        blocks = [2 << level for level in range(len(self._means))]
        cells = range(1, _LAYOUT_SIDE + 1)
        self.names = (
            *("white", "black"),
            *(f"band {block}" for block in blocks),
            *(f"{what} {blocks[n]}" for n in textured for what in ("texture", "texture spread")),
            *(f"quantile {level:g}" for level in _QUANTILES),
            *(f"{LAYOUT} {row},{column}" for row in cells for column in cells),
        )

    def measure(self, picture: Luma) -> npt.NDArray[np.float64]:
        """Measure a fitted picture, (H, W) or (3, H, W) uint8; (K,) float64 as in `names`."""
        luma = luma_from_image(image_from_picture(picture, self._color))
        if luma.shape != self._luma.shape:
            _average(luma, self._luma)
            luma = self._luma
        white = self._share_above(luma, _BRIGHTEST - 1)
        black = 1 - self._share_above(luma, _DARKEST)
        values = [math.log(white + _SHARE), math.log(black + _SHARE)]
        np.copyto(self._full, luma)
        fine, energy = self._full, _mean_square(luma)
        for mean in self._means:
            _average(fine, mean)
            coarser = _mean_square(mean)
            values.append(math.log(max(energy - coarser, 0) + _NOISE))
            fine, energy = mean, coarser
        squares = self._full
        cv2.multiply(squares, squares, dst=squares)
        for level, mean_square in enumerate(self._mean_squares):
            _average(squares, mean_square)
            squares = mean_square
            if level in self._textures:
                values += self._texture(level)
        quantiles = np.sort(self._coarse, axis=None)[self._ranks]
        layout = np.empty((_LAYOUT_SIDE, _LAYOUT_SIDE), np.float32)
        _average(fine, layout)
        levels = np.concatenate((quantiles, layout.ravel())) / _LEVELS_PER_UNIT
        return np.concatenate((values, levels))

    def _texture(self, level: int) -> tuple[float, float]:
        """Return mean and log deviation of the log variance in the blocks of a level."""
        found = self._textures[level]
        cv2.multiply(self._means[level], self._means[level], dst=found)
        # No less than 0 but for the rounding of float32, less than half of what is added.
        cv2.subtract(self._mean_squares[level], found, dst=found)
        np.add(found, _NOISE, out=found)
        cv2.log(found, dst=found)
        middle = float(cv2.sumElems(found)[0]) / found.size
        variance = _mean_square(found) - middle**2
        return middle, math.log(math.sqrt(max(variance, 0)) + _SPREAD)

    def _share_above(self, luma: Luma, level: int) -> float:
        cv2.threshold(luma, level, 1, cv2.THRESH_BINARY, dst=self._mask)
        return cv2.countNonZero(self._mask) / luma.size


def _average(fine: Luma | Plane, coarse: Luma | Plane) -> None:
    cv2.resize(fine, coarse.shape, dst=coarse, interpolation=cv2.INTER_AREA)


def _mean_square(plane: Luma | Plane) -> float:
    return cv2.norm(plane, cv2.NORM_L2SQR) / plane.size
