"""What the worst of the next images stays below, from those judged: extreme-value statistics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

NEXT_IMAGES = 128
"""How many fresh images a bound is about."""
RISK = 0.05
"""How often their worst may exceed it."""

_SHAPES = np.linspace(0.0, 1.0, 21)[:-1, None]
_SCALES = np.geomspace(1e-2, 1e2, 97)[None, :]
_FURTHEST = 1e12


def upper_bound(
    samples: npt.NDArray[np.floating[Any]], *, batch: int = NEXT_IMAGES, risk: float = RISK
) -> float:
    """Return what the largest of `batch` fresh samples exceeds with probability `risk` at most.

    The largest of m fresh values exceeds the largest of n judged ones with probability
    m / (m + n), whatever their distribution, as any of all is as likely the largest. Where that
    is within the risk (n >= 19 m for 5 %), the largest seen is the bound. With fewer it is
    extrapolated: values beyond a high threshold follow a generalised Pareto distribution
    (Pickands 1975), whose scale and shape are averaged over what the largest 4 sqrt(n) values
    or half of all leave possible, so that few samples give a wide bound (the predictive
    distribution of a future maximum, Coles 2001, "An Introduction to Statistical Modeling of
    Extreme Values", section 9.1.3). Scales weigh as 1 / scale before that, and shapes 1 - shape
    from 0 to 1: no end is taken for granted that no sample shows, and tails as heavy as that of a
    lognormal are covered.

    Samples are (N,), one figure an image, at least 0, larger is worse; drawn as the fresh ones
    will be. The bound is at least the largest; infinite for fewer than 3 samples, from which no
    tail is known, unless `batch` is that small; NaN for a NaN.
    """
    values = np.sort(np.asarray(samples, np.float64))
    count = len(values)
    top = float(values[-1]) if count else math.inf
    if not math.isfinite(top) or batch * (1 - risk) <= risk * count:
        return top
    if count < 3:
        return math.inf
    beyond = max(2, min(count // 2, round(4 * math.sqrt(count))))
    threshold = float(values[-beyond - 1])
    excess = values[-beyond:] - threshold
    unit = float(excess.mean())
    if unit <= 0:  # all of the largest are equal
        return top
    # How likely each shape and scale is, given the excesses over their mean.
    terms = np.sum([_log_terms(float(value / unit)) for value in excess], axis=0)
    log_likelihood = -beyond * np.log(_SCALES) - (1 + _SHAPES) * terms
    weights = np.exp(log_likelihood - log_likelihood.max()) * (1 - _SHAPES)
    weights /= weights.sum()

    def probability(height: float) -> float:
        """Return how likely the largest of the batch is beyond; the rate is a Gamma variable."""
        rates = batch / count * np.exp(-_log_terms(height))
        return float(1 - (weights * (1 + rates) ** -(beyond + 1.0)).sum())

    low, high = 0.0, 1.0
    while probability(high) > risk:
        low, high = high, 4 * high
        if high > _FURTHEST:
            return math.inf
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) > risk else (low, middle)
    return max(top, threshold + unit * high)


def _log_terms(height: float) -> npt.NDArray[np.float64]:
    """Return -log of the share of excesses beyond a height, for each shape and scale."""
    ratio = height / _SCALES
    with np.errstate(divide="ignore", invalid="ignore"):
        terms: npt.NDArray[np.float64] = np.log1p(_SHAPES * ratio) / _SHAPES
    terms[0] = ratio[0]  # shape 0: exponential
    return terms
