"""What out-of-distribution detection can recognise for one model, tried on generated images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..runtime.bundle.manifest import KindCapability, OODCapability
from ..runtime.core.spec import ModelSpec
from ..runtime.engines.base import Backend
from ..runtime.engines.open import open_file
from ..runtime.ood.detector import OODDetector, OODScores, missing_statistics
from ..runtime.pixels.convert import input_from_pixels
from .verify.batches import run_in_batches

IMAGES = 48
"""Of each kind, and at most so many held-out ones: AUROCs are right to a few hundredths."""
_SEED = 2026
_SOFT_CELLS = 8
"""Soft noise is this many random cells a side, made smooth."""
_TILES, _PATCHES, _BLUR = 4, 8, 32
"""An image's side over that of a tile, of a patch, and over the standard deviation of a blur."""

Pixels = npt.NDArray[np.uint8]
Shape = tuple[int, ...]
Float64s = npt.NDArray[np.float64]


def scored_images(
    encoder: Backend, images: Pixels, detector: OODDetector
) -> tuple[list[OODScores], npt.NDArray[np.float32]]:
    """Encode images (N, S, S) uint8 and judge each as a stream does; return (N, D) mu as well."""
    latents = run_in_batches(encoder, input_from_pixels(images))
    log_vars = latents.get("log_var", [None] * len(images))
    rows = zip(latents["mu"], log_vars, images, strict=True)
    scores = [detector.scored(mu, log_var, detector.appearance(x)) for mu, log_var, x in rows]
    return scores, latents["mu"]


def auroc(known: Float64s, others: Float64s) -> float:
    """Return the area under the ROC curve of telling `others` (M,) from `known` (N,).

    By ranks: it is the Mann-Whitney statistic over N M (Hanley & McNeil 1982); ties count half.
    """
    ordered = np.sort(known)
    smaller = np.searchsorted(ordered, others, side="left")
    not_larger = np.searchsorted(ordered, others, side="right")
    return float((smaller + not_larger).mean() / (2 * len(known)))


def ood_capability(
    encoder: Path, statistics: Mapping[str, npt.NDArray[Any]], images: Pixels, spec: ModelSpec
) -> OODCapability | None:
    """Judge held-out pictures, (N, ...) as fitted, and others made for the purpose, as streams do.

    The default limit and the float32 `encoder` are used, and held-out images at even distances.
    None where the run left too few `statistics`, which `latents.npz` holds.
    """
    if missing_statistics(statistics, spec):
        return None
    detector = OODDetector(statistics, spec)
    evenly = np.linspace(0, len(images) - 1, min(IMAGES, len(images))).round().astype(np.int64)
    known = images[evenly]
    others = made_images(_SEED, IMAGES, images.shape[1:]) | altered_images(known, _SEED)
    kinds = []
    with open_file(encoder) as backend:
        known_scores = [one.ood_score for one in scored_images(backend, known, detector)[0]]
        for name, pictures in others.items():
            scores, _ = scored_images(backend, pictures, detector)
            found = auroc(np.array(known_scores), np.array([one.ood_score for one in scores]))
            flagged = float(np.mean([one.is_ood for one in scores]))
            kinds.append(
                KindCapability(name=name, images=len(pictures), auroc=found, flagged=flagged)
            )
    return OODCapability(
        ood_above=detector.ood_above,
        false_alarms=detector.false_alarms,
        images=detector.images,
        effective_images=detector.effective_images,
        kinds=tuple(kinds),
    )


def made_images(seed: int, count: int, shape: Shape) -> dict[str, Pixels]:
    """Make `count` fitted pictures of every kind that needs no known one, by its name.

    `shape` is the model's: a camera's noise would be averaged away when it is resized. Colours
    have noise of their own, and are exposed alike.
    """
    return {
        name: np.stack([make(np.random.default_rng((seed, kind, n)), shape) for n in range(count)])
        for kind, (name, make) in enumerate(_MADE.items())
    }


def altered_images(known: Pixels, seed: int) -> dict[str, Pixels]:
    """Alter known pictures, (N, ...), in each of several ways: the nearly known is hardest."""
    return {
        name: np.stack(
            [alter(np.random.default_rng((seed, kind, n)), image) for n, image in enumerate(known)]
        )
        for kind, (name, alter) in enumerate(_ALTERED.items())
    }


