"""What a pair of float32 engines gives for held-out images and probes: a reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .batches import Engine, encoder_input, run_in_batches
from .probes import probe_images, probe_latents
from .reference import JUDGED_IMAGES, Probes, Reference, Spread, decoded_images

Pictures = npt.NDArray[np.uint8]


def reference_from_engines(
    encoder: Engine,
    decoder: Engine | None,
    images: Pictures,
    spread: Spread | None = None,
    *,
    name: str = "",
) -> Reference:
    """Run an encoder, and a decoder where there is one, in float32; whoever computes them.

    They take the first 256 of fitted images, (N, H, W) grey or (N, 3, H, W), that the model was not
    trained on. The spread of the latents is by default that over these images. The encoder gives
    `mu`, (N, D), and may give `log_var`. `name` is for reports; by default it is the encoder's.
    """
    images = images[:JUDGED_IMAGES]
    latents = run_in_batches(encoder, encoder_input(encoder, images))
    mu, log_var = latents["mu"], latents.get("log_var")
    reference = Reference(
        name=name or f"{encoder.name} float32",
        images=images,
        mu=mu,
        log_var=log_var,
        reconstruction=None if decoder is None else decoded_images(decoder, mu),
        spread=Spread.of(mu, log_var) if spread is None else spread,
    )
    names, probed = probe_images(images)
    found = run_in_batches(encoder, encoder_input(encoder, probed))
    probes = Probes(names, probed, found["mu"], found.get("log_var"))
    if decoder is not None:
        drawn = probe_latents(mu, log_var, reference.scale, found["mu"])
        decoded = decoded_images(decoder, drawn)
        probes = replace(probes, latents=drawn, reconstruction=decoded)
    return replace(reference, probes=probes)
