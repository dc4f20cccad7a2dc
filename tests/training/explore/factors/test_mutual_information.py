from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from motorvae.training.explore.factors.labels import Factor
from motorvae.training.explore.factors.mutual_information import (
    BINS,
    binned,
    codes_of,
    entropy,
    information_gap,
    mutual_information,
    mutual_information_gap,
    normalised_information,
)

COUNT = 4000


@pytest.fixture
def factors() -> list[Factor]:
    rng = np.random.default_rng(0)
    kinds = rng.integers(3, size=COUNT).astype(np.float64)
    return [
        Factor("x", rng.uniform(-1, 1, COUNT)),
        Factor("y", rng.uniform(0, 9, COUNT)),
        Factor("kind", kinds, ("a", "b", "c")),
    ]


def mig_of(latents: np.ndarray, factors: list[Factor]) -> float:
    columns = [normalised_information(latents, factor) for factor in factors]
    return mutual_information_gap(np.stack(columns, axis=1))


def test_a_perfect_code_has_a_gap_near_one(factors: list[Factor]) -> None:
    rng = np.random.default_rng(1)
    x, y, kind = (factor.values for factor in factors)
    # Any increasing function is as good; noise in between tells nothing.
    latents = np.stack([np.exp(3 * x), rng.standard_normal(COUNT), -y, 10 - 2 * kind], axis=1)
    assert mig_of(latents, factors) > 0.97
    assert information_gap(normalised_information(latents, factors[0])) > 0.97


def test_rotation_of_two_factors_costs_the_gap(factors: list[Factor]) -> None:
    x, y = factors[0].values, (factors[1].values - 4.5) / 4.5
    latents = np.stack([x + y, x - y], axis=1)
    assert mig_of(latents, factors[:2]) < 0.05


def test_noise_has_no_gap(factors: list[Factor]) -> None:
    latents = np.random.default_rng(2).standard_normal((COUNT, 6))
    assert mig_of(latents, factors) < 0.02


def test_a_latent_twice_has_no_gap(factors: list[Factor]) -> None:
    x = factors[0].values
    found = normalised_information(np.stack([x, 2 * x, x**3], axis=1), factors[0])
    assert found == pytest.approx([1, 1, 1])
    assert information_gap(found) == 0


def test_information_is_that_of_scikit_learn(factors: list[Factor]) -> None:
    rng = np.random.default_rng(3)
    x, _, kind = (codes_of(factor) for factor in factors)
    near = binned(factors[0].values + 0.3 * rng.standard_normal(COUNT))
    for one, other in [(x, near), (near, kind), (kind, kind), (x, x)]:
        assert mutual_information(one, other) == pytest.approx(
            mutual_info_score(one, other), rel=1e-12, abs=1e-12
        )
        assert entropy(one) == pytest.approx(mutual_info_score(one, one), rel=1e-12)


def test_the_gap_of_a_gaussian_channel_is_near_its_formula() -> None:
    rng = np.random.default_rng(4)
    count, rho = 200_000, 0.8
    x = rng.standard_normal(count)
    latent = rho * x + math.sqrt(1 - rho**2) * rng.standard_normal(count)
    nats = mutual_information(binned(x), binned(latent))
    # -ln(1 - rho^2) / 2 (Cover & Thomas 2006, 8.5); twenty bins lose a little.
    assert nats == pytest.approx(-0.5 * math.log(1 - rho**2), rel=0.05)


def test_bins_hold_as_many_and_equal_values_stay_together() -> None:
    assert np.bincount(binned(np.random.default_rng(5).random(2000))).tolist() == [100] * BINS
    two = np.repeat([3.0, 7.0], [900, 100])
    assert len(set(binned(two).tolist())) == 2
    assert set(binned(np.zeros(50)).tolist()) == {0}
    rare = np.repeat([0.0, 1.0], [990, 10])
    assert mutual_information(binned(rare), binned(rare)) == pytest.approx(entropy(binned(rare)))
    assert entropy(binned(rare)) > 0


def test_images_without_a_value_do_not_count(factors: list[Factor]) -> None:
    values = factors[0].values.copy()
    values[::3] = math.nan
    latents = np.where(np.isnan(values), 1e9, values)[:, None]
    assert normalised_information(latents, Factor("x", values)) == pytest.approx([1.0])


@pytest.mark.parametrize("frequent", [0.0, 1.0])
def test_a_value_that_nearly_all_images_have_is_still_told_from_the_other(frequent: float) -> None:
    values = np.full(1000, frequent)
    values[::40] = 1 - frequent
    assert entropy(binned(values)) == pytest.approx(-0.025 * np.log(0.025) - 0.975 * np.log(0.975))
    assert normalised_information(values[:, None], Factor("rare", values)) == pytest.approx([1.0])
