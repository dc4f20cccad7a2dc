"""What out-of-distribution detection can recognise for one model, tried on generated images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..runtime.bundle.manifest import KindCapability, OODCapability
from ..runtime.engines.base import Backend
from ..runtime.engines.open import open_file
from ..runtime.ood.detector import OODDetector, OODScores, missing_statistics
from ..runtime.pixels.convert import input_from_luma
from .verify.batches import run_in_batches

IMAGES = 48
"""Of each kind, and at most so many held-out ones: AUROCs are right to a few hundredths."""
_SEED = 2026
_SOFT_CELLS = 8
"""Soft noise is this many random cells a side, made smooth."""
_TILES, _PATCHES, _BLUR = 4, 8, 32
"""An image's side over that of a tile, of a patch, and over the standard deviation of a blur."""

Luma = npt.NDArray[np.uint8]
Float64s = npt.NDArray[np.float64]


def scored_images(
    encoder: Backend, images: Luma, detector: OODDetector
) -> tuple[list[OODScores], npt.NDArray[np.float32]]:
    """Encode images (N, S, S) uint8 and judge each as a stream does; return (N, D) mu as well."""
    latents = run_in_batches(encoder, input_from_luma(images[:, None]))
    rows = zip(latents["mu"], latents["log_var"], images, strict=True)
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
    encoder: Path, statistics: Mapping[str, npt.NDArray[Any]], images: Luma
) -> OODCapability | None:
    """Judge held-out images (N, S, S) uint8 and others made for the purpose, as a stream would.

    The default limit and the float32 `encoder` are used, and held-out images at even distances.
    None where the run left too few `statistics`, which `latents.npz` holds.
    """
    if missing_statistics(statistics):
        return None
    detector = OODDetector(statistics, images.shape[1])
    evenly = np.linspace(0, len(images) - 1, min(IMAGES, len(images))).round().astype(np.int64)
    known = images[evenly]
    others = made_images(_SEED, IMAGES, images.shape[1]) | altered_images(known, _SEED)
    kinds = []
    with open_file(encoder) as backend:
        known_scores = [one.ood_score for one in scored_images(backend, known, detector)[0]]
        for name, luma in others.items():
            scores, _ = scored_images(backend, luma, detector)
            found = auroc(np.array(known_scores), np.array([one.ood_score for one in scores]))
            flagged = float(np.mean([one.is_ood for one in scores]))
            kinds.append(KindCapability(name=name, images=len(luma), auroc=found, flagged=flagged))
    return OODCapability(
        ood_above=detector.ood_above,
        false_alarms=detector.false_alarms,
        images=detector.images,
        effective_images=detector.effective_images,
        kinds=tuple(kinds),
    )


def made_images(seed: int, count: int, size: int) -> dict[str, Luma]:
    """Make `count` images (size, size) uint8 of every kind that needs no known one, by its name.

    `size` is the model's: a camera's noise would be averaged away when it is resized.
    """
    return {
        name: np.stack([make(np.random.default_rng((seed, kind, n)), size) for n in range(count)])
        for kind, (name, make) in enumerate(_MADE.items())
    }


def altered_images(known: Luma, seed: int) -> dict[str, Luma]:
    """Alter known images (N, S, S) uint8 in each of several ways: the nearly known is hardest."""
    return {
        name: np.stack(
            [alter(np.random.default_rng((seed, kind, n)), image) for n, image in enumerate(known)]
        )
        for kind, (name, alter) in enumerate(_ALTERED.items())
    }


def _luma(values: npt.NDArray[np.float64]) -> Luma:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _soft_noise(rng: np.random.Generator, size: int) -> Luma:
    cells = rng.integers(0, 256, (_SOFT_CELLS, _SOFT_CELLS), np.uint8)
    soft: Luma = cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    return soft


def _finger(rng: np.random.Generator, size: int) -> Luma:
    """A finger or a leaf: flat dark grey, light leaking in from one side."""
    leak = np.linspace(0, rng.uniform(0, 40), size)
    return _luma(rng.uniform(20, 90) + leak + rng.normal(0, 3, (size, size)))


def _shifted(rng: np.random.Generator, image: Luma) -> Luma:
    """Move an image by up to a half: what leaves on one side comes in on the other."""
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


def _patched(rng: np.random.Generator, image: Luma) -> Luma:
    size = len(image)
    patched: Luma = image.copy()
    top, left = rng.integers(size // 4, 3 * size // 4, 2)
    patched[top : top + size // _PATCHES, left : left + size // _PATCHES] = 0
    return patched


_MADE: dict[str, Callable[[np.random.Generator, int], Luma]] = {
    "noise, white": lambda rng, size: rng.integers(0, 256, (size, size), np.uint8),
    "noise, Gaussian": lambda rng, size: _luma(rng.normal(128, 40, (size, size))),
    "noise, soft": _soft_noise,
    # A cap: black level with sensor noise.
    "covered, dark": lambda rng, size: _luma(rng.normal(4, 3, (size, size))),
    "covered, finger": _finger,
    # All but saturated. Training's vehicles stand on pure white, so this is one without any.
    "overexposed, flat": lambda rng, size: _luma(rng.normal(258, 2, (size, size))),
    "underexposed, flat": lambda rng, size: _luma(
        rng.uniform(5, 25) + rng.normal(0, 2, (size, size))
    ),
}
_ALTERED: dict[str, Callable[[np.random.Generator, Luma], Luma]] = {
    "overexposed, gain": lambda rng, image: _luma(
        rng.uniform(3, 8) * image.astype(np.float64)
        + rng.uniform(20, 120)
        + rng.normal(0, 2, image.shape)
    ),
    "underexposed, gain": lambda rng, image: _luma(
        image / rng.uniform(8, 20) + rng.normal(0, 2, image.shape)
    ),
    "blurred": lambda _, image: np.asarray(
        cv2.GaussianBlur(image, (0, 0), len(image) / _BLUR), np.uint8
    ),
    "shifted": _shifted,
    "tiles shuffled": _shuffled,
    "inverted": lambda _, image: 255 - image,
    "upside down": lambda _, image: image[::-1],
    "patched": _patched,
}
