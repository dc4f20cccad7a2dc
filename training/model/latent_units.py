"""Which latent units carry information, and which are collapsed: their posterior is the prior."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

COLLAPSED_NATS = 0.01
"""A unit that tells less of an image than this is collapsed."""


def information_nats(
    mu_variance: npt.NDArray[np.floating[Any]], posterior_variance: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.float64]:
    """Return how much each unit tells of an image, in nats: (D,) float64.

    The capacity of a Gaussian channel, ln(1 + S / N) / 2 (Shannon 1949), whose signal is the
    variance of mu over the data and whose noise is the posterior's own variance. Unlike the KL
    to the prior it counts no constant offset of mu, and unlike a threshold on the variance of mu
    (Burda et al. 2016) it does not depend on the scale of a unit, which is arbitrary where beta
    is near 0. At a posterior variance of 1, as of collapsed units, `COLLAPSED_NATS` is a variance
    of mu of 0.02.

    Args:
        mu_variance: (D,), over the data.
        posterior_variance: (D,), the mean of exp(log_var) over the data.
    """
    noise = np.maximum(
        np.asarray(posterior_variance, np.float64), np.finfo(np.float64).tiny * 2**52
    )
    nats: npt.NDArray[np.float64] = 0.5 * np.log1p(np.asarray(mu_variance, np.float64) / noise)
    return nats


def is_informative(
    mu_variance: npt.NDArray[np.floating[Any]], posterior_variance: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.bool_]:
    """Tell which units are not collapsed: (D,) bool. Arguments as of `information_nats`."""
    found: npt.NDArray[np.bool_] = information_nats(mu_variance, posterior_variance) >= (
        COLLAPSED_NATS
    )
    return found
