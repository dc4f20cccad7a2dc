"""What an image looks like in some 40 numbers: exposure, texture at each scale, coarse layout."""

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
    each band stand the share of it that is diagonal, large for noise and small for edges, and
    mean and deviation of the logarithm of the variance inside a block: photographs have flat and
    busy parts, noise is alike everywhere. The share of black and of white pixels and quantiles
    of the coarse image tell exposure, and 4 x 4 averages the layout.

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
        planes = [(np.empty((s, s), np.float32), np.empty((s, s), np.float32)) for s in sides]
        self._first, self._planes = planes[0], planes[1:]
        self._squares = [np.empty_like(mean) for mean, _ in self._planes]
        self._diagonals = [np.empty_like(mean) for mean, _ in self._planes]
        self.names = self._names()
        self._values = np.zeros(len(self.names))
        self._layout = np.empty((_LAYOUT_SIDE, _LAYOUT_SIDE), np.float32)
        self._last = self._values[-self._layout.size :]
        last = self._coarse**2 - 1
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
        fine, squares = self._first
        np.copyto(fine, luma)
        cv2.multiply(fine, fine, dst=squares)
        energy = cv2.norm(luma, cv2.NORM_L2SQR) / luma.size
        place = 2
        for level, (side, (mean, mean_square)) in enumerate(
            zip(self._sides, self._planes, strict=True)
        ):
            shape = (side, side)
            cv2.resize(fine, shape, dst=mean, interpolation=cv2.INTER_AREA)
            cv2.resize(squares, shape, dst=mean_square, interpolation=cv2.INTER_AREA)
            square = self._squares[level]
            cv2.multiply(mean, mean, dst=square)
            coarser = float(cv2.sumElems(square)[0]) / square.size
            band = math.log(max(energy - coarser, 0) + _NOISE)
            values[place] = band
            place += 1
            if level:  # of all pixels it would cost as much as the rest, and tell little more
                diagonal = self._diagonals[level]
                np.subtract(fine[::2, ::2], fine[1::2, ::2], out=diagonal)
                np.subtract(diagonal, fine[::2, 1::2], out=diagonal)
                np.add(diagonal, fine[1::2, 1::2], out=diagonal)
                found = cv2.norm(diagonal, cv2.NORM_L2SQR) / (16 * diagonal.size)
                values[place] = math.log(found + _NOISE) - band
                place += 1
            if side >= _LEAST_MAP:
                # No less than 0 but for the rounding of float32, less than half of what is added.
                np.subtract(mean_square, square, out=square)
                np.add(square, _NOISE, out=square)
                cv2.log(square, dst=square)
                middle = float(cv2.sumElems(square)[0]) / square.size
                variance = cv2.norm(square, cv2.NORM_L2SQR) / square.size - middle**2
                values[place] = middle
                values[place + 1] = math.log(math.sqrt(max(variance, 0)) + _SPREAD)
                place += 2
            if side == self._coarse:
                ordered = np.sort(mean, axis=None)
                quantiles = ordered[self._ranks]
            fine, squares, energy = mean, mean_square, coarser
        shape = self._layout.shape
        cv2.resize(fine, shape, dst=self._layout, interpolation=cv2.INTER_AREA)
        np.divide(quantiles, _LEVELS_PER_UNIT, out=values[place : place + len(quantiles)])
        np.divide(self._layout.ravel(), _LEVELS_PER_UNIT, out=self._last)
        return values

    def _share_above(self, luma: Luma, level: int) -> float:
        cv2.threshold(luma, level, 1, cv2.THRESH_BINARY, dst=self._mask)
        return cv2.countNonZero(self._mask) / luma.size

    def _names(self) -> tuple[str, ...]:
        """Return what each value is, sides in pixels of a block."""
        names = ["white", "black"]
        for level, side in enumerate(self._sides):
            block = 2 << level
            names.append(f"band {block}")
            if level:
                names.append(f"diagonal {block}")
            if side >= _LEAST_MAP:
                names += [f"texture {block}", f"texture spread {block}"]
        names += [f"quantile {level:g}" for level in _QUANTILES]
        cells = range(1, _LAYOUT_SIDE + 1)
        return (*names, *(f"{LAYOUT} {row},{column}" for row in cells for column in cells))
