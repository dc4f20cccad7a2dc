"""Is this image one the model knows? Distances of its latent, by the yardstick in the bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from .arrays import arrays_from_npz
from .bundle import STATISTICS, Bundle
from .errors import BundleError, ConfigError, sentence_list

FOREIGN_ABOVE = 99.9

Statistic = Literal["kl", "mahalanobis", "log_var_distance", "reconstruction_error"]
STATISTIC_NAMES: tuple[Statistic, ...] = get_args(Statistic)
_AGAIN = "train and export again"
_KEYS = (
    *("mean", "covariance", "covariance_ridge"),
    *("log_var_mean", "log_var_deviation", "log_var_ridge"),
    *("quantile_levels", "quantile_count"),
    *(f"{name}_quantiles" for name in STATISTIC_NAMES),
)

Vector = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NoYardstick:
    """Why nothing can be said of what a bundle knows, as a clause with the next step."""

    reason: str


@dataclass(frozen=True, slots=True)
class Likeness:
    """How like those of known images a latent is.

    The KL makes nothing foreign: it falls for many a foreign image, as likelihoods do (Nalisnick
    et al. 2019). Nor does a reconstruction error: it falls for flat images, the simplest to draw
    (Serra et al. 2020). What each of them tells apart is measured in docs/familiarity.md.

    Attributes:
        mahalanobis: As `Familiarity.mahalanobis`.
        mahalanobis_percentile: As `Familiarity.percentile`.
        foreign: Whether one of the distances is past its limit.
        kl: As `Familiarity.kl`; None without log_var, as the next two are.
        log_var_distance: As `Familiarity.log_var_distance`.
        log_var_percentile: As `Familiarity.percentile`.
    """

    mahalanobis: float
    mahalanobis_percentile: float
    foreign: bool
    kl: float | None = None
    log_var_distance: float | None = None
    log_var_percentile: float | None = None


class Familiarity:
    """The yardstick of one bundle: how far from what the model has learned an image may be.

    Distances are counted from the training images; how far is far comes from held-out ones, and
    a percentile is the share of those that are nearer. Whatever the distribution, a new image of
    the same kind is beyond the farthest of n held-out ones once in n + 1 on average, for all
    ranks are equally likely. So 99.9 means what it says from some thousands on. Below a thousand
    it lies between the two farthest: by each distance one or two known images in n + 1 are
    foreign, and as only those two images decide, luck can make that several times more or less.

    One thread at a time: the scratch memory is allocated once.

    Args:
        statistics: What `latents.npz` holds (see motorvae.training.latents).
        foreign_above: Percentile past which an image is foreign, above 0 and up to 100; at 100
            it must be farther than every held-out image.

    Attributes:
        images: Held-out images behind the percentiles.
        foreign_above: As given.

    Raises:
        BundleError: A statistic is missing or does not fit the others.
        ConfigError: `foreign_above` is out of range.
    """

    def __init__(
        self, statistics: Mapping[str, npt.NDArray[Any]], *, foreign_above: float = FOREIGN_ABOVE
    ) -> None:
        if not 0 < foreign_above <= 100:
            raise ConfigError(
                f"foreign_above={foreign_above} is out of range: take a percentile above 0 and "
                "up to 100"
            )
        found = _checked(statistics)
        self.images = int(found["quantile_count"])
        self.foreign_above = foreign_above
        self._mean, self._log_var_mean = found["mean"], found["log_var_mean"]
        self._whitening = _whitening(found["covariance"], found["covariance_ridge"])
        self._per_deviation = 1 / np.sqrt(found["log_var_deviation"] ** 2 + found["log_var_ridge"])
        self._away, self._whitened = np.empty_like(self._mean), np.empty_like(self._mean)
        self._percents = 100 * found["quantile_levels"]
        self._quantiles = {name: found[f"{name}_quantiles"] for name in STATISTIC_NAMES}
        self._limits = {
            name: float(np.interp(foreign_above, self._percents, quantiles))
            for name, quantiles in self._quantiles.items()
        }

    @property
    def latent_size(self) -> int:
        """D, the length of the latents that it judges."""
        return len(self._mean)

    @staticmethod
    def kl(mu: Vector, log_var: Vector) -> float:
        """Return KL(N(mu, exp(log_var)) || N(0, 1)) in nats, summed over latents, both (D,).

        Closed form of Kingma & Welling 2014, appendix B, as training's loss has it.
        """
        return float(0.5 * (np.dot(mu, mu) + (np.expm1(log_var) - log_var).sum()))

    def mahalanobis(self, mu: Vector) -> float:
        """Return the distance of mu (D,) from the mean of the training latents, in spreads."""
        np.subtract(mu, self._mean, out=self._away)
        np.dot(self._whitening, self._away, out=self._whitened)
        return math.sqrt(np.dot(self._whitened, self._whitened))

    def log_var_distance(self, log_var: Vector) -> float:
        """Return the distance of log_var (D,) from training's mean, each in its own deviations.

        How sure the encoder is of an image tells of it too: an empty white scene has a mu much
        as vehicles have, and a log_var as none has.
        """
        np.subtract(log_var, self._log_var_mean, out=self._away)
        np.multiply(self._away, self._per_deviation, out=self._away)
        return math.sqrt(np.dot(self._away, self._away))

    def percentile(self, statistic: Statistic, value: float) -> float:
        """Return the share of held-out images with a smaller value, in percent.

        Linear between the stored quantiles; 0 below the smallest and 100 beyond the largest.
        """
        return float(np.interp(value, self._quantiles[statistic], self._percents))

    def limit(self, statistic: Statistic) -> float:
        """Return the value at `foreign_above`."""
        return self._limits[statistic]

    def is_beyond(self, statistic: Statistic, value: float) -> bool:
        """Tell whether a value is past its limit; one that is no number is."""
        return not value <= self._limits[statistic]

    def likeness(self, mu: Vector, log_var: Vector | None) -> Likeness:
        """Judge one latent, mu and log_var both (D,) float32; without log_var by mu alone."""
        mahalanobis = self.mahalanobis(mu)
        percentile = self.percentile("mahalanobis", mahalanobis)
        foreign = self.is_beyond("mahalanobis", mahalanobis)
        if log_var is None:
            return Likeness(mahalanobis, percentile, foreign)
        log_var_distance = self.log_var_distance(log_var)
        return Likeness(
            mahalanobis=mahalanobis,
            mahalanobis_percentile=percentile,
            foreign=foreign or self.is_beyond("log_var_distance", log_var_distance),
            kl=self.kl(mu, log_var),
            log_var_distance=log_var_distance,
            log_var_percentile=self.percentile("log_var_distance", log_var_distance),
        )


def familiarity_from_bundle(
    bundle: Bundle, *, foreign_above: float = FOREIGN_ABOVE
) -> Familiarity | NoYardstick:
    """Read the yardstick of a bundle.

    Returns:
        It, or why there is none: the bundle comes from a run of an earlier motorVAE.

    Raises:
        BundleError: The statistics cannot be read, or do not fit the model or each other.
        ConfigError: `foreign_above` is out of range.
    """
    listed = [entry for entry in bundle.manifest.files if entry.file == STATISTICS]
    if not listed:
        return NoYardstick(f"{bundle.folder} lists no {STATISTICS}: {_AGAIN}")
    path = bundle.path(listed[0])
    statistics = arrays_from_npz(path, error=BundleError, again=_AGAIN)
    if missing := [key for key in _KEYS if key not in statistics]:
        return NoYardstick(f"{path} has no {sentence_list(missing)}: {_AGAIN}")
    familiarity = Familiarity(statistics, foreign_above=foreign_above)
    if familiarity.latent_size != bundle.spec.latent_size:
        raise BundleError(
            f"{path} describes {familiarity.latent_size} latents, and the model has "
            f"{bundle.spec.latent_size}: {_AGAIN}"
        )
    return familiarity


def _whitening(covariance: Float64s, ridge: Float64s) -> Float64s:
    """Return the (D, D) matrix that turns differences into independent ones of spread 1."""
    try:
        factor = np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))
        inverse: Float64s = np.linalg.inv(factor)
    except np.linalg.LinAlgError as error:
        raise BundleError(f"{STATISTICS}: the covariance is not one: {_AGAIN}") from error
    return inverse


def _checked(statistics: Mapping[str, npt.NDArray[Any]]) -> dict[str, Float64s]:
    """Return the statistics as float64 once they fit each other."""
    if missing := [key for key in _KEYS if key not in statistics]:
        raise BundleError(f"{STATISTICS} has no {sentence_list(missing)}: {_AGAIN}")
    size, levels = statistics["mean"].size, statistics["quantile_levels"].size
    shapes: dict[str, tuple[int, ...]] = {"quantile_levels": (levels,)}
    shapes |= {f"{name}_quantiles": (levels,) for name in STATISTIC_NAMES}
    shapes |= dict.fromkeys(("mean", "log_var_mean", "log_var_deviation"), (size,))
    shapes["covariance"] = (size, size)
    found: dict[str, Float64s] = {}
    for key in _KEYS:
        values, expected = statistics[key], shapes.get(key, ())
        if values.shape != expected or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise BundleError(
                f"{STATISTICS}: {key} is {values.dtype} {values.shape}, expected finite floats "
                f"{expected}: {_AGAIN}"
            )
        found[key] = values.astype(np.float64)
    for key in ("quantile_levels", *(f"{name}_quantiles" for name in STATISTIC_NAMES)):
        if np.any(np.diff(found[key]) < 0):
            raise BundleError(f"{STATISTICS}: {key} falls: {_AGAIN}")
    if levels < 2 or (found["quantile_levels"][0], found["quantile_levels"][-1]) != (0, 1):
        raise BundleError(f"{STATISTICS}: quantile_levels do not go from 0 to 1: {_AGAIN}")
    if not np.all(found["log_var_deviation"] ** 2 + found["log_var_ridge"] > 0):
        raise BundleError(f"{STATISTICS}: a log_var_deviation is 0: {_AGAIN}")
    if not (found["quantile_count"] >= 1 and size):
        raise BundleError(f"{STATISTICS} is of no images: {_AGAIN}")
    return found
