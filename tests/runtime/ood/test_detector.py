from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.bundle.manifest import STATISTICS
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.core.errors import BundleError, ConfigError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.ood.appearance import Appearance
from motorvae.runtime.ood.detector import (
    ALARM_SHARES,
    STATISTIC_NAMES,
    OODDetector,
    missing_statistics,
    ood_detector_from_bundle,
    shrunk,
)
from motorvae.runtime.ood.features import MOST_FLAT
from motorvae.runtime.ood.tail import TAIL_LEVEL, Tail
from motorvae.runtime.sources.synthetic.vehicles import vehicle
from motorvae.training.dataset import DataSet
from motorvae.training.latent_statistics import latent_statistics, mahalanobis
from motorvae.training.model import kl_per_image

Statistics = dict[str, Any]
ChangeManifest = Callable[[Path, Callable[[dict[str, Any]], object]], None]

SIZE, SIDE = 8, 32
SPEC = ModelSpec(image_size=SIDE, latent_size=SIZE)
LOOKS = len(Appearance(SIDE, SIDE).names)
KNOWN = np.stack([vehicle(1, index, SIDE)[0] for index in range(20)])
RIDGE = 1e-3


def covariance_of(rng: np.random.Generator) -> np.ndarray:
    spread = rng.normal(size=(SIZE, SIZE))
    return spread @ spread.T / SIZE


@pytest.fixture
def statistics() -> Statistics:
    """A statistics with round numbers: the quantiles are 0, 5, 9.5, 9.99 and 10 spreads."""
    rng = np.random.default_rng(1)
    quantiles = np.array([0.0, 5.0, 9.5, 9.99, 10.0])
    looks = np.stack([Appearance(SIDE, SIDE).measure(image).copy() for image in KNOWN])
    mean, deviation = looks.mean(0), np.maximum(looks.std(0), 0.01)
    return {
        "mean": rng.normal(size=SIZE),
        "covariance": covariance_of(rng),
        "covariance_ridge": np.array(RIDGE),
        "log_var_mean": rng.normal(size=SIZE),
        "log_var_deviation": rng.uniform(0.5, 2, SIZE),
        "log_var_ridge": np.array(RIDGE),
        "covariance_shrinkage": np.array(0.25),
        "appearance_mean": mean,
        "appearance_deviation": deviation,
        "appearance_references": ((looks - mean) / deviation).astype(np.float32),
        "appearance_excess": np.array(0.2),
        "appearance_effective_count": np.array(1000.0),
        "mahalanobis_excess": np.array(0.2),
        "mahalanobis_effective_count": np.array(1000.0),
        "quantile_levels": np.array([0, 0.5, 0.95, 0.999, 1]),
        "quantile_count": np.array(1024.0),
        **{f"{name}_quantiles": quantiles for name in STATISTIC_NAMES},
    }


@pytest.fixture
def bundle_with(
    bundle_copy: Path, change_manifest: ChangeManifest
) -> Callable[[Statistics], Bundle]:
    """Give a bundle other statistics, announced in its manifest as export would."""

    def change(statistics: Statistics) -> Bundle:
        path = bundle_copy / STATISTICS
        np.savez(path, **statistics)

        def announce(manifest: dict[str, Any]) -> None:
            for entry in manifest["files"]:
                if entry["file"] == STATISTICS:
                    entry.update(sha256=sha256_of(path), size_bytes=path.stat().st_size)

        change_manifest(bundle_copy, announce)
        return load_bundle(bundle_copy)

    return change


