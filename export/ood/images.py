"""Images that no model has learned: noise, a covered lens, known ones altered, by a seed."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Luma = npt.NDArray[np.uint8]
Make = Callable[[np.random.Generator, int], Luma]
Alter = Callable[[np.random.Generator, Luma], Luma]

_SOFT_CELLS = 8
"""Soft noise is this many random cells a side, made smooth."""
_TILES, _PATCHES, _BLUR = 4, 8, 32
"""An image's side over that of a tile, of a patch, and over the standard deviation of a blur."""


def made_images(seed: int, count: int, size: int) -> dict[str, Luma]:
    """Make every kind of image that needs no known one, the same ones for the same seed.

    Args:
        seed: 0 or more.
        count: N, images of each kind.
        size: S, the model's side. They are made at this size: a camera's noise would be averaged
            away on its way to the model.

    Returns:
        Name of a kind to (N, S, S) uint8.
    """
    return {
        name: np.stack([make(np.random.default_rng((seed, kind, n)), size) for n in range(count)])
        for kind, (name, make) in enumerate(_MADE.items())
    }


def altered_images(known: Luma, seed: int) -> dict[str, Luma]:
    """Alter known images (N, S, S) uint8: what is nearly known is the hardest to tell.

    Returns:
        Name of a kind to (N, S, S) uint8: by gain and noise all but white or black, out of focus,
        moved by up to a half with what leaves on one side coming in on the other, 4 x 4 tiles
        shuffled, inverted, upside down, and with a black square whose side is an eighth of the
        image's.
    """
    return {
        name: np.stack(
            [alter(np.random.default_rng((seed, kind, n)), image) for n, image in enumerate(known)]
        )
        for kind, (name, alter) in enumerate(_ALTERED.items())
    }


def _luma(values: npt.NDArray[np.float64]) -> Luma:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _white_noise(rng: np.random.Generator, size: int) -> Luma:
    return rng.integers(0, 256, (size, size), np.uint8)


def _gaussian_noise(rng: np.random.Generator, size: int) -> Luma:
    return _luma(rng.normal(128, 40, (size, size)))


def _soft_noise(rng: np.random.Generator, size: int) -> Luma:
    cells = rng.integers(0, 256, (_SOFT_CELLS, _SOFT_CELLS), np.uint8)
    soft: Luma = cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    return soft


def _dark(rng: np.random.Generator, size: int) -> Luma:
    """A cap: black level with sensor noise."""
    return _luma(rng.normal(4, 3, (size, size)))


def _finger(rng: np.random.Generator, size: int) -> Luma:
    """A finger or a leaf: flat dark grey, light leaking in from one side."""
    leak = np.linspace(0, rng.uniform(0, 40), size)
    return _luma(rng.uniform(20, 90) + leak + rng.normal(0, 3, (size, size)))


def _overexposed(rng: np.random.Generator, size: int) -> Luma:
    """All but saturated. Training's vehicles stand on pure white, so this is one without any."""
    return _luma(rng.normal(258, 2, (size, size)))


def _underexposed(rng: np.random.Generator, size: int) -> Luma:
    return _luma(rng.uniform(5, 25) + rng.normal(0, 2, (size, size)))


def _too_bright(rng: np.random.Generator, image: Luma) -> Luma:
    gained = rng.uniform(3, 8) * image.astype(np.float64) + rng.uniform(20, 120)
    return _luma(gained + rng.normal(0, 2, image.shape))


def _too_dark(rng: np.random.Generator, image: Luma) -> Luma:
    return _luma(image / rng.uniform(8, 20) + rng.normal(0, 2, image.shape))


def _blurred(_rng: np.random.Generator, image: Luma) -> Luma:
    blurred: Luma = cv2.GaussianBlur(image, (0, 0), len(image) / _BLUR)  # type: ignore[assignment]
    return blurred


def _shifted(rng: np.random.Generator, image: Luma) -> Luma:
    size = len(image)
    down, right = rng.integers(size // 4, 3 * size // 4, 2)
    moved: Luma = np.roll(image, (int(down), int(right)), (0, 1))
    return moved


def _shuffled(rng: np.random.Generator, image: Luma) -> Luma:
    side = len(image) // _TILES
    tiles = image.reshape(_TILES, side, _TILES, side).swapaxes(1, 2).reshape(-1, side, side)
    mixed = rng.permutation(tiles).reshape(_TILES, _TILES, side, side)
    shuffled: Luma = np.ascontiguousarray(mixed.swapaxes(1, 2)).reshape(image.shape)
    return shuffled


def _inverted(_rng: np.random.Generator, image: Luma) -> Luma:
    inverted: Luma = 255 - image
    return inverted


def _upturned(_rng: np.random.Generator, image: Luma) -> Luma:
    upturned: Luma = np.ascontiguousarray(image[::-1])
    return upturned


def _patched(rng: np.random.Generator, image: Luma) -> Luma:
    size = len(image)
    patched: Luma = image.copy()
    top, left = rng.integers(size // 4, 3 * size // 4, 2)
    patched[top : top + size // _PATCHES, left : left + size // _PATCHES] = 0
    return patched


_MADE: dict[str, Make] = {
    "noise, white": _white_noise,
    "noise, Gaussian": _gaussian_noise,
    "noise, soft": _soft_noise,
    "covered, dark": _dark,
    "covered, finger": _finger,
    "overexposed, flat": _overexposed,
    "underexposed, flat": _underexposed,
}
_ALTERED: dict[str, Alter] = {
    "overexposed, gain": _too_bright,
    "underexposed, gain": _too_dark,
    "blurred": _blurred,
    "shifted": _shifted,
    "tiles shuffled": _shuffled,
    "inverted": _inverted,
    "upside down": _upturned,
    "patched": _patched,
}
