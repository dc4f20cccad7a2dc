"""Disentanglement, completeness and informativeness, by what boosted trees need to tell a factor.

Eastwood & Williams 2018, "A Framework for the Quantitative Evaluation of Disentangled
Representations" (ICLR). They take lasso and random forests; gradient boosted trees, as in Locatello
et al. 2019, "Challenging Common Assumptions in the Unsupervised Learning of Disentangled
Representations" (ICML), are what published tables mostly have.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

from .labels import Factor
from .probes import Split

TREES = 100
_SUBSAMPLE = 0.5
"""Of the images each tree sees so many (Friedman 2002, "Stochastic gradient boosting"): half the
time, and no worse."""

Float64s = npt.NDArray[np.float64]


class Trees(NamedTuple):
    """What trees found of one factor."""

    importance: Float64s  # (D,), not negative, summing to 1; all 0 where no split helped
    score: float  # held out: R2 of a continuous factor, accuracy of a categorical one


class DCI(NamedTuple):
    """The three figures, from 0 to 1; `informativeness` may be below 0 where R2 is."""

    disentanglement: float  # NaN with a single factor
    completeness: float  # NaN with a single latent
    informativeness: float


def trees_of(latents: Float64s, factor: Factor, split: Split, *, seed: int) -> Trees:
    """Fit boosted trees to a factor by latents (N, D), and score them on the held-out part.

    An importance is the total decrease of impurity by splits on a latent (Breiman et al. 1984).
    """
    kind = GradientBoostingClassifier if factor.classes else GradientBoostingRegressor
    model = kind(n_estimators=TREES, max_depth=3, subsample=_SUBSAMPLE, random_state=seed)
    model.fit(latents[split.train], factor.values[split.train])
    score = float(model.score(latents[split.test], factor.values[split.test]))
    return Trees(np.asarray(model.feature_importances_, np.float64), score)


def disentanglement_of(importance: Float64s) -> Float64s:
    """Return of each latent how far it serves one factor alone, (D,), from (D, K) importances.

    D_i = 1 - H_K(P_i): the entropy of what share of its importance each factor has, to base K.
    """
    return _one_less_entropy(importance)


def completeness_of(importance: Float64s) -> Float64s:
    """Return of each factor how far a single latent holds it, (K,), from (D, K) importances.

    C_j = 1 - H_D(P_j): the entropy of what share of its importance each latent has, to base D.
    """
    return _one_less_entropy(importance.T)


def dci_of(importance: Float64s, scores: Float64s) -> DCI:
    """Return the three figures of (D, K) importances and (K,) held-out scores.

    Latents count by their share of all importance, factors alike. A latent or factor without any
    importance has no share; its own figure is 0.
    """
    total = importance.sum()
    weights = importance.sum(1) / total if total > 0 else np.zeros(len(importance))
    return DCI(
        disentanglement=float(np.dot(weights, disentanglement_of(importance))),
        completeness=float(completeness_of(importance).mean()),
        informativeness=float(scores.mean()),
    )


def _one_less_entropy(rows: Float64s) -> Float64s:
    """Return 1 - H of each row of shares, to the base of its length; NaN where that is 1."""
    length = rows.shape[1]
    if length < 2:
        return np.full(len(rows), math.nan)
    sums = rows.sum(1, keepdims=True)
    shares = np.divide(rows, sums, out=np.full_like(rows, 1 / length), where=sums > 0)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    found: Float64s = 1 + (shares * logs).sum(1) / math.log(length)
    return found