def _levels(values: npt.NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _planes(alter: Callable[[Pixels], Any], picture: Pixels) -> Pixels:
    """Do the same to each plane of a picture, (H, W) or (3, H, W)."""
    planes = picture.reshape(-1, *picture.shape[-2:])
    found = [np.asarray(alter(plane), np.uint8) for plane in planes]
    return np.stack(found).reshape(picture.shape)


def _soft_noise(rng: np.random.Generator, shape: Shape) -> Pixels:
    size = shape[-1], shape[-2]

    def soft(_: Pixels) -> Any:
        cells = rng.integers(0, 256, (_SOFT_CELLS, _SOFT_CELLS), np.uint8)
        return cv2.resize(cells, size, interpolation=cv2.INTER_CUBIC)

    return _planes(soft, np.empty(shape, np.uint8))


def _finger(rng: np.random.Generator, shape: Shape) -> Pixels:
    """A finger or a leaf: flat dark grey, light leaking in from one side."""
    leak = np.linspace(0, rng.uniform(0, 40), shape[-1])
    return _levels(rng.uniform(20, 90) + leak + rng.normal(0, 3, shape))


def _shifted(rng: np.random.Generator, image: Pixels) -> Pixels:
    """Move an image by up to a half: what leaves on one side comes in on the other."""
    size = min(image.shape[-2:])
    down, right = rng.integers(size // 4, 3 * size // 4, 2)
    return np.roll(image, (int(down), int(right)), (-2, -1))


def _shuffled(rng: np.random.Generator, image: Pixels) -> Pixels:
    """Put tiles in another order; what is left beside them stays."""
    order = rng.permutation(_TILES * _TILES)
    down, across = (length // _TILES for length in image.shape[-2:])

    def mixed(plane: Pixels) -> Pixels:
        found: Pixels = plane.copy()
        part = plane[: down * _TILES, : across * _TILES].reshape(_TILES, down, _TILES, across)
        tiles = part.swapaxes(1, 2).reshape(-1, down, across)[order]
        rows = tiles.reshape(_TILES, _TILES, down, across).swapaxes(1, 2)
        found[: down * _TILES, : across * _TILES] = rows.reshape(down * _TILES, across * _TILES)
        return found

    return _planes(mixed, image)


def _patched(rng: np.random.Generator, image: Pixels) -> Pixels:
    size = min(image.shape[-2:])
    patched: Pixels = image.copy()
    top, left = rng.integers(size // 4, 3 * size // 4, 2)
    patched[..., top : top + size // _PATCHES, left : left + size // _PATCHES] = 0
    return patched


_MADE: dict[str, Callable[[np.random.Generator, Shape], Pixels]] = {
    "noise, white": lambda rng, shape: rng.integers(0, 256, shape, np.uint8),
    "noise, Gaussian": lambda rng, shape: _levels(rng.normal(128, 40, shape)),
    "noise, soft": _soft_noise,
    # A cap: black level with sensor noise.
    "covered, dark": lambda rng, shape: _levels(rng.normal(4, 3, shape)),
    "covered, finger": _finger,
    # All but saturated. Training's vehicles stand on pure white, so this is one without any.
    "overexposed, flat": lambda rng, shape: _levels(rng.normal(258, 2, shape)),
    "underexposed, flat": lambda rng, shape: _levels(rng.uniform(5, 25) + rng.normal(0, 2, shape)),
}
_ALTERED: dict[str, Callable[[np.random.Generator, Pixels], Pixels]] = {
    "overexposed, gain": lambda rng, image: _levels(
        rng.uniform(3, 8) * image.astype(np.float64)
        + rng.uniform(20, 120)
        + rng.normal(0, 2, image.shape)
    ),
    "underexposed, gain": lambda rng, image: _levels(
        image / rng.uniform(8, 20) + rng.normal(0, 2, image.shape)
    ),
    "blurred": lambda _, image: _planes(
        lambda plane: cv2.GaussianBlur(plane, (0, 0), min(plane.shape) / _BLUR), image
    ),
    "shifted": _shifted,
    "tiles shuffled": _shuffled,
    "inverted": lambda _, image: 255 - image,
    "upside down": lambda _, image: image[..., ::-1, :],
    "patched": _patched,
}
