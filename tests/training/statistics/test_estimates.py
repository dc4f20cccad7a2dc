from __future__ import annotations

import numpy as np
import pytest

from motorvae.training.statistics.estimates import (
    distances_to_others,
    effective_count,
    mean_excess,
    shrinkage_of,
)


def test_shrinkage_is_that_of_ledoit_and_wolf() -> None:
    """Against the paper's own b² / d², image by image (lemmas 3.2 to 3.4)."""
    rng = np.random.default_rng(0)
    for count in (10, 60, 600):
        samples = rng.normal(size=(count, 20)) @ rng.normal(size=(20, 20))
        scaled = (samples - samples.mean(0)) / samples.std(0)
        mean = scaled.T @ scaled / count
        d2 = np.linalg.norm(mean - np.eye(20)) ** 2 / 20
        b2 = sum(np.linalg.norm(np.outer(x, x) - mean) ** 2 / 20 for x in scaled) / count**2
        assert shrinkage_of(samples) == pytest.approx(min(b2, d2) / d2, rel=1e-9)


def test_shrinkage_falls_with_the_count_and_ignores_scale_and_what_never_moves() -> None:
    rng = np.random.default_rng(1)
    mixed = rng.normal(size=(3000, 20)) @ rng.normal(size=(20, 20))
    found = [shrinkage_of(mixed[:count]) for count in (12, 60, 600, 3000)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.2
    assert found[-1] < 0.02
    still = np.concatenate([mixed * 10.0 ** np.arange(-10, 10), np.ones((3000, 3))], axis=1)
    assert shrinkage_of(still) == pytest.approx(found[-1], rel=1e-6)
    assert shrinkage_of(rng.normal(size=(5000, 20))) > 0.9  # there is nothing but the diagonal
    assert shrinkage_of(np.ones((4, 3))) == 0


def test_shrinkage_restores_what_few_images_lose() -> None:
    """As many images as latents: a plain covariance calls the known far and the foreign near."""
    rng = np.random.default_rng(2)
    mix = rng.normal(size=(64, 64))
    train, known = rng.normal(size=(70, 64)) @ mix, rng.normal(size=(500, 64)) @ mix
    foreign = known + 1.5 * rng.normal(size=(500, 64)) @ mix
    detected = []
    for shrinkage in (0.0, shrinkage_of(train)):
        covariance = np.cov(train.T, bias=True)
        covariance = (1 - shrinkage) * covariance + shrinkage * np.diag(np.diag(covariance))
        factor = np.linalg.cholesky(covariance + 1e-6 * np.eye(64))
        near, far = (
            np.linalg.norm(np.linalg.solve(factor, (x - train.mean(0)).T), axis=0)
            for x in (known, foreign)
        )
        detected.append((far > np.quantile(near, 0.99)).mean())
    assert detected[0] < 0.6
    assert detected[1] > 0.9


def test_like_neighbours_count_as_one() -> None:
    rng = np.random.default_rng(3)
    independent = rng.normal(size=2000)
    assert effective_count(independent) > 1500
    assert effective_count(np.repeat(independent[:100], 20)) == pytest.approx(100, rel=0.4)
    assert effective_count(np.ones(50)) == 1
    assert effective_count(np.array([1.0])) == 1
    assert effective_count(np.array([1.0, 2.0])) >= 1


def test_the_mean_excess_is_over_the_95th_percentile() -> None:
    values = np.arange(101.0)
    assert mean_excess(values) == np.mean([1, 2, 3, 4, 5])
    assert mean_excess(np.zeros(9)) == 0


def test_a_neighbour_does_not_count_unless_there_is_no_other() -> None:
    points = np.array([[0.0], [1.0], [2.0], [10.0]])
    rows = np.arange(4)
    found = distances_to_others(points, rows, points, rows, 0)
    np.testing.assert_allclose(found, [1, 1, 1, 8])
    np.testing.assert_allclose(distances_to_others(points, rows, points, rows, 1), [2, 9, 2, 9])
    np.testing.assert_allclose(distances_to_others(points, rows, points, rows, 3), 0)