def latents(count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    mu, log_var = rng.normal(scale=(3.0, 1.0), size=(count, SIZE, 2)).astype(np.float32).T
    return np.ascontiguousarray(mu.T), np.ascontiguousarray(log_var.T)


def test_kl_and_distances_are_those_of_training(statistics: Statistics) -> None:
    detector = OODDetector(statistics, SPEC)
    mu, log_var = latents()
    trained = kl_per_image(torch.from_numpy(mu), torch.from_numpy(log_var)).numpy()
    kl = [detector.kl(*latent) for latent in zip(mu, log_var, strict=True)]
    np.testing.assert_allclose(kl, trained, rtol=1e-5)
    assert np.isfinite(detector.kl(mu[0], np.full(SIZE, 100, np.float32)))
    for values, mean, covariance, distance in (
        (mu, "mean", shrunk(statistics["covariance"], 0.25), detector.mahalanobis),
        (
            log_var,
            "log_var_mean",
            np.diag(statistics["log_var_deviation"] ** 2),
            detector.log_var_distance,
        ),
    ):
        expected = mahalanobis(values.astype(np.float64), statistics[mean], covariance, RIDGE)
        np.testing.assert_allclose([distance(row) for row in values], expected, rtol=1e-9)


def test_percentiles_rise_with_the_value_and_stay_between_0_and_100(
    statistics: Statistics,
) -> None:
    detector = OODDetector(statistics, SPEC)
    values = [-1, 0, 2.5, 5, 9.5, 9.99, 9.995, 10, 1e9, float("inf")]
    found = [detector.percentile("mahalanobis", value) for value in values]
    np.testing.assert_allclose(found, [0, 0, 25, 50, 95, 99.9, 99.95, 100, 100, 100])


@pytest.mark.parametrize(
    ("above", "limit"), [(99.9, 9.99), (50, 5), (100, 10), (95, 9.5), (99.95, 9.995)]
)
def test_what_decides_nothing_has_its_quantile_as_limit(
    above: float, limit: float, statistics: Statistics
) -> None:
    detector = OODDetector(statistics, SPEC, ood_above=above)
    for name in set(STATISTIC_NAMES) - set(ALARM_SHARES):
        assert detector.limits[name] == pytest.approx(limit)
    for name in STATISTIC_NAMES:
        assert not detector.is_beyond(name, detector.limits[name])
        assert detector.is_beyond(name, float(np.nextafter(detector.limits[name], 99)))
        assert detector.is_beyond(name, float("nan"))


def test_both_distances_share_the_false_alarms_allowed(statistics: Statistics) -> None:
    detector = OODDetector(statistics, SPEC, ood_above=50)
    # Of 50 % in all, appearance has 40: at 60 % of images, 1/9 of the way from 50 to 95 %.
    assert detector.limits["appearance"] == pytest.approx(5 + 4.5 * (0.6 - 0.5) / 0.45)
    assert detector.limits["mahalanobis"] == pytest.approx(5 + 4.5 * (0.9 - 0.5) / 0.45)
    assert detector.false_alarms == pytest.approx(0.5)
    default = OODDetector(statistics, SPEC)
    assert default.limits["mahalanobis"] > default.limits["appearance"] > 10
    assert default.false_alarms == pytest.approx(0.001 + 2e-4 + 2 / 1001 - 0.0012, rel=0.01)


def test_appearance_or_mahalanobis_makes_an_image_foreign_and_nothing_else_does(
    statistics: Statistics,
) -> None:
    mean, log_var_mean = (statistics[k].astype(np.float32) for k in ("mean", "log_var_mean"))
    statistics["kl_quantiles"] = statistics["log_var_distance_quantiles"] = np.zeros(5)
    detector = OODDetector(statistics, SPEC)
    look = detector.appearance(KNOWN[3])
    near = detector.scored(mean, log_var_mean + 1, look)
    assert (near.mahalanobis_percentile, near.appearance_percentile) == pytest.approx((0, 0), abs=1)
    assert near.kl is not None
    assert near.log_var_distance is not None
    assert detector.is_beyond("kl", near.kl)
    assert detector.is_beyond("log_var_distance", near.log_var_distance)
    assert not near.is_ood
    assert near.ood_score < 0
    # 20 spreads along one axis of the whitened space are past any limit.
    covariance = shrunk(statistics["covariance"], 0.25)
    factor = np.linalg.cholesky(covariance + RIDGE * np.eye(SIZE))
    far = detector.scored(mean + (20 * factor[:, 0]).astype(np.float32), None, look)
    assert (far.mahalanobis, far.mahalanobis_percentile) == (pytest.approx(20, rel=1e-4), 100)
    assert far.is_ood
    assert far.ood_score > 1
    assert (far.kl, far.log_var_distance, far.log_var_percentile) == (None, None, None)
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8)
    far = detector.scored(mean, None, detector.appearance(noise))
    assert (far.mahalanobis, far.appearance_percentile) == (pytest.approx(near.mahalanobis), 100)
    assert far.is_ood
    assert far.ood_score > 1


