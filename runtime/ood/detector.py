"""Is this image one the model knows? Distances of it and its latent, by the bundle's statistics."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..bundle.load import Bundle
from ..bundle.manifest import STATISTICS
from ..core.documents import arrays_from_npz
from ..core.errors import BundleError, ConfigError, sentence_list
from .appearance import Appearance
from .tail import TAIL_LEVEL, Tail

OOD_ABOVE = 99.9

Statistic = Literal["kl", "mahalanobis", "log_var_distance", "reconstruction_error", "appearance"]
STATISTIC_NAMES: tuple[Statistic, ...] = get_args(Statistic)
ALARM_SHARES: dict[Statistic, float] = {"appearance": 0.8, "mahalanobis": 0.2}
"""What decides, and its part of the false alarms allowed in all (Bonferroni's bound). On varied
photographs mu tells next to nothing, and on a fixed camera an image that it tells is far beyond any
limit: its part may be small."""
_AGAIN = "train and export again"
_ARRAYS = ("appearance_mean", "appearance_deviation", "appearance_references")
_SCALARS = (
    *("covariance_ridge", "covariance_shrinkage", "log_var_ridge", "quantile_count"),
    *(f"{name}_{what}" for name in ALARM_SHARES for what in ("excess", "effective_count")),
)
_KEYS = (
    *("mean", "covariance", "log_var_mean", "log_var_deviation", "quantile_levels"),
    *(f"{name}_quantiles" for name in STATISTIC_NAMES),
    *_SCALARS,
    *_ARRAYS,
)

Vector = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Luma = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class NoStatistics:
    """Why nothing can be said of what a bundle knows, as a clause with the next step."""

    reason: str


@dataclass(frozen=True, slots=True)
class OODScores:
    """How like known images an image and its latent are.

    The KL decides nothing: it falls for many an image out of distribution, as likelihoods do
    (Nalisnick et al. 2019). Nor does a reconstruction error: it falls for flat images, the
    simplest to draw (Serra et al. 2020). What each of them tells apart is measured in docs/ood.md.

    Attributes:
        appearance: As `OODDetector.appearance`.
        appearance_percentile: As `OODDetector.percentile`.
        mahalanobis: As `OODDetector.mahalanobis`.
        mahalanobis_percentile: As `OODDetector.percentile`.
        ood_score: The larger of the two on the way to their limit, 1: of appearance from its
            median on, of mahalanobis from its 95th percentile on.
        is_ood: Whether one of the two is past its limit.
        kl: As `OODDetector.kl`; None without log_var, as the next two are.
        log_var_distance: As `OODDetector.log_var_distance`.
        log_var_percentile: As `OODDetector.percentile`.
    """

    appearance: float
    appearance_percentile: float
    mahalanobis: float
    mahalanobis_percentile: float
    ood_score: float
    is_ood: bool
    kl: float | None = None
    log_var_distance: float | None = None
    log_var_percentile: float | None = None


class OODDetector:
    """The statistics of one bundle: how far from what the model has learned an image may be.

    Two distances decide. One is between appearances (`Appearance`), to the nearest
    of up to 2048 training images (Sun et al. 2022, "Out-of-distribution detection with deep
    nearest neighbors", there with learned features): noise, covered and exposed lenses look like
    no photograph, whatever the encoder makes of them. The other is that of mu from the mean of
    the training latents, which tells another arrangement of the same textures.

    A percentile is the share of known images that are nearer. Limits come from the `Tail` of
    each distance and share the false alarms that `ood_above` allows in all.

    Any thread may ask; one at a time measures an appearance.

    Args:
        statistics: What `latents.npz` holds (see motorvae.training.latent_statistics).
        image_size: S, the side of the model's images.
        ood_above: Percentile past which an image is out of distribution, above 0 and up to 100;
            at 100 it must be farther than every known image that the statistics were measured with.

    Attributes:
        images: Held-out images behind the percentiles of what is learned.
        effective_images: How many independent ones tell as much as they do.
        ood_above: As given.
        false_alarms: The share of known images to expect past one of the limits, at most: what
            `ood_above` allows, or more where so few images can prove no less.

    Raises:
        BundleError: A statistic is missing or does not fit the others.
        ConfigError: `ood_above` is out of range.
    """

    def __init__(
        self,
        statistics: Mapping[str, npt.NDArray[Any]],
        image_size: int,
        *,
        ood_above: float = OOD_ABOVE,
    ) -> None:
        if not 0 < ood_above <= 100:
            raise ConfigError(
                f"ood_above={ood_above} is out of range: take a percentile above 0 and up to 100"
            )
        self._look = Appearance(image_size)
        found = _checked(statistics, len(self._look.names))
        self.images = int(found["quantile_count"])
        self.effective_images = float(found["mahalanobis_effective_count"])
        self.ood_above = ood_above
        self._mean, self._log_var_mean = found["mean"], found["log_var_mean"]
        self._whitening = _whitening(
            shrunk(found["covariance"], float(found["covariance_shrinkage"])),
            found["covariance_ridge"],
        )
        self._per_deviation = 1 / np.sqrt(found["log_var_deviation"] ** 2 + found["log_var_ridge"])
        self._look_mean = found["appearance_mean"]
        self._per_look_deviation = 1 / found["appearance_deviation"]
        self._looks = np.ascontiguousarray(found["appearance_references"], np.float32)
        self._half_squares = 0.5 * (self._looks * self._looks).sum(1)
        self._look_lock = threading.Lock()
        self._percents = 100 * found["quantile_levels"]
        self._quantiles = {name: found[f"{name}_quantiles"] for name in STATISTIC_NAMES}
        self._set_limits(found)

    def _set_limits(self, found: Mapping[str, Float64s]) -> None:
        percentile = self.ood_above
        self._limits = {
            name: float(np.interp(percentile, self._percents, quantiles))
            for name, quantiles in self._quantiles.items()
        }
        self.false_alarms = 0.0
        self._ways: dict[Statistic, tuple[float, float]] = {}
        for name, share in ALARM_SHARES.items():
            tail = Tail(
                found["quantile_levels"],
                self._quantiles[name],
                mean_excess=float(found[f"{name}_excess"]),
                effective_images=float(found[f"{name}_effective_count"]),
            )
            level = 1 - share * (1 - percentile / 100)
            limit = self._limits[name] = tail.limit(level)
            self.false_alarms = min(1.0, self.false_alarms + tail.false_alarms(level))
            # On photographs mu is far from the mean by chance alone: it counts from its tail on.
            start = tail.median if name == "appearance" else tail.limit(TAIL_LEVEL)
            # Where all known images are alike, anything else is infinitely far.
            way = max(limit - start, np.finfo(np.float32).eps * abs(start), 1e-30)
            self._ways[name] = start, 1 / way

    @property
    def latent_size(self) -> int:
        """D, the length of the latents that it judges."""
        return len(self._mean)

    @staticmethod
    def kl(mu: Vector, log_var: Vector) -> float:
        """Return KL(N(mu, exp(log_var)) || N(0, 1)) in nats, summed over latents, both (D,).

        Closed form of Kingma & Welling 2014, appendix B, as training's loss has it.
        """
        # In float64: far from known images the exponential of log_var can exceed float32.
        variance = np.expm1(log_var, dtype=np.float64)
        return float(0.5 * (np.dot(mu, mu) + (variance - log_var).sum()))

    def mahalanobis(self, mu: Vector) -> float:
        """Return the distance of mu (D,) from the mean of the training latents, in spreads."""
        whitened = self._whitening @ (mu - self._mean)
        return math.sqrt(whitened @ whitened)

    def appearance(self, luma: Luma) -> float:
        """Return how far an image (S, S) uint8 looks from the nearest training image.

        The Euclidean distance of what `Appearance` measures, each value in its deviations over
        the training images.
        """
        with self._look_lock:  # what it measures lies in memory that it uses again
            away = (self._look.measure(luma) - self._look_mean) * self._per_look_deviation
        nearest = (self._half_squares - self._looks @ away.astype(np.float32)).min()
        return math.sqrt(max(2 * float(nearest) + float(away @ away), 0.0))

    def log_var_distance(self, log_var: Vector) -> float:
        """Return the distance of log_var (D,) from training's mean, each in its own deviations.

        How sure the encoder is of an image tells of it too: an empty white scene has a mu much
        as vehicles have, and a log_var as none has.
        """
        away = (log_var - self._log_var_mean) * self._per_deviation
        return math.sqrt(away @ away)

    def percentile(self, statistic: Statistic, value: float) -> float:
        """Return the share of held-out images with a smaller value, in percent.

        Linear between the stored quantiles; 0 below the smallest and 100 beyond the largest.
        """
        return float(np.interp(value, self._quantiles[statistic], self._percents))

    def limit(self, statistic: Statistic) -> float:
        """Return the value at `ood_above`."""
        return self._limits[statistic]

    def is_beyond(self, statistic: Statistic, value: float) -> bool:
        """Tell whether a value is past its limit; one that is no number is."""
        return not value <= self._limits[statistic]

    def scored(self, mu: Vector, log_var: Vector | None, appearance: float) -> OODScores:
        """Judge one image.

        Args:
            mu: (D,) float32.
            log_var: (D,) float32, or None: KL and its distance are told, and decide nothing.
            appearance: What `appearance` says of the image that was encoded.
        """
        mahalanobis = self.mahalanobis(mu)
        values: dict[Statistic, float] = {"mahalanobis": mahalanobis, "appearance": appearance}
        scores = [
            (value - self._ways[name][0]) * self._ways[name][1] for name, value in values.items()
        ]
        found = OODScores(
            appearance=appearance,
            appearance_percentile=self.percentile("appearance", appearance),
            mahalanobis=mahalanobis,
            mahalanobis_percentile=self.percentile("mahalanobis", mahalanobis),
            ood_score=max(scores),
            is_ood=any(self.is_beyond(name, value) for name, value in values.items()),
        )
        if log_var is None:
            return found
        log_var_distance = self.log_var_distance(log_var)
        return replace(
            found,
            kl=self.kl(mu, log_var),
            log_var_distance=log_var_distance,
            log_var_percentile=self.percentile("log_var_distance", log_var_distance),
        )


def ood_detector_from_bundle(
    bundle: Bundle, *, ood_above: float = OOD_ABOVE
) -> OODDetector | NoStatistics:
    """Read the statistics of a bundle.

    Returns:
        It, or why there is none: the bundle comes from a run of an earlier motorVAE.

    Raises:
        BundleError: The statistics cannot be read, or do not fit the model or each other.
        ConfigError: `ood_above` is out of range.
    """
    listed = [entry for entry in bundle.manifest.files if entry.file == STATISTICS]
    if not listed:
        return NoStatistics(f"{bundle.folder} lists no {STATISTICS}: {_AGAIN}")
    path = bundle.path(listed[0])
    statistics = arrays_from_npz(path, error=BundleError, again=_AGAIN)
    if missing := missing_statistics(statistics):
        return NoStatistics(f"{path} has no {sentence_list(missing)}: {_AGAIN}")
    detector = OODDetector(statistics, bundle.spec.image_size, ood_above=ood_above)
    if detector.latent_size != bundle.spec.latent_size:
        raise BundleError(
            f"{path} describes {detector.latent_size} latents, and the model has "
            f"{bundle.spec.latent_size}: {_AGAIN}"
        )
    return detector


def missing_statistics(statistics: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """Name what `latents.npz` lacks, as that of an earlier motorVAE does."""
    return [key for key in _KEYS if key not in statistics]


def shrunk(covariance: Float64s, shrinkage: float) -> Float64s:
    """Return a covariance (D, D) with everything off its diagonal times 1 - `shrinkage`."""
    diagonal = np.diag(np.diag(covariance))
    return (1 - shrinkage) * covariance + shrinkage * diagonal


def _whitening(covariance: Float64s, ridge: Float64s) -> Float64s:
    """Return the (D, D) matrix that turns differences into independent ones of spread 1."""
    try:
        factor = np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))
        inverse: Float64s = np.linalg.inv(factor)
    except np.linalg.LinAlgError as error:
        raise BundleError(f"{STATISTICS}: the covariance is not one: {_AGAIN}") from error
    return inverse


def _checked(statistics: Mapping[str, npt.NDArray[Any]], looks: int) -> dict[str, Float64s]:
    """Return the statistics as float64 once they fit each other and appearances of this size."""
    if missing := missing_statistics(statistics):
        raise BundleError(f"{STATISTICS} has no {sentence_list(missing)}: {_AGAIN}")
    size, levels = statistics["mean"].size, statistics["quantile_levels"].size
    shapes: dict[str, tuple[int, ...]] = {"quantile_levels": (levels,)}
    shapes |= {f"{name}_quantiles": (levels,) for name in STATISTIC_NAMES}
    shapes |= dict.fromkeys(("mean", "log_var_mean", "log_var_deviation"), (size,))
    shapes |= dict.fromkeys(("appearance_mean", "appearance_deviation"), (looks,))
    shapes["covariance"] = (size, size)
    shapes["appearance_references"] = (len(np.atleast_1d(statistics[_ARRAYS[-1]])), looks)
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
    if TAIL_LEVEL not in found["quantile_levels"]:
        raise BundleError(f"{STATISTICS}: quantile_levels lack {TAIL_LEVEL}: {_AGAIN}")
    if not np.all(found["appearance_deviation"] > 0):
        raise BundleError(f"{STATISTICS}: an appearance_deviation is 0: {_AGAIN}")
    counts = ("quantile_count", "mahalanobis_effective_count", "appearance_effective_count")
    if not (all(found[key] >= 1 for key in counts) and size and len(found[_ARRAYS[-1]])):
        raise BundleError(f"{STATISTICS} is of no images: {_AGAIN}")
    if not (
        0 <= found["covariance_shrinkage"] <= 1
        and all(found[f"{n}_excess"] >= 0 for n in ALARM_SHARES)
    ):
        raise BundleError(
            f"{STATISTICS}: covariance_shrinkage or an excess is out of range: {_AGAIN}"
        )
    return found
