"""What torch float32 says of held-out images and probes: the reference for all graphs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from ...runtime.pixels.convert import input_from_luma
from ...training.model.vae import MotorVAE
from .batches import BATCH_SIZE
from .probes import Probes, probe_images, probe_latents
from .reference import JUDGED_IMAGES, HeldOut, Reference

Float32s = npt.NDArray[np.float32]


def reference_from_model(model: MotorVAE, held_out: HeldOut) -> Reference:
    """Run the model in float32 on the CPU, in evaluation mode.

    Args:
        model: In evaluation mode.
        held_out: Images that it was not trained on; the first 256 are taken.
    """
    images = held_out.images[:JUDGED_IMAGES]
    reconstruction, mu, log_var = _outputs(model, images)
    reference = Reference(
        name=f"torch {torch.__version__} float32",
        images=images,
        mu=mu,
        log_var=log_var,
        reconstruction=reconstruction,
        spread=held_out.spread,
    )
    names, probed = probe_images(images)
    _, probes_mu, probes_log_var = _outputs(model, probed)
    latents = probe_latents(mu, log_var, reference.scale, probes_mu)
    decoded = _decoded(model, latents)
    probes = Probes(names, probed, probes_mu, probes_log_var, latents, decoded)
    return replace(reference, probes=probes)


def _outputs(model: MotorVAE, images: npt.NDArray[np.uint8]) -> tuple[Float32s, ...]:
    """Return the reconstruction from mu, mu and log_var."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH_SIZE):
            luma = images[start : start + BATCH_SIZE, None]
            output = model(torch.from_numpy(input_from_luma(luma)))
            parts.append([tensor.numpy() for tensor in output])
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _decoded(model: MotorVAE, latents: Float32s) -> Float32s:
    with torch.inference_mode():
        parts = [
            model.decoder(torch.from_numpy(latents[start : start + BATCH_SIZE])).numpy()
            for start in range(0, len(latents), BATCH_SIZE)
        ]
    return np.concatenate(parts)