def test_appearance_is_the_distance_to_the_nearest_reference(statistics: Statistics) -> None:
    detector = OODDetector(statistics, SPEC)
    references = statistics["appearance_references"].astype(np.float64)
    for seed in range(5):
        image = vehicle(2, seed, SIDE)[0]
        look = Appearance(SIDE, SIDE).measure(image)
        point = (look - statistics["appearance_mean"]) / statistics["appearance_deviation"]
        nearest = np.linalg.norm(references - point, axis=1).min()
        assert detector.appearance(image) == pytest.approx(nearest, rel=1e-4)


def test_a_covariance_is_shrunk_towards_its_diagonal() -> None:
    covariance = np.array([[4.0, 2.0], [2.0, 9.0]])
    np.testing.assert_array_equal(shrunk(covariance, 0.5), [[4, 1], [1, 9]])
    np.testing.assert_array_equal(shrunk(covariance, 0), covariance)


def test_a_bundle_is_read(
    statistics: Statistics, bundle_with: Callable[[Statistics], Bundle]
) -> None:
    found = ood_detector_from_bundle(bundle_with(statistics), ood_above=50)
    assert isinstance(found, OODDetector)
    assert (found.images, found.ood_above) == (1024, 50)


def test_a_bundle_of_an_earlier_run_has_no_statistics(
    statistics: Statistics, bundle_with: Callable[[Statistics], Bundle]
) -> None:
    del statistics["kl_quantiles"], statistics["appearance_mean"]
    found = ood_detector_from_bundle(bundle_with(statistics))
    assert isinstance(found, str)
    assert "has no kl_quantiles, appearance_mean: train and export again" in found


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("mean", np.zeros(SIZE - 1), r"'mean' is float64 \(7,\), expected .*\(8\)"),
        ("mean", np.zeros((1, SIZE)), r"'mean' is float64 \(1, 8\)"),
        ("covariance", np.full((SIZE, SIZE), np.nan), "'covariance' holds NaN"),
        ("covariance", -np.eye(SIZE), "the covariance is not one"),
        ("log_var_deviation", np.zeros((SIZE, 1)), r"log_var_deviation' is float64 \(8, 1\)"),
        ("log_var_ridge", np.array(-9.0), "a log_var_deviation is 0"),
        ("covariance_ridge", np.zeros(1), r"covariance_ridge' is float64 \(1,\)"),
        ("quantile_levels", np.array([0, 0.5, 0.9, 0.99, 1]), "quantile_levels lack 0.95"),
        ("appearance_mean", np.zeros(7), r"appearance_deviation' is .* \(7\)"),
        ("appearance_references", np.zeros((5, 7)), r"references' is float64 \(5, 7\), expected"),
        ("appearance_references", np.array(1.0), r"references' is float64 \(\), expected"),
        ("appearance_deviation", np.zeros(LOOKS), "an appearance_deviation is 0"),
        ("covariance_shrinkage", np.array(1.5), "covariance_shrinkage or an excess is out of"),
        ("appearance_excess", np.array(-1.0), "covariance_shrinkage or an excess is out of"),
        ("appearance_effective_count", np.array(0.0), "is of no images"),
        ("quantile_levels", np.array([0, 0.5, 0.9, 0.8, 1]), "quantile_levels falls"),
        ("quantile_levels", np.array([0.1, 0.5, 0.8, 0.9, 1]), "do not go from 0 to 1"),
        ("quantile_levels", np.array([0, 1.0]), r"quantiles' is float64 \(5,\), expected .*\(2\)"),
        ("mahalanobis_quantiles", np.array([0, 3.0, 2, 4, 5]), "mahalanobis_quantiles falls"),
        ("kl_quantiles", np.array(["a"] * 5), "kl_quantiles' is str"),
        ("quantile_count", np.array(0.0), "is of no images"),
    ],
)
def test_statistics_that_do_not_fit_are_refused_in_one_line(
    key: str,
    values: np.ndarray,
    message: str,
    statistics: Statistics,
    bundle_with: Callable[[Statistics], Bundle],
) -> None:
    statistics[key] = values
    with pytest.raises(BundleError, match=message) as caught:
        ood_detector_from_bundle(bundle_with(statistics))
    assert str(caught.value).endswith("train and export again")
    assert "\n" not in str(caught.value)


