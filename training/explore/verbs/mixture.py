"""A Gaussian mixture fitted to latents, as many components as the data can tell apart."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

Covariance = Literal["full", "diag"]
Floats = npt.NDArray[np.float32]

_MOST_FULL = 8
"""Components with full covariances: D (D + 1) / 2 numbers each."""
_RIDGE = 1e-4
"""Added to variances of standardised latents: a component may hold few images, or equal ones."""


class Mixture(NamedTuple):
    """The mixture of the smallest Bayesian information criterion (Schwarz 1978)."""

    components: int
    covariance: Covariance
    bic: float
    candidates: list[dict[str, Any]]  # every one that was fitted, with its criterion
    draw: Callable[[int], Floats]  # a number to so many samples (N, D), the same ones each time

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        kind = "full" if self.covariance == "full" else "diagonal"
        some = f"{self.components} Gaussian{'' if self.components == 1 else 's'}"
        return f"{some}, {kind} covariance"


def mixture_of(mu: Floats, components: Sequence[int], seed: int) -> Mixture:
    """Fit mixtures to latents (N, D) by expectation maximisation, and choose one.

    Density estimation after training, as of Ghosh et al. 2020 ("From Variational to Deterministic
    Autoencoders", section 4). Latents are standardised first, since their scale is arbitrary where
    beta is near 0. A number of components needs two images for each, and full covariances D + 1.
    """
    count, size = mu.shape
    mean, deviation = mu.mean(axis=0, dtype=np.float64), mu.std(axis=0, dtype=np.float64)
    moving = deviation > 0
    scaled = (mu[:, moving] - mean[moving]) / deviation[moving]
    best: GaussianMixture | None = None
    candidates: list[dict[str, Any]] = []
    kinds: tuple[Covariance, ...] = ("diag", "full")
    numbers = sorted({*components}) if moving.any() else []
    for number, kind in ((number, kind) for number in numbers for kind in kinds):
        least = 2 if kind == "diag" else size + 1
        if count < number * least or (kind == "full" and number > _MOST_FULL):
            continue
        fitted = GaussianMixture(
            number, covariance_type=kind, reg_covar=_RIDGE, random_state=seed, max_iter=200
        )
        with warnings.catch_warnings():
            # Of so many steps the last change little; whether they were enough is recorded.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted.fit(scaled)
        bic = float(fitted.bic(scaled))
        candidates.append(
            {
                "components": number,
                "covariance": kind,
                "bic": bic,
                "converged": bool(fitted.converged_),
            }
        )
        if best is None or bic < min(one["bic"] for one in candidates[:-1]):
            best = fitted

    def draw(number: int) -> Floats:
        found = np.tile(mean, (number, 1))
        if best is not None:
            best.set_params(random_state=seed)
            samples, _ = best.sample(number)
            # They come component by component.
            order = np.random.default_rng(seed).permutation(number)
            found[:, moving] += samples[order] * deviation[moving]
        return found.astype(np.float32)

    chosen = min(candidates, key=lambda one: one["bic"], default=None)
    if chosen is None:
        return Mixture(1, "diag", float("nan"), [], draw)
    return Mixture(chosen["components"], chosen["covariance"], chosen["bic"], candidates, draw)


def gaussian_of(
    mean: npt.NDArray[np.float64], covariance: npt.NDArray[np.float64], seed: int
) -> Mixture:
    """Return the single Gaussian of a mean (D,) and a covariance (D, D)."""

    def draw(number: int) -> Floats:
        generator = np.random.default_rng(seed)
        found = generator.multivariate_normal(mean, covariance, number, method="eigh")
        return found.astype(np.float32)

    return Mixture(1, "full", float("nan"), [], draw)
