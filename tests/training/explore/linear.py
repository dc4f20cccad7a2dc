"""A model that can be computed by hand: latent d moves the pixels of row d, and nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.explore.halves import Halves

SPEC = ModelSpec(image_size=16, channels=None, latent_size=4)
GAINS = (0.01, 0.1, 0.02, 0.0)
"""By how much a pixel of its row changes with each latent; the last does nothing."""

Floats = npt.NDArray[np.float32]


def linear_halves(spec: ModelSpec) -> Halves:
    def encode(pictures: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        images = pictures * np.float32(1 / 255)
        rows = images[:, 0, : spec.latent_size].mean(axis=2) - np.float32(0.5)
        return rows, np.zeros_like(rows)

    def decode(z: Floats) -> Floats:
        images = np.full((len(z), *spec.input_shape), 0.5, np.float32)
        images[:, 0, : spec.latent_size] += (z * np.float32(GAINS))[:, :, None]
        return images

    return Halves(encode, decode, lambda: None)
