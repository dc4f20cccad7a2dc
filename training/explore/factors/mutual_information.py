"""How much each latent tells of each factor: mutual information, and the gap between two latents.

Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders" (NeurIPS).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .labels import Factor

BINS = 20
"""Of a latent, and of a continuous factor; so many have Locatello et al. 2019 and its software."""

Float64s = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


def binned(values: npt.NDArray[np.floating[Any]], bins: int = BINS) -> Codes:
    """Return the bin of each value, (N,), between quantiles, so that all hold as many.

    Equal values share a bin. Quantiles, unlike bins of one width, do not depend on outliers nor on
    the scale: any increasing function of a latent is binned as the latent is.
    """
    # In whole numbers: a quantile's position in floats is off by one now and then.
    last = -(-np.arange(1, bins) * len(values) // bins) - 1
    ordered = np.sort(values)
    edges = ordered[np.maximum(last, 0)]
    # The largest value, where it is that frequent, has a bin of its own, as the smallest has.
    below = ordered[ordered < ordered[-1]]
    if len(below):
        edges = np.minimum(edges, below[-1])
    # An edge is a value itself, and belongs to the bin below it.
    found: Codes = np.searchsorted(np.unique(edges), values, side="left").astype(np.int64)
    return found


def codes_of(factor: Factor) -> Codes:
    """Return the bins of a continuous factor, or the classes of a categorical one, where known."""
    values = factor.values[factor.known]
    return values.astype(np.int64) if factor.classes else binned(values)


def entropy(codes: Codes) -> float:
    """Return the entropy of discrete values (N,), in nats."""
    shares = np.bincount(codes) / len(codes)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def mutual_information(one: Codes, other: Codes) -> float:
    """Return the mutual information of two discrete variables, both (N,), in nats.

    That of the observed frequencies, which for independent variables is above zero by about
    (A - 1)(B - 1) / 2N of A and B values; in the difference of two latents that cancels.
    """
    width = int(other.max()) + 1
    joint = np.bincount(one * width + other, minlength=(int(one.max()) + 1) * width)
    shares = joint.reshape(-1, width) / len(one)
    expected = shares.sum(1, keepdims=True) * shares.sum(0, keepdims=True)
    there = shares > 0
    return float((shares[there] * np.log(shares[there] / expected[there])).sum())


def normalised_information(latents: Float64s, factor: Factor) -> Float64s:
    """Return I(z_j; v) / H(v) of each latent with one factor, (D,), from 0 to 1.

    `latents` are the means mu (N, D): Chen et al. sample from the posterior, and Locatello et al.
    2019, whose estimate by bins this is, take its mean.
    """
    known = latents[factor.known]
    codes = codes_of(factor)
    information = [mutual_information(binned(column), codes) for column in known.T]
    return np.array(information) / entropy(codes)


def information_gap(normalised: Float64s) -> float:
    """Return the gap of one factor: the largest of (D,) less the second largest."""
    if len(normalised) < 2:
        return float(normalised[0])
    second, first = np.sort(normalised)[-2:]
    return float(first - second)


def mutual_information_gap(normalised: Float64s) -> float:
    """Return MIG, the mean gap over the factors of a (D, K) matrix of normalised information."""
    return float(np.mean([information_gap(column) for column in normalised.T]))
