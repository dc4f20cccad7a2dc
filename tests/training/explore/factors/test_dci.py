from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import entropy

from motorvae.training.explore.factors.dci import (
    completeness_of,
    dci_of,
    disentanglement_of,
    trees_of,
)
from motorvae.training.explore.factors.labels import Factor
from motorvae.training.explore.factors.probes import linear_probe, split_of

COUNT = 1200


@pytest.fixture
def factors() -> list[Factor]:
    rng = np.random.default_rng(0)
    kinds = rng.integers(3, size=COUNT).astype(np.float64)
    return [
        Factor("x", rng.uniform(-1, 1, COUNT)),
        Factor("y", rng.uniform(-1, 1, COUNT)),
        Factor("kind", kinds, ("a", "b", "c")),
    ]


def scores_of(latents: np.ndarray, factors: list[Factor]) -> tuple[np.ndarray, np.ndarray]:
    found = [trees_of(latents, factor, split_of(factor, seed=0), seed=0) for factor in factors]
    return np.stack([one.importance for one in found], axis=1), np.array([o.score for o in found])


def test_a_perfect_code_has_all_three_near_one(factors: list[Factor]) -> None:
    rng = np.random.default_rng(1)
    latents = np.stack([*(one.values for one in factors), rng.standard_normal(COUNT)], axis=1)
    assert min(dci_of(*scores_of(latents, factors))) > 0.97


def test_rotation_costs_disentanglement_and_completeness_but_no_probe(
    factors: list[Factor],
) -> None:
    x, y = (one.values for one in factors[:2])
    straight, rotated = np.stack([x, y], axis=1), np.stack([x + y, x - y], axis=1) / math.sqrt(2)
    of_straight, of_rotated = (dci_of(*scores_of(one, factors[:2])) for one in (straight, rotated))
    assert of_straight.disentanglement > 0.97
    assert of_rotated.disentanglement < 0.1
    assert of_rotated.completeness < 0.1
    assert of_rotated.informativeness > 0.9
    for latents in (straight, rotated):
        for factor in factors[:2]:
            probe = linear_probe(latents, factor, split_of(factor, seed=0))
            assert probe.score == pytest.approx(1, abs=1e-3)


def test_noise_gives_chance(factors: list[Factor]) -> None:
    latents = np.random.default_rng(2).standard_normal((COUNT, 5))
    for factor in factors:
        probe = linear_probe(latents, factor, split_of(factor, seed=0))
        assert probe.score < probe.chance + 0.06
    assert probe.chance == pytest.approx(1 / 3, abs=0.03)
    found = dci_of(*scores_of(latents, factors))
    assert found.disentanglement < 0.2
    assert found.informativeness < 0.2


def test_figures_are_those_of_the_paper_in_float64() -> None:
    importance = np.random.default_rng(3).random((7, 4))
    importance[2] = 0
    shares = importance[0] / importance[0].sum()
    assert disentanglement_of(importance)[0] == pytest.approx(1 - entropy(shares, base=4))
    column = importance[:, 1] / importance[:, 1].sum()
    assert completeness_of(importance)[1] == pytest.approx(1 - entropy(column, base=7))
    weights = importance.sum(1) / importance.sum()
    expected = sum(
        weight * (1 - entropy(row / row.sum(), base=4))
        for weight, row in zip(weights, importance, strict=True)
        if weight
    )
    found = dci_of(importance, np.array([0.5, 1.0, 0.0, 0.5]))
    assert found.disentanglement == pytest.approx(expected)
    assert found.informativeness == 0.5


def test_where_nothing_helps_the_figures_are_zero() -> None:
    assert dci_of(np.zeros((3, 2)), np.zeros(2)) == pytest.approx((0, 0, 0))
    assert math.isnan(dci_of(np.ones((1, 3)), np.ones(3)).completeness)


def test_the_same_seed_gives_the_same_figures(factors: list[Factor]) -> None:
    latents = np.random.default_rng(4).standard_normal((COUNT, 3))
    for one, other in zip(scores_of(latents, factors), scores_of(latents, factors), strict=True):
        assert np.array_equal(one, other)
