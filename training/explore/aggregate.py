"""The aggregate posterior: where a model's latents lie over the training images, and how far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..learned import is_informative
from .subject import Subject

Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Aggregate:
    """The mixture of all training images' posteriors, dimension by dimension: (D,) float64 each.

    Attributes:
        mean: Of mu.
        mu_variance: Of mu, over the images.
        posterior_variance: The mean of exp(log_var); 0 of an encoder without log_var.
        kl: Mean KL(N(mu, exp(log_var)) || N(0, 1)) in nats; None without log_var.
        source: What was measured, for a sentence.
    """

    mean: Float64s
    mu_variance: Float64s
    posterior_variance: Float64s
    kl: Float64s | None
    source: str

    @property
    def deviation(self) -> Float64s:
        """The aggregate posterior's standard deviation: of mu and of the noise together."""
        return np.asarray(np.sqrt(self.mu_variance + self.posterior_variance))

    @property
    def informative(self) -> npt.NDArray[np.bool_]:
        """Which dimensions are not collapsed; without log_var those in which mu varies."""
        if self.kl is None:
            return np.asarray(self.mu_variance > 0)
        return is_informative(self.mu_variance, self.posterior_variance)


def aggregate_of(subject: Subject) -> Aggregate:
    """Measure training latents, or where a model came without any, those of held-out images.

    The mean KL of a dimension needs no latents: it is half of Var(mu) + mean^2 + the mean of
    exp(log_var) - 1 - the mean of log_var, by the closed form of Kingma & Welling 2014, appendix B.
    """
    train = subject.train_latents()
    if train.mu is None and train.mean is not None:
        known = subject.statistics()
        needed = ["mu_deviation"]
        needed += ["posterior_variance_mean", "log_var_mean"] if subject.spec.has_log_var else []
        if all(name in known for name in needed):
            return _of_moments(
                train.mean,
                known["mu_deviation"] ** 2,
                known.get("posterior_variance_mean"),
                known.get("log_var_mean"),
                train.source,
            )
    mu, log_var, source = train.mu, train.log_var, train.source
    if mu is None:
        pictures = subject.held_out()
        (mu, log_var), source = subject.encode(pictures.pixels), pictures.source
    log_var = None if log_var is None else log_var.astype(np.float64)
    return _of_moments(
        mu.mean(axis=0, dtype=np.float64),
        mu.var(axis=0, dtype=np.float64),
        None if log_var is None else np.exp(log_var).mean(axis=0),
        None if log_var is None else log_var.mean(axis=0),
        source,
    )


def _of_moments(
    mean: Float64s,
    mu_variance: Float64s,
    posterior_variance: Float64s | None,
    log_var_mean: Float64s | None,
    source: str,
) -> Aggregate:
    if posterior_variance is None or log_var_mean is None:
        return Aggregate(mean, mu_variance, np.zeros_like(mean), None, source)
    kl = 0.5 * (mu_variance + mean**2 + posterior_variance - 1 - log_var_mean)
    return Aggregate(mean, mu_variance, posterior_variance, kl, source)
