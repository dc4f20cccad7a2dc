"""Whether a model has learned anything: which latent units carry information, and what is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..runtime.core.errors import sentence_list

COLLAPSED_NATS = 0.01
"""Less information of a unit about an image than this is a collapse: its posterior is the prior."""
LEAST_EXPLAINED = 0.1
"""Share of the pixels' variance below which a reconstruction is called no better than the mean."""
_ALIKE_IMAGES = (1 / 255) ** 2
"""Mean square, of pixels in [0, 1], by which images differ that are a level apart."""
LEAST_SPREAD = 1e-3
"""Spread of the latents over their magnitude below which they are called alike."""

Floats = npt.NDArray[np.floating[Any]]


class Rows(Protocol):
    """An array, or what gives rows of one when asked by a slice."""

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Learned:
    """What a model has learned, measured on held-out images."""

    informative_units: int  # latent units that are not collapsed; see `is_informative`
    # share of the pixels' variance around the mean image that reconstructions explain, 1 at best; 0
    # and below where they are no better than the mean image; NaN without a decoder
    explained: float
    problems: tuple[str, ...]  # what it has not learned, a clause each; empty where all is well
    advice: str  # what helps, for the last clause of a message; empty likewise

    def sentence(self) -> str:
        """Return what has not been learned and what helps, for a message; empty if all is well."""
        return f"{sentence_list(self.problems)}; {self.advice}" if self.problems else ""


def is_informative(mu_variance: Floats, posterior_variance: Floats) -> npt.NDArray[np.bool_]:
    """Return which latent units are not collapsed: (D,) bool.

    Information is the capacity of a Gaussian channel, ln(1 + S / N) / 2 nats (Shannon 1949), whose
    signal is the variance of mu over the data and whose noise is the posterior's own variance.
    Unlike the KL to the prior it counts no constant offset of mu, and unlike a threshold on the
    variance of mu (Burda et al. 2016) it does not depend on the scale of a unit, which is arbitrary
    where beta is near 0. At a posterior variance of 1, as of collapsed units, `COLLAPSED_NATS` is a
    variance of mu of 0.02. Both variances are (D,), the posterior's the mean of exp(log_var).
    """
    smallest = np.finfo(np.float64).tiny * 2**52
    noise = np.maximum(np.asarray(posterior_variance, np.float64), smallest)
    nats: npt.NDArray[np.float64] = 0.5 * np.log1p(np.asarray(mu_variance, np.float64) / noise)
    return nats >= COLLAPSED_NATS


def learned_from_reconstructions(
    images: npt.NDArray[np.uint8], reconstruction: Rows | None, mu: Floats, log_var: Floats | None
) -> Learned:
    """Judge a model by its outputs for held-out images, one by one, in little memory.

    These are (N, H, W) grey or (N, 3, H, W). A reconstruction (N, C, H, W), from mu, is compared
    with the mean of the other images: the mean of all would be the image itself where there is one,
    and too good a guess where there are few. Without a decoder, or log_var, the rest is judged.
    """
    if reconstruction is None:
        return learned_from_outputs(
            mu=mu, log_var=log_var, squared_error=math.nan, squared_error_of_mean=math.nan
        )
    count = len(images)
    mean = images.mean(axis=0, dtype=np.float64) / 255
    others = count / max(count - 1, 1)
    error = error_of_mean = 0.0
    for row, image in enumerate(images):
        pixels = image / 255.0
        rebuilt = np.asarray(reconstruction[row : row + 1], np.float64).reshape(image.shape)
        error += float(np.square(rebuilt - pixels).mean()) / count
        error_of_mean += float(np.square((mean - pixels) * others).mean()) / count
    return learned_from_outputs(
        mu=mu, log_var=log_var, squared_error=error, squared_error_of_mean=error_of_mean
    )


def learned_from_outputs(
    *, mu: Floats, log_var: Floats | None, squared_error: float, squared_error_of_mean: float
) -> Learned:
    """Judge a model by its outputs for held-out images, mu and log_var (N, D).

    The squared errors of the reconstructions from mu, and of the mean image in their place, are
    averages over pixels and images; NaN without a decoder. Without log_var every unit that varies
    is informative.
    """
    mu = np.asarray(mu, np.float64)
    problems, advice = [], []
    informative = 0
    several = len(mu) > 1
    has_decoder = not math.isnan(squared_error_of_mean)
    explained = 1 - squared_error / squared_error_of_mean if squared_error_of_mean > 0 else 0.0
    if not has_decoder:
        explained = math.nan
    if not (np.isfinite(mu).all() and (log_var is None or np.isfinite(log_var).all())):
        problems.append("its latents are not numbers")
        advice.append("a smaller --learning-rate")
    else:
        # Past this a posterior is no better known, and exp would overflow.
        informative = int(np.count_nonzero(mu.var(axis=0)))
        if log_var is not None:
            variances = np.exp(np.minimum(np.asarray(log_var, np.float64), 500)).mean(axis=0)
            informative = int(is_informative(mu.var(axis=0), variances).sum())
        if several and mu.std(axis=0).mean() <= LEAST_SPREAD * np.abs(mu).mean():
            problems.append("its latents are alike for all held-out images")
            advice.append("more steps, or images that differ more")
        elif several and not informative:
            problems.append(f"none of its {mu.shape[1]} latent units is active")
            advice.append("a smaller beta in --betas, or more steps")
    if has_decoder and several and not explained >= LEAST_EXPLAINED:
        share = f"{max(explained, 0):.0%}"
        problems.append(f"its reconstructions explain {share} of what differs from the mean image")
        advice.append(
            "images that differ more" if squared_error_of_mean < _ALIKE_IMAGES else "more steps"
        )
    return Learned(informative, explained, tuple(problems), advice[0] if advice else "")