def test_statistics_of_another_model_are_refused(
    statistics: Statistics, bundle_with: Callable[[Statistics], Bundle]
) -> None:
    for key in ("mean", "log_var_mean", "log_var_deviation"):
        statistics[key] = statistics[key][:3]
    statistics["covariance"] = np.eye(3)
    with pytest.raises(
        BundleError, match=r"'mean' is float64 \(3,\), expected finite floats \(8\); train"
    ):
        ood_detector_from_bundle(bundle_with(statistics))


@pytest.mark.parametrize("above", [0, -1, 100.1, float("nan")])
def test_a_percentile_out_of_range_is_refused(above: float, statistics: Statistics) -> None:
    with pytest.raises(ConfigError, match=r"ood_above=.* above 0 and up to 100"):
        OODDetector(statistics, SPEC, ood_above=above)


LEVELS = np.array([0, 0.25, 0.5, 0.75, 0.9, TAIL_LEVEL, 0.99, 0.999, 1])


def tail_of(values: np.ndarray, effective: float | None = None) -> Tail:
    start = np.quantile(values, TAIL_LEVEL)
    return Tail(
        LEVELS,
        np.quantile(values, LEVELS),
        mean_excess=float((values[values > start] - start).mean()),
        effective_images=effective or len(values),
    )


@pytest.mark.parametrize("count", [60, 300, 3000])
@pytest.mark.parametrize("level", [0.9, 0.99, 0.999])
def test_false_alarms_are_those_announced_however_few_the_images(count: int, level: float) -> None:
    """Over many draws of held-out images: what a fresh one does is what was said."""
    rng = np.random.default_rng(1)
    shares, announced = [], []
    for _ in range(1500):
        tail = tail_of(rng.exponential(size=count))
        shares.append(np.exp(-tail.limit(level)))  # P(value > limit) of an exponential
        announced.append(tail.false_alarms(level))
    assert np.mean(shares) < 1.5 * np.mean(announced)
    assert np.mean(shares) > 0.1 * np.mean(announced)


def test_a_limit_of_dependent_images_is_farther_away_and_says_so() -> None:
    values = np.random.default_rng(2).exponential(size=2000)
    alone, dependent = tail_of(values), tail_of(values, effective=40)
    assert dependent.limit(0.999) > alone.limit(0.999)
    assert alone.false_alarms(0.999) == pytest.approx(0.001)
    assert dependent.false_alarms(0.999) == pytest.approx(1 / 41)
    assert dependent.limit(0.9) == alone.limit(0.9)  # the images themselves tell that


def test_limits_rise_with_the_level_to_beyond_all_images() -> None:
    for effective in (1, 3, 50, 4000):
        tail = tail_of(np.random.default_rng(3).exponential(size=4000), effective)
        limits = [tail.limit(level) for level in (0, 0.5, 0.9, 0.95, 0.96, 0.99, 0.999, 0.99999, 1)]
        assert limits == sorted(limits)
        assert np.isfinite(limits).all()
        assert limits[0] == tail.quantiles[0]
        assert limits[-1] >= tail.quantiles[-1]


def test_the_median_is_the_value_in_the_middle() -> None:
    assert tail_of(np.arange(101.0)).limit(0.5) == 50


def test_images_that_are_all_alike_have_one_limit() -> None:
    tail = Tail(LEVELS, np.full(len(LEVELS), 3.0), mean_excess=0.0, effective_images=1)
    assert {tail.limit(level) for level in (0.1, 0.5, 0.99, 1)} == {3.0}


SPATIAL = ModelSpec(
    image_size=SIDE,
    channels=None,
    latent_size=24,
    latent_shape=(2, 3, 4),
    has_log_var=False,
    has_decoder=False,
)


