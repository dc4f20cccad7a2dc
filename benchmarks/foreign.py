"""Images that a model has not learned: noise, a covered lens, a user's video and pictures."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from ..runtime.camera import open_source
from ..runtime.errors import ConfigError, SourceError
from ..runtime.faults import SYNTHETIC_SIZE
from ..runtime.frames import Gap, fitted_luma, luma_from_image
from ..runtime.spec import ModelSpec
from ..runtime.vehicles import RANGES, MovingVehicles, vehicle

Luma = npt.NDArray[np.uint8]
Make = Callable[[np.random.Generator, int], Luma]

MOVING_FPS = 10
_SOFT_CELLS = 8
"""Soft noise is this many random cells a side, made smooth."""
_PATCHES, _BLUR = 8, 32
"""An image's side over that of a patch, and over the standard deviation of a blur."""


def made_images(seed: int, count: int, size: int) -> dict[str, Luma]:
    """Make every built-in kind of foreign image, the same ones for the same seed.

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
        Name of a kind to (N, S, S) uint8: upside down, out of focus, and with a black square on
        it whose side is an eighth of the image's.
    """
    size = known.shape[1]
    side = size // _PATCHES
    patched = known.copy()
    rng = np.random.default_rng(seed)
    for image, (top, left) in zip(
        patched, rng.integers(size // 4, 3 * size // 4, (len(known), 2)), strict=True
    ):
        image[top : top + side, left : left + side] = 0
    sigma = size / _BLUR
    return {
        "known, upturned": np.ascontiguousarray(known[:, ::-1]),
        "known, blurred": np.stack([cv2.GaussianBlur(image, (0, 0), sigma) for image in known]),
        "known, patched": patched,
    }


def vehicles(seed: int, count: int, spec: ModelSpec) -> Luma:
    """Draw vehicles as training draws them: (N, S, S) uint8."""
    return np.stack([vehicle(seed, index, spec.image_size)[0] for index in range(count)])


def moving_vehicles(seed: int, count: int, spec: ModelSpec) -> tuple[Luma, Luma]:
    """See vehicles drive by for `count` frames, as `--camera synthetic` does.

    Returns:
        Two of (N, S, S) uint8: the frames whose vehicle stands where training had vehicles, and
        those whose vehicle is further out, down to none at all.
    """
    world = MovingVehicles(seed, SYNTHETIC_SIZE)
    frames = np.empty((count, spec.image_size, spec.image_size), np.uint8)
    inside = np.zeros(count, np.bool_)
    for index in range(count):
        time_s = index / MOVING_FPS
        factors = world.factors(time_s)
        low, high = RANGES[factors.body]["x"]
        inside[index] = low <= factors.x <= high
        frames[index] = fitted_luma(world.image(time_s), spec)
    return frames[inside], frames[~inside]


def images_from_source(text: str, count: int, spec: ModelSpec) -> Luma:
    """Read a video or a folder of images through the path that a camera's frames take.

    Args:
        text: As `open_source` takes it.
        count: At most so many frames are kept, evenly apart.
        spec: Gives the side S and the fit.

    Returns:
        (N, S, S) uint8.

    Raises:
        ConfigError: The source is live and has no end.
        SourceError: It cannot be opened, or nothing in it decodes.
    """
    kept: list[Luma] = []
    apart, frames = 1, 0
    with open_source(text) as source:
        if source.live:
            raise ConfigError(f"{source.name} is live and has no end: record it and name the file")
        while (item := source.read()) is not None:
            if isinstance(item, Gap):
                continue
            if frames % apart == 0:
                kept.append(fitted_luma(luma_from_image(item.image), spec).copy())
            frames += 1
            if len(kept) == 2 * count:  # how many will come is not always known
                kept, apart = kept[::2], 2 * apart
        if not kept:
            raise SourceError(f"nothing in {source.name} decodes: name other images or video")
    evenly = np.linspace(0, len(kept) - 1, min(count, len(kept))).round().astype(np.int64)
    return np.stack([kept[place] for place in evenly])


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


_MADE: dict[str, Make] = {
    "noise, white": _white_noise,
    "noise, Gaussian": _gaussian_noise,
    "noise, soft": _soft_noise,
    "covered, dark": _dark,
    "covered, finger": _finger,
    "overexposed": _overexposed,
}
