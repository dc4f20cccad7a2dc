"""What an image looks like in some 35 numbers: exposure, texture at each scale, coarse layout."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

LARGEST_SIDE = 256
"""Larger images are averaged down to this side first: a lens cap is seen at 256 pixels, too."""
_DARKEST, _BRIGHTEST = 2, 253
_QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
_QUANTILES_SIDE = 32
"""Quantiles are those of the image averaged down to at most so many pixels a side."""
_LEVELS_PER_UNIT = 16
"""Scales a grey level so that quantiles spread about as far as the logarithms beside them."""
_LEAST_SIDE, _LEAST_MAP = 4, 8
_TEXTURES = (4, 16)
"""Sides in pixels of the blocks whose variances are looked at."""
_LAYOUT_SIDE = 4
LAYOUT = "layout"
"""How names of the coarsest image's values begin."""
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
    white pixels and quantiles of the coarse image tell exposure, and 4 x 4 averages the layout.

    One thread at a time: its planes are allocated once.

    Args:
        side: S of the images, an even number from 8.
    """

    def __init__(self, side: int) -> None:
        self._side = min(side, LARGEST_SIDE)
        self._is_reduced = side > LARGEST_SIDE
        sides = [self._side]
        while sides[-1] % 2 == 0 and sides[-1] // 2 >= _LEAST_SIDE:
            sides.append(sides[-1] // 2)
        self._sides = sides[1:]
        self._coarse = next((s for s in self._sides if s <= _QUANTILES_SIDE), self._sides[-1])
        self._luma: Luma = np.empty((self._side, self._side), np.uint8)
        self._mask = np.empty_like(self._luma)
        self._full = np.empty((self._side, self._side), np.float32)
        self._means = [np.empty((s, s), np.float32) for s in self._sides]
        self._has_texture = [
            2 << level in _TEXTURES and s >= _LEAST_MAP for level, s in enumerate(self._sides)
        ]
        textured = max((n for n, has in enumerate(self._has_texture, 1) if has), default=0)
        self._mean_squares = [np.empty_like(mean) for mean in self._means[:textured]]
        self._textures = [np.empty_like(square) for square in self._mean_squares]
        self._ordered = np.empty(self._coarse**2, np.float32)
        self.names = self._names()
        self._values = np.zeros(len(self.names))
        self._layout = np.empty((_LAYOUT_SIDE, _LAYOUT_SIDE), np.float32)
        self._last = self._values[-self._layout.size :]
        last = self._ordered.size - 1
        self._ranks = np.array([round(level * last) for level in _QUANTILES])

    def measure(self, luma: Luma) -> npt.NDArray[np.float64]:
        """Measure one image.

        Args:
            luma: (S, S) uint8, a frame as it goes to the encoder.

        Returns:
            (K,) float64 in the order of `names`, the same memory every time.
        """
        if self._is_reduced:
            shape = (self._side, self._side)
            cv2.resize(luma, shape, dst=self._luma, interpolation=cv2.INTER_AREA)
            luma = self._luma
        values = self._values
        values[0] = math.log(self._share_above(luma, _BRIGHTEST - 1) + _SHARE)
        values[1] = math.log(1 - self._share_above(luma, _DARKEST) + _SHARE)
        np.copyto(self._full, luma)
        energy = cv2.norm(luma, cv2.NORM_L2SQR) / luma.size
        place, fine = 2, self._full
        for side, mean in zip(self._sides, self._means, strict=True):
            cv2.resize(fine, (side, side), dst=mean, interpolation=cv2.INTER_AREA)
            coarser = cv2.norm(mean, cv2.NORM_L2SQR) / mean.size
            values[place] = math.log(max(energy - coarser, 0) + _NOISE)
            place += 1
            if side == self._coarse:
                self._ordered[:] = mean.ravel()
            fine, energy = mean, coarser
        squares = cv2.multiply(self._full, self._full, dst=self._full)
        for level, mean_square in enumerate(self._mean_squares):
            shape = mean_square.shape
            cv2.resize(squares, shape, dst=mean_square, interpolation=cv2.INTER_AREA)
            squares = mean_square
            if self._has_texture[level]:
                values[place : place + 2] = self._texture(level)
                place += 2
        self._ordered.sort()
        quantiles = self._ordered[self._ranks]
        shape = self._layout.shape
        cv2.resize(fine, shape, dst=self._layout, interpolation=cv2.INTER_AREA)
        np.divide(quantiles, _LEVELS_PER_UNIT, out=values[place : place + len(quantiles)])
        np.divide(self._layout.ravel(), _LEVELS_PER_UNIT, out=self._last)
        return values

    def _texture(self, level: int) -> tuple[float, float]:
        """Return mean and log deviation of the log variance in the blocks of a level."""
        found = self._textures[level]
        cv2.multiply(self._means[level], self._means[level], dst=found)
        # No less than 0 but for the rounding of float32, less than half of what is added.
        cv2.subtract(self._mean_squares[level], found, dst=found)
        np.add(found, _NOISE, out=found)
        cv2.log(found, dst=found)
        middle = float(cv2.sumElems(found)[0]) / found.size
        variance = cv2.norm(found, cv2.NORM_L2SQR) / found.size - middle**2
        return middle, math.log(math.sqrt(max(variance, 0)) + _SPREAD)

    def _share_above(self, luma: Luma, level: int) -> float:
        cv2.threshold(luma, level, 1, cv2.THRESH_BINARY, dst=self._mask)
        return cv2.countNonZero(self._mask) / luma.size

    def _names(self) -> tuple[str, ...]:
        """Return what each value is, sides in pixels of a block."""
        blocks = [2 << level for level in range(len(self._sides))]
        names = ["white", "black", *(f"band {block}" for block in blocks)]
        for block, has_texture in zip(blocks, self._has_texture, strict=True):
            if has_texture:
                names += [f"texture {block}", f"texture spread {block}"]
        names += [f"quantile {level:g}" for level in _QUANTILES]
        cells = range(1, _LAYOUT_SIDE + 1)
        return (*names, *(f"{LAYOUT} {row},{column}" for row in cells for column in cells))
