"""Whether a model has learned anything: the three ways in which it has not, each by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.units import is_informative

LEAST_EXPLAINED = 0.1
"""Share of the pixels' variance below which a reconstruction is called no better than the mean."""
LEAST_SPREAD = 1e-3
"""Spread of the latents over their magnitude below which they are called alike."""

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Learned:
    """What a model has learned, measured on held-out images.

    Attributes:
        informative_units: Latent units that are not collapsed; see `runtime.units`.
        latent_size: D.
        explained: Share of the pixels' variance around the mean image that reconstructions
            explain, 1 at best; 0 and below where they are no better than the mean image.
        problems: What it has not learned, a clause each; empty where all is well.
        advice: What helps, for the last clause of a message; empty likewise.
    """

    informative_units: int
    latent_size: int
    explained: float
    problems: tuple[str, ...]
    advice: str


def learned_from_outputs(
    *,
    mu: Floats,
    log_var: Floats,
    squared_error: float,
    squared_error_of_mean: float,
) -> Learned:
    """Judge a model by what it makes of held-out images.

    Args:
        mu: (N, D), of the held-out images.
        log_var: (N, D).
        squared_error: Of the reconstructions from mu, averaged over pixels and images.
        squared_error_of_mean: The same of the mean image in their place.
    """
    found = np.asarray(mu, np.float64)
    latent_size = found.shape[1]
    problems, advice = [], []
    finite = bool(np.isfinite(found).all() and np.isfinite(log_var).all())
    alike = float(found.std(axis=0).mean()) <= LEAST_SPREAD * float(np.abs(found).mean())
    variance = found.var(axis=0)
    posterior_variance = np.exp(np.asarray(log_var, np.float64)).mean(axis=0)
    informative = int(is_informative(variance, posterior_variance).sum()) if finite else 0
    explained = 1 - squared_error / squared_error_of_mean if squared_error_of_mean > 0 else 0.0
    if not finite:
        problems.append("its latents are not numbers")
        advice.append("a smaller --learning-rate")
    elif len(found) > 1 and alike:
        problems.append("its latents are alike for all held-out images")
        advice.append("more steps, or images that differ more")
    elif len(found) > 1 and not informative:
        problems.append(f"none of its {latent_size} latent units is active")
        advice.append("a smaller beta in --betas, or more steps")
    if len(found) > 1 and not explained >= LEAST_EXPLAINED:
        problems.append(
            f"its reconstructions explain {max(explained, 0):.0%} of what differs from the mean "
            "image"
        )
        advice.append("more steps")
    return Learned(
        informative_units=informative,
        latent_size=latent_size,
        explained=explained,
        problems=tuple(problems),
        advice=advice[0] if advice else "",
    )
