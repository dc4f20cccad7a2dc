"""What a model spends on an image and what it loses of it: active units, rate, distortion."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ....runtime.pixels.convert import input_from_pixels
from ...latent_statistics import kl_of
from ..subject import Latents, Subject

ACTIVE_VARIANCE = 0.01
_CHUNK = 64


class Spending(NamedTuple):
    """Of a model, over N images."""

    active_units: int
    rate_nats: float | None  # None without log_var
    distortion: float | None  # None without a decoder
    kl_of_units: npt.NDArray[np.float64] | None  # (D,) nats, the mean over the images


def spending_of(
    subject: Subject, pictures: npt.NDArray[np.uint8], latents: Latents, *, seed: int
) -> Spending:
    """Measure a model on pictures (N, ...) and their latents.

    Active units are those whose mu has a variance above 0.01 over the images (Burda et al. 2016,
    "Importance Weighted Autoencoders"). Rate is the mean KL of the posterior from the prior in
    nats, summed over latents, and distortion the mean squared error of an image, summed over
    pixels, decoded from one sample of its posterior (Alemi et al. 2018, "Fixing a Broken ELBO"),
    both as training reports them; from mu where there is no log_var.
    """
    mu, log_var = latents
    active = int((mu.var(axis=0, dtype=np.float64) > ACTIVE_VARIANCE).sum())
    distortion = None
    if subject.spec.has_decoder:
        rng, total = np.random.default_rng(seed), 0.0
        for start in range(0, len(mu), _CHUNK):
            part = slice(start, start + _CHUNK)
            z = mu[part]
            if log_var is not None:
                noise = rng.standard_normal(z.shape, np.float32)
                z = z + noise * np.exp(log_var[part] / 2)
            away = np.subtract(
                subject.rebuild(z), input_from_pixels(pictures[part]), dtype=np.float64
            )
            total += float(np.square(away).sum())
        distortion = total / len(mu)
    if log_var is None:
        return Spending(active, None, distortion, None)
    square = np.square(mu, dtype=np.float64)
    each = 0.5 * (square + np.expm1(log_var, dtype=np.float64) - log_var)
    rate = float(kl_of(mu, log_var).mean())
    return Spending(active, rate, distortion, each.mean(axis=0))
