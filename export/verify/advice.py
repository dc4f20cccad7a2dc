"""What helps where a graph failed the gate: other images, another beta, more steps, or less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...runtime.bundle.manifest import GraphReport
from ...training.learned import LEAST_SPREAD
from .reference import Reference

_LEAST_LEVELS = 1.0
"""Held-out images that differ from their mean by less, as a root mean square, are nearly equal."""


def advice_on(failed: Sequence[GraphReport], reference: Reference) -> str:
    """Return what to do, the last clause of a refusal.

    Float32 graphs that fail do not compute what the model does, whatever it has learned, unless
    its latents are alike for all images: then an error has nothing to be compared with.

    Args:
        failed: The reports that did not pass.
        reference: What they were held against.
    """
    flags = sorted({f"--{report.precision}" for report in failed})
    without = "" if "--fp32" in flags else f", or leave out {' and '.join(flags)}"
    pixels = reference.images.astype(np.float32)
    differing = float(np.sqrt(np.mean((pixels - pixels.mean(axis=0)) ** 2)))
    if differing < _LEAST_LEVELS:
        count = len(reference.images)
        what = "there is one held-out image" if count == 1 else f"all {count} held-out images are "
        what += "" if count == 1 else "equal or nearly so"
        return f"{what}: train on more images that are unlike each other{without}"
    informative = int(reference.informative.sum())
    if not informative:
        return (
            f"none of the {reference.mu.shape[1]} latent units carries information: train with a "
            f"smaller beta in --betas, or more steps{without}"
        )
    typical = float(np.sqrt(np.mean(np.square(reference.spread.mu))))
    alike = typical <= LEAST_SPREAD * float(np.abs(reference.mu, dtype=np.float64).mean())
    if "--fp32" in flags and not alike:
        return (
            "the exported graph does not compute what the model does: export again, with the "
            "versions in constraints.txt"
        )
    return f"train for more steps{without}"
