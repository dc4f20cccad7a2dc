"""What torch float32 gives for held-out images and probes: the reference for all graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...runtime.pixels.convert import input_from_luma
from ...training.model.vae import MotorVAE
from .batches import BATCH_SIZE
from .probes import Probes, probe_images, probe_latents
from .reference import JUDGED_IMAGES, Reference, Spread

Float32s = npt.NDArray[np.float32]


def reference_from_model(
    model: MotorVAE, images: npt.NDArray[np.uint8], spread: Spread
) -> Reference:
    """Run the model in float32 on the CPU, in evaluation mode.

    Args:
        model: In evaluation mode.
        images: (N, S, S) fitted luma that it was not trained on; the first 256 are taken.
        spread: How much each latent varies over the training images.
    """
    images = images[:JUDGED_IMAGES]
    reconstruction, mu, log_var = _in_batches(model, images)
    name = f"torch {torch.__version__} float32"
    reference = Reference(name, images, mu, log_var, reconstruction, spread)
    names, probed = probe_images(images)
    _, probes_mu, probes_log_var = _in_batches(model, probed)
    latents = probe_latents(mu, log_var, reference.scale, probes_mu)
    (decoded,) = _in_batches(lambda z: (model.decoder(z),), latents)
    probes = Probes(names, probed, probes_mu, probes_log_var, latents, decoded)
    return replace(reference, probes=probes)


def _in_batches(function: Callable[..., Any], inputs: npt.NDArray[Any]) -> tuple[Float32s, ...]:
    """Return the outputs for latents, or for luma: the reconstruction from mu, mu and log_var."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(inputs), BATCH_SIZE):
            rows = inputs[start : start + BATCH_SIZE]
            batch = input_from_luma(rows[:, None]) if rows.dtype == np.uint8 else rows
            parts.append([tensor.numpy() for tensor in function(torch.from_numpy(batch))])
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
