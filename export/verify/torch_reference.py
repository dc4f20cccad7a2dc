"""What torch float32 gives for held-out images, and for probes on which no wrong graph can hide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...runtime.pixels.convert import input_from_pixels
from ...training.model import MotorVAE
from .batches import BATCH_SIZE
from .probes import probe_images, probe_latents
from .reference import JUDGED_IMAGES, Probes, Reference, Spread

Luma = npt.NDArray[np.uint8]
Float32s = npt.NDArray[np.float32]


def reference_from_model(model: MotorVAE, images: Luma, spread: Spread) -> Reference:
    """Run a model in evaluation mode, in float32 on the CPU.

    It takes the first 256 of (N, S, S) fitted images that the model was not trained on.
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
            batch = input_from_pixels(rows) if rows.dtype == np.uint8 else rows
            parts.append([tensor.numpy() for tensor in function(torch.from_numpy(batch))])
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
