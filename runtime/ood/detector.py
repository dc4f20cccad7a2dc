"""Is this image one the model knows? Distances of it and its latent, by the bundle's statistics."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..bundle.load import Bundle
from ..bundle.manifest import STATISTICS
from ..core.documents import Form, arrays_from_npz
from ..core.errors import BundleError, ConfigError, MotorVAEError, sentence_list
from ..core.spec import ModelSpec
from .appearance import Appearance, Luma
from .features import feature_count, features_of
from .tail import TAIL_LEVEL, Tail

OOD_ABOVE = 99.9

Statistic = Literal["kl", "mahalanobis", "log_var_distance", "reconstruction_error", "appearance"]
STATISTIC_NAMES: tuple[Statistic, ...] = get_args(Statistic)
ALARM_SHARES: dict[Statistic, float] = {"appearance": 0.8, "mahalanobis": 0.2}
"""What decides, and its part of the false alarms allowed in all (Bonferroni's bound). On varied
photographs mu separates next to nothing, and on a fixed camera an image that it does separate is
far beyond any limit: its part may be small."""
FEW_IMAGES = 2
"""Where the images behind a limit are so few that false alarms may be this many times what is
asked for, the clause says how many there were."""
MOST_FALSE_ALARMS = 0.5
"""Where more known images than this may be flagged, though fewer were allowed, none is judged."""
_MOST_BYTES = 256 << 20  # a covariance of 4096 latents is half of that
_AGAIN = "train and export again"

Vector = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Statistics = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class OODScores:
    """How like known images an image and its latent are; distances as of `OODDetector`'s methods.

    The KL decides nothing: it falls for many an image out of distribution, as likelihoods do
    (Nalisnick et al. 2019). Nor does a reconstruction error: it falls for flat images, the
    simplest to draw (Serra et al. 2020). What each of them detects is measured in docs/ood.md.
    """

    appearance: float
    appearance_percentile: float
    ood_score: float
    """The larger of the two, scaled so that their limit is 1: appearance from its median on,
    mahalanobis from its 95th percentile on."""
    is_ood: bool  # whether one of the two is past its limit
    mahalanobis: float | None = None  # this and the next are None where no features are measured
    mahalanobis_percentile: float | None = None
    kl: float | None = None  # this and what follows are None without log_var
    log_var_distance: float | None = None
    log_var_percentile: float | None = None


class OODDetector:
    """The statistics of one bundle: how far from what the model has learned an image may be.

    Two distances decide. One is between appearances (`Appearance`), to the nearest of up to 2048
    training images (Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors",
    there with learned features): noise, covered and exposed lenses look like no photograph,
    whatever the encoder makes of them. The other is that of mu, or of its features where it is
    spatial (see `features`), from the mean of the training latents, which shows another
    arrangement of the same textures. Of a flat latent of more than 1024 numbers, appearance
    alone decides.

    A percentile is the share of known images that are nearer. Limits come from the `Tail` of
    each distance and share the false alarms that `ood_above` allows in all.

    `statistics` are what `latents.npz` holds (see motorvae.training.latent_statistics), with none
    of the `missing_statistics`; a BundleError where they do not fit each other. `ood_above` is the
    percentile past which an image is out of distribution, above 0 and up to 100 (else a
    ConfigError); at 100 it must be farther than every known image that the statistics were
    measured with. Any thread may ask, also at the same time.

    `statistics` of the instance has the names of those that this model has.
    """

    def __init__(
        self, statistics: Statistics, spec: ModelSpec, *, ood_above: float = OOD_ABOVE
    ) -> None:
        if not 0 < ood_above <= 100:
            raise ConfigError(
                f"ood_above={ood_above} is out of range: take a percentile above 0 and up to 100"
            )
        self._looks_of = threading.local()
        self._spec = spec
        found = _checked(statistics, spec, len(self._look.names))
        self.statistics = statistics_of(spec)
        self.ood_above = ood_above
        self.images = int(found["quantile_count"])  # held-out ones behind the percentiles
        # Independent ones.
        self.effective_images = min(
            float(found[f"{name}_effective_count"]) for name in self._deciding
        )
        if "mahalanobis" in self.statistics:
            self._mean = found["mean"]
            covariance = shrunk(found["covariance"], float(found["covariance_shrinkage"]))
            covariance += found["covariance_ridge"] * np.eye(len(covariance))
            try:  # the matrix that turns differences into independent ones of spread 1
                self._whitening = np.linalg.inv(np.linalg.cholesky(covariance))
            except np.linalg.LinAlgError as error:
                raise BundleError(f"{STATISTICS}: the covariance is not one: {_AGAIN}") from error
        if spec.has_log_var:
            self._log_var_mean = found["log_var_mean"]
            variance = found["log_var_deviation"] ** 2 + found["log_var_ridge"]
            self._per_deviation = 1 / np.sqrt(variance)
        self._look_mean = found["appearance_mean"]
        self._per_look_deviation = 1 / found["appearance_deviation"]
        self._looks = np.ascontiguousarray(found["appearance_references"], np.float32)
        self._half_squares = 0.5 * (self._looks * self._looks).sum(1)
        self._percents = 100 * found["quantile_levels"]
        self._quantiles = {name: found[f"{name}_quantiles"] for name in self.statistics}
        # Of each statistic, the value at `ood_above`.
        self.limits: dict[Statistic, float] = {
            name: float(np.interp(ood_above, self._percents, values))
            for name, values in self._quantiles.items()
        }
        # The share of known images to expect past one of the limits, at most: what `ood_above`
        # allows, or more where so few images can prove no less.
        self.false_alarms = 0.0
        self._scales: dict[Statistic, tuple[float, float]] = {}  # where a score is 0, and per unit
        for name, share in self._deciding.items():
            tail = Tail(
                found["quantile_levels"],
                self._quantiles[name],
                mean_excess=float(found[f"{name}_excess"]),
                effective_images=float(found[f"{name}_effective_count"]),
            )
            level = 1 - share * (1 - ood_above / 100)
            limit = self.limits[name] = tail.limit(level)
            self.false_alarms = min(1.0, self.false_alarms + tail.false_alarms(level))
            # On photographs mu is far from the mean by chance alone: it counts from its tail on.
            start = tail.limit(0.5 if name == "appearance" else TAIL_LEVEL)
            # Where all known images are alike, anything else is infinitely far.
            length = max(limit - start, np.finfo(np.float32).eps * abs(start), 1e-30)
            self._scales[name] = start, 1 / length

    @property
    def _look(self) -> Appearance:
        """What measures for the thread that calls: its results lie in memory that it uses again."""
        found: Appearance | None = getattr(self._looks_of, "own", None)
        if found is None:
            spec = self._spec
            found = self._looks_of.own = Appearance(spec.height, spec.width, spec.color)
        return found

    @property
    def _deciding(self) -> dict[Statistic, float]:
        """What decides, and its part of the false alarms, which add up to all of them."""
        found = {name: share for name, share in ALARM_SHARES.items() if name in self.statistics}
        return found if len(found) > 1 else dict.fromkeys(found, 1.0)

    @staticmethod
    def kl(mu: Vector, log_var: Vector) -> float:
        """Return KL(N(mu, exp(log_var)) || N(0, 1)) in nats, summed over latents, both (D,).

        Closed form of Kingma & Welling 2014, appendix B, as training's loss has it.
        """
        # In float64: far from known images the exponential of log_var can exceed float32.
        variance = np.expm1(log_var, dtype=np.float64)
        return float(0.5 * (np.dot(mu, mu) + (variance - log_var).sum()))

    def mahalanobis(self, mu: Vector) -> float:
        """Return the distance of mu (D,) from the mean of the training latents, in spreads.

        Where it has several axes, that of its features.
        """
        whitened = self._whitening @ (features_of(mu[None], self._spec)[0] - self._mean)
        return math.sqrt(whitened @ whitened)

    def appearance(self, luma: Luma) -> float:
        """Return how far an image (S, S) uint8 looks from the nearest training image.

        A Euclidean distance, each value in its deviations over the training images.
        """
        away = (self._look.measure(luma) - self._look_mean) * self._per_look_deviation
        nearest = (self._half_squares - self._looks @ away.astype(np.float32)).min()
        return math.sqrt(max(2 * float(nearest) + float(away @ away), 0.0))

    def log_var_distance(self, log_var: Vector) -> float:
        """Return the distance of log_var (D,) from training's mean, each in its own deviations.

        An empty white scene has a mu much as vehicles have, and a log_var as none has.
        """
        away = (log_var - self._log_var_mean) * self._per_deviation
        return math.sqrt(away @ away)

    def percentile(self, statistic: Statistic, value: float) -> float:
        """Return the share of held-out images with a smaller value, in percent.

        Linear between the stored quantiles; 0 below the smallest and 100 beyond the largest.
        """
        return float(np.interp(value, self._quantiles[statistic], self._percents))

    def is_beyond(self, statistic: Statistic, value: float) -> bool:
        """Return whether a value is past its limit; one that is no number is."""
        return not value <= self.limits[statistic]

    def scored(self, mu: Vector, log_var: Vector | None, appearance: float) -> OODScores:
        """Judge an image by mu (D,) float32 and its `appearance`; log_var (D,) decides nothing."""
        values: dict[Statistic, float] = {"appearance": appearance}
        if "mahalanobis" in self.statistics:
            values["mahalanobis"] = self.mahalanobis(mu)
        kl = log_var_distance = None
        if log_var is not None and self._spec.has_log_var:
            kl, log_var_distance = self.kl(mu, log_var), self.log_var_distance(log_var)
        mahalanobis = values.get("mahalanobis")
        return OODScores(
            appearance=appearance,
            appearance_percentile=self.percentile("appearance", appearance),
            ood_score=max(
                (value - self._scales[name][0]) * self._scales[name][1]
                for name, value in values.items()
            ),
            is_ood=any(self.is_beyond(name, value) for name, value in values.items()),
            mahalanobis=mahalanobis,
            mahalanobis_percentile=self._percentile_of("mahalanobis", mahalanobis),
            kl=kl,
            log_var_distance=log_var_distance,
            log_var_percentile=self._percentile_of("log_var_distance", log_var_distance),
        )

    def _percentile_of(self, statistic: Statistic, value: float | None) -> float | None:
        return None if value is None else self.percentile(statistic, value)


def ood_detector_from_bundle(bundle: Bundle, *, ood_above: float = OOD_ABOVE) -> OODDetector | str:
    """Return the detector of a bundle, or in a clause with the next step why there is none.

    That is so after a run of an earlier motorVAE. Statistics that cannot be read, or do not fit
    the model or each other, are a BundleError.
    """
    entry = next((entry for entry in bundle.manifest.files if entry.file == STATISTICS), None)
    if entry is None:
        return f"{bundle.folder} lists no {STATISTICS}: {_AGAIN}"
    path = bundle.path(entry)
    statistics = statistics_from_npz(path, bundle.spec, error=BundleError, again=_AGAIN)
    if missing := missing_statistics(statistics, bundle.spec):
        return f"{path} has no {sentence_list(missing)}: {_AGAIN}"
    return OODDetector(statistics, bundle.spec, ood_above=ood_above)


def statistics_from_npz(
    path: Path, spec: ModelSpec, *, error: type[MotorVAEError], again: str
) -> Statistics:
    """Read those statistics of a file that a detector takes; see `missing_statistics`."""
    forms = {name: Form("f", shape, needed=False) for name, shape in _shapes(spec).items()}
    return arrays_from_npz(path, forms, error=error, again=again, most_bytes=_MOST_BYTES)


def usable_detector(bundle: Bundle, *, ood_above: float) -> tuple[OODDetector | None, str]:
    """Return the detector of a bundle, and a clause on what it recognises for this model.

    There is none where the statistics are missing, recognise nothing, or would flag known images;
    the clause says which.
    """
    off = "out-of-distribution detection is off"
    found = ood_detector_from_bundle(bundle, ood_above=ood_above)
    if isinstance(found, str):
        return None, f"{off}: {found}"
    capability = bundle.manifest.ood
    if capability is not None and capability.detects_nothing:
        return None, (
            f"{off}: it detects nothing that the export tried ({capability.in_words()}): "
            "train longer or on more images, and export again"
        )
    images = f"{found.images} held-out images, worth {found.effective_images:.0f}"
    allowed = 1 - ood_above / 100
    if found.false_alarms > max(MOST_FALSE_ALARMS, FEW_IMAGES * allowed):
        return None, (
            f"{off}: by so few images ({images}) up to {found.false_alarms:.0%} of known ones may "
            "be flagged: train on more images, and export again"
        )
    remark = "is_ood was not tried by the export"
    if capability is not None:
        remark = f"is_ood detects {capability.in_words()}"
        if capability.ood_above != ood_above:
            remark += f" (tried with --ood-above {capability.ood_above:g})"
    remark += f"; known images flagged: up to {100 * found.false_alarms:.2g} %"
    if found.false_alarms > FEW_IMAGES * allowed:
        remark += f" ({images})"
    return found, remark


def missing_statistics(statistics: Statistics, spec: ModelSpec) -> list[str]:
    """Name what `latents.npz` lacks, as that of an earlier motorVAE does."""
    return [key for key in _shapes(spec) if key not in statistics]


def statistics_of(spec: ModelSpec) -> tuple[Statistic, ...]:
    """Name the statistics that a model's latents and images have."""
    without: set[Statistic] = set() if feature_count(spec) else {"mahalanobis"}
    without |= set() if spec.has_log_var else {"kl", "log_var_distance"}
    without |= set() if spec.has_decoder else {"reconstruction_error"}
    return tuple(name for name in STATISTIC_NAMES if name not in without)


def shrunk(covariance: Float64s, shrinkage: float) -> Float64s:
    """Return a covariance (D, D) with everything off its diagonal times 1 - `shrinkage`."""
    return (1 - shrinkage) * covariance + shrinkage * np.diag(np.diag(covariance))


def _shapes(
    spec: ModelSpec,
    levels: int | str = "levels",
    looks: int | str = "looks",
    references: int | str = "references",
) -> dict[str, tuple[int | str, ...]]:
    """Return the shape of each statistic, by what it is called in `latents.npz`."""
    names, features = statistics_of(spec), feature_count(spec)
    shapes: dict[str, tuple[int | str, ...]] = {
        "quantile_levels": (levels,),
        "quantile_count": (),
        **{f"{name}_quantiles": (levels,) for name in names},
        **{
            f"{name}_{of}": ()
            for name in ALARM_SHARES
            if name in names
            for of in ("excess", "effective_count")
        },
        **dict.fromkeys(("appearance_mean", "appearance_deviation"), (looks,)),
        "appearance_references": (references, looks),
    }
    if features:
        shapes |= {"mean": (features,), "covariance": (features, features)}
        shapes |= dict.fromkeys(("covariance_ridge", "covariance_shrinkage"), ())
    if spec.has_log_var:
        shapes |= dict.fromkeys(("log_var_mean", "log_var_deviation"), (spec.latent_size,))
        shapes["log_var_ridge"] = ()
    return shapes


def _checked(statistics: Statistics, spec: ModelSpec, looks: int) -> dict[str, Float64s]:
    """Return the statistics as float64 once they fit each other and appearances of this size."""
    levels = statistics["quantile_levels"].size
    references = len(np.atleast_1d(statistics["appearance_references"]))
    found: dict[str, Float64s] = {}
    for key, expected in _shapes(spec, levels, looks, references).items():
        values = statistics[key]
        if values.shape != expected or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise BundleError(
                f"{STATISTICS}: {key} is {values.dtype} {values.shape}, expected finite floats "
                f"{expected}: {_AGAIN}"
            )
        found[key] = values.astype(np.float64)
    rising = [key for key in found if key.endswith(("_quantiles", "_levels"))]
    counts = [key for key in found if key.endswith("_count")]
    excesses = [values for key, values in found.items() if key.endswith("_excess")]
    zero = np.zeros(())
    ends = found["quantile_levels"][[0, -1]].tolist() if levels > 1 else []
    log_var_spread = found.get("log_var_deviation", zero) ** 2 + found.get("log_var_ridge", 1)
    shares_fit = 0 <= found.get("covariance_shrinkage", zero) <= 1 and min(excesses) >= 0
    has_images = references and all(found[key] >= 1 for key in counts)
    for fits, problem in (
        *((np.all(np.diff(found[key]) >= 0), f"{key} falls") for key in rising),
        (ends == [0, 1], "quantile_levels do not go from 0 to 1"),
        (TAIL_LEVEL in found["quantile_levels"], f"quantile_levels lack {TAIL_LEVEL}"),
        (np.all(log_var_spread > 0), "a log_var_deviation is 0"),
        (np.all(found["appearance_deviation"] > 0), "an appearance_deviation is 0"),
        (has_images, "it is of no images"),
        (shares_fit, "covariance_shrinkage or an excess is out of range"),
    ):
        if not fits:
            raise BundleError(f"{STATISTICS}: {problem}: {_AGAIN}")
    return found
