from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from motorvae.runtime.bundle import STATISTICS, Bundle, load_bundle
from motorvae.runtime.errors import BundleError, ConfigError
from motorvae.runtime.familiarity import (
    STATISTIC_NAMES,
    Familiarity,
    NoYardstick,
    familiarity_from_bundle,
)
from motorvae.runtime.files import sha256_of
from motorvae.training.latents import mahalanobis
from motorvae.training.loss import kl_per_image

Statistics = dict[str, Any]
ChangeManifest = Callable[[Path, Callable[[dict[str, Any]], object]], None]

SIZE = 8
RIDGE = 1e-3


def covariance_of(rng: np.random.Generator) -> np.ndarray:
    spread = rng.normal(size=(SIZE, SIZE))
    return spread @ spread.T / SIZE


@pytest.fixture
def statistics() -> Statistics:
    """A yardstick with round numbers: the quantiles are 0, 5, 9.9, 9.99 and 10 spreads."""
    rng = np.random.default_rng(1)
    quantiles = np.array([0.0, 5.0, 9.9, 9.99, 10.0])
    return {
        "mean": rng.normal(size=SIZE),
        "covariance": covariance_of(rng),
        "covariance_ridge": np.array(RIDGE),
        "log_var_mean": rng.normal(size=SIZE),
        "log_var_deviation": rng.uniform(0.5, 2, SIZE),
        "log_var_ridge": np.array(RIDGE),
        "quantile_levels": np.array([0, 0.5, 0.99, 0.999, 1]),
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
    familiarity = Familiarity(statistics)
    mu, log_var = latents()
    trained = kl_per_image(torch.from_numpy(mu), torch.from_numpy(log_var)).numpy()
    kl = [familiarity.kl(*latent) for latent in zip(mu, log_var, strict=True)]
    np.testing.assert_allclose(kl, trained, rtol=1e-5)
    for values, mean, covariance, distance in (
        (mu, "mean", statistics["covariance"], familiarity.mahalanobis),
        (
            log_var,
            "log_var_mean",
            np.diag(statistics["log_var_deviation"] ** 2),
            familiarity.log_var_distance,
        ),
    ):
        expected = mahalanobis(values.astype(np.float64), statistics[mean], covariance, RIDGE)
        np.testing.assert_allclose([distance(row) for row in values], expected, rtol=1e-9)


def test_percentiles_rise_with_the_value_and_stay_between_0_and_100(
    statistics: Statistics,
) -> None:
    familiarity = Familiarity(statistics)
    values = [-1, 0, 2.5, 5, 9.9, 9.99, 9.995, 10, 1e9, float("inf")]
    found = [familiarity.percentile("mahalanobis", value) for value in values]
    np.testing.assert_allclose(found, [0, 0, 25, 50, 99, 99.9, 99.95, 100, 100, 100])


@pytest.mark.parametrize(("above", "limit"), [(99.9, 9.99), (50, 5), (100, 10), (99.95, 9.995)])
def test_foreign_is_what_lies_past_the_percentile(
    above: float, limit: float, statistics: Statistics
) -> None:
    familiarity = Familiarity(statistics, foreign_above=above)
    for name in STATISTIC_NAMES:
        assert familiarity.limit(name) == pytest.approx(limit)
        assert not familiarity.is_beyond(name, familiarity.limit(name))
        assert familiarity.is_beyond(name, float(np.nextafter(familiarity.limit(name), 11)))
        assert familiarity.is_beyond(name, float("nan"))


def test_either_distance_makes_a_latent_foreign_and_the_kl_does_not(
    statistics: Statistics,
) -> None:
    mean, log_var_mean = (statistics[k].astype(np.float32) for k in ("mean", "log_var_mean"))
    statistics["kl_quantiles"] = np.zeros(5)  # every KL is beyond
    familiarity = Familiarity(statistics)
    near = familiarity.likeness(mean, log_var_mean)
    assert (near.mahalanobis_percentile, near.log_var_percentile) == pytest.approx((0, 0), abs=1)
    assert familiarity.is_beyond("kl", near.kl)
    assert not near.foreign
    # 12 spreads along one axis of the whitened space are past the 10 of the farthest image.
    factor = np.linalg.cholesky(statistics["covariance"] + RIDGE * np.eye(SIZE))
    far = familiarity.likeness(mean + (12 * factor[:, 0]).astype(np.float32), log_var_mean)
    assert (far.mahalanobis, far.mahalanobis_percentile) == (pytest.approx(12, rel=1e-4), 100)
    assert far.foreign
    step = np.zeros(SIZE, np.float32)
    step[3] = 12 * np.sqrt(statistics["log_var_deviation"][3] ** 2 + RIDGE)
    for sign in (-1, 1):
        far = familiarity.likeness(mean, log_var_mean + sign * step)
        assert (far.log_var_distance, far.log_var_percentile) == (pytest.approx(12, rel=1e-4), 100)
        assert far.foreign


def test_known_images_are_foreign_as_often_as_the_count_lets_them(statistics: Statistics) -> None:
    """What the docstring says of n held-out images, over many draws of them."""
    rng = np.random.default_rng(3)
    held_out, trials = 200, 400
    share = 0.0
    for _ in range(trials):
        drawn = np.linalg.norm(rng.normal(size=(held_out, SIZE)), axis=1)
        statistics["mahalanobis_quantiles"] = np.quantile(drawn, statistics["quantile_levels"])
        limit = Familiarity(statistics, foreign_above=100).limit("mahalanobis")
        fresh = np.linalg.norm(rng.normal(size=(1000, SIZE)), axis=1)
        share += float((fresh > limit).mean()) / trials
    assert share == pytest.approx(1 / (held_out + 1), rel=0.25)


def test_a_bundle_is_read(
    statistics: Statistics, bundle_with: Callable[[Statistics], Bundle]
) -> None:
    found = familiarity_from_bundle(bundle_with(statistics), foreign_above=50)
    assert isinstance(found, Familiarity)
    assert (found.images, found.foreign_above, found.latent_size) == (1024, 50, SIZE)


def test_a_bundle_of_an_earlier_run_has_no_yardstick(
    statistics: Statistics, bundle_with: Callable[[Statistics], Bundle]
) -> None:
    del statistics["log_var_mean"], statistics["kl_quantiles"]
    found = familiarity_from_bundle(bundle_with(statistics))
    assert isinstance(found, NoYardstick)
    assert "has no log_var_mean, kl_quantiles: train and export again" in found.reason


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("mean", np.zeros(SIZE - 1), r"covariance is float64 \(8, 8\), expected .*\(7, 7\)"),
        ("mean", np.zeros((1, SIZE)), r"mean is float64 \(1, 8\)"),
        ("covariance", np.full((SIZE, SIZE), np.nan), "covariance is .* expected finite"),
        ("covariance", -np.eye(SIZE), "the covariance is not one"),
        ("log_var_deviation", np.zeros((SIZE, 1)), r"log_var_deviation is float64 \(8, 1\)"),
        ("log_var_ridge", np.array(-9.0), "a log_var_deviation is 0"),
        ("covariance_ridge", np.zeros(1), r"covariance_ridge is float64 \(1,\)"),
        ("quantile_levels", np.array([0, 0.5, 0.9, 0.8, 1]), "quantile_levels falls"),
        ("quantile_levels", np.array([0.1, 0.5, 0.8, 0.9, 1]), "do not go from 0 to 1"),
        ("quantile_levels", np.array([0, 1.0]), r"quantiles is float64 \(5,\), expected .*\(2,\)"),
        ("mahalanobis_quantiles", np.array([0, 3.0, 2, 4, 5]), "mahalanobis_quantiles falls"),
        ("kl_quantiles", np.array(["a"] * 5), "kl_quantiles is <U1"),
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
        familiarity_from_bundle(bundle_with(statistics))
    assert str(caught.value).endswith("train and export again")
    assert "\n" not in str(caught.value)


def test_statistics_of_another_model_are_refused(
    statistics: Statistics, bundle_with: Callable[[Statistics], Bundle]
) -> None:
    for key in ("mean", "log_var_mean", "log_var_deviation"):
        statistics[key] = statistics[key][:3]
    statistics["covariance"] = np.eye(3)
    with pytest.raises(BundleError, match="describes 3 latents, and the model has 8: train"):
        familiarity_from_bundle(bundle_with(statistics))


@pytest.mark.parametrize("above", [0, -1, 100.1, float("nan")])
def test_a_percentile_out_of_range_is_refused(above: float, statistics: Statistics) -> None:
    with pytest.raises(ConfigError, match=r"foreign_above=.* above 0 and up to 100"):
        Familiarity(statistics, foreign_above=above)