def measured(spec: ModelSpec) -> Statistics:
    """The statistics of 40 vehicles, whose latents are random, of a model with this spec."""
    images = np.stack([vehicle(1, index, SIDE)[0] for index in range(40)])
    rows = np.arange(40)
    data = DataSet(images, [""] * 40, rows[:25], rows[25:], 0)
    rng = np.random.default_rng(4)

    def encode(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        mu = rng.normal(size=(len(batch), spec.latent_size)).astype(np.float32)
        return mu, mu - 2 if spec.has_log_var else None

    def decode(mu: np.ndarray) -> np.ndarray:
        return np.zeros((len(mu), *spec.input_shape), np.float32)

    found = latent_statistics(data, spec, encode, decode if spec.has_decoder else None)
    return dict(found)


def test_latents_of_maps_without_log_var_or_decoder_are_judged_by_what_there_is() -> None:
    found = measured(SPATIAL)
    assert missing_statistics(found, SPATIAL) == []
    assert not {key for key in found if key.startswith(("log_var", "kl", "reconstruction"))}
    detector = OODDetector(found, SPATIAL)
    assert detector.statistics == ("mahalanobis", "appearance")
    mu = np.random.default_rng(5).normal(size=24).astype(np.float32)
    maps = mu.astype(np.float64).reshape(2, 12)
    quarters = mu.astype(np.float64).reshape(2, 3, 4)
    places = [(slice(2), slice(2)), (slice(2), slice(2, 4))]
    places += [(slice(2, 3), slice(2)), (slice(2, 3), slice(2, 4))]
    means = [quarters[:, rows, columns].mean((1, 2)) for rows, columns in places]
    features = np.concatenate([*means, np.log(maps.std(1) + 1e-6)])
    away = features - found["mean"]
    covariance = shrunk(found["covariance"], float(found["covariance_shrinkage"]))
    covariance += found["covariance_ridge"] * np.eye(10)
    expected = np.sqrt(away @ np.linalg.solve(covariance, away))
    scores = detector.scored(mu, None, 0.0)
    assert scores.mahalanobis == pytest.approx(expected)
    assert (scores.kl, scores.log_var_distance, scores.log_var_percentile) == (None, None, None)
    # A map that stands still is far.
    still = np.concatenate([mu[:12], np.full(12, mu[12:].mean())]).astype(np.float32)
    assert detector.scored(still, None, 0.0).is_ood
    assert not detector.scored(mu, None, 0.0).is_ood


def test_of_large_flat_latents_appearance_alone_decides() -> None:
    spec = ModelSpec(image_size=SIDE, channels=None, latent_size=MOST_FLAT + 1)
    found = measured(spec)
    assert {"mean", "covariance", "mahalanobis_quantiles"}.isdisjoint(found)
    detector = OODDetector(found, spec, ood_above=90)
    assert "mahalanobis" not in detector.statistics
    appearance = Tail(
        found["quantile_levels"],
        found["appearance_quantiles"],
        mean_excess=float(found["appearance_excess"]),
        effective_images=float(found["appearance_effective_count"]),
    )
    assert detector.limits["appearance"] == pytest.approx(appearance.limit(0.9))  # with no part off
    mu = np.full(spec.latent_size, 50, np.float32)
    scores = detector.scored(mu, mu, 0.0)
    assert (scores.mahalanobis, scores.mahalanobis_percentile, scores.is_ood) == (None, None, False)
    assert scores.kl is not None
    assert detector.scored(mu, mu, 2 * detector.limits["appearance"]).is_ood


def test_what_a_model_must_have_is_missed() -> None:
    found = measured(SPATIAL)
    flat = SPATIAL.model_copy(update={"has_log_var": True, "has_decoder": True})
    missing = missing_statistics(found, flat)
    assert {"log_var_mean", "kl_quantiles", "reconstruction_error_quantiles"} <= set(missing)
    with pytest.raises(
        BundleError, match=r"mean is float64 \(10,\), expected finite floats \(20,\)"
    ):
        OODDetector(found, SPATIAL.model_copy(update={"latent_shape": (4, 3, 2)}))


def test_threads_ask_at_the_same_time_and_get_what_one_of_them_gets(statistics: Statistics) -> None:
    """What measures an appearance uses its memory again: each thread has one of its own."""
    spec = ModelSpec(image_size=256, latent_size=SIZE)
    looks = np.stack([Appearance(256, 256).measure(KNOWN[0].repeat(8, 0).repeat(8, 1))])
    statistics |= {
        "appearance_mean": np.zeros(looks.shape[1]),
        "appearance_deviation": np.ones(looks.shape[1]),
        "appearance_references": looks.astype(np.float32),
    }
    detector = OODDetector(statistics, spec)
    images = [image.repeat(8, 0).repeat(8, 1) for image in KNOWN] * 20
    expected = [detector.appearance(image) for image in images]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(detector.appearance, images)) == expected
