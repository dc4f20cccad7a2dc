"""What out-of-distribution detection can tell for one model, tried on a new bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.ood_capability import KindCapability, OODCapability
from ...runtime.engines.base import Backend
from ...runtime.engines.open import open_file
from ...runtime.ood.detector import OODDetector, OODScores, missing_statistics
from ...runtime.pixels.convert import input_from_luma
from ..verify.batches import run_in_batches
from .images import altered_images, made_images

IMAGES = 48
"""Of each kind, and at most so many held-out ones: AUROCs are right to a few hundredths."""
_SEED = 2026

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
    """Judge held-out images and others made for the purpose, as a stream would.

    Args:
        encoder: The float32 graph.
        statistics: What `latents.npz` holds.
        images: (N, S, S) uint8, held-out ones; those at even distances are taken.

    Returns:
        What was found at the default limit; None where a run of an earlier motorVAE left too
        few statistics to judge at all.
    """
    if missing_statistics(statistics):
        return None
    detector = OODDetector(statistics, images.shape[1])
    evenly = np.linspace(0, len(images) - 1, min(IMAGES, len(images))).round().astype(np.int64)
    known = images[evenly]
    others = made_images(_SEED, IMAGES, images.shape[1]) | altered_images(known, _SEED)
    kinds = []
    with open_file(encoder) as backend:
        known_scores = np.array(
            [one.ood_score for one in scored_images(backend, known, detector)[0]]
        )
        for name, luma in others.items():
            scores, _ = scored_images(backend, luma, detector)
            kinds.append(
                KindCapability(
                    name=name,
                    images=len(luma),
                    auroc=auroc(known_scores, np.array([one.ood_score for one in scores])),
                    flagged=float(np.mean([one.is_ood for one in scores])),
                )
            )
    return OODCapability(
        ood_above=detector.ood_above,
        false_alarms=detector.false_alarms,
        images=detector.images,
        effective_images=detector.effective_images,
        kinds=tuple(kinds),
    )
