from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from motorvae.export.verify.extremes import upper_bound

Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]
Below = Callable[[float], float]


def normal_below(value: float) -> float:
    return (1 + math.erf(value / math.sqrt(2))) / 2


TAILS: dict[str, tuple[Draw, Below]] = {
    "half-normal": (
        lambda rng, n: np.abs(rng.normal(size=n)),
        lambda x: 2 * normal_below(x) - 1,
    ),
    "exponential": (lambda rng, n: rng.exponential(size=n), lambda x: 1 - math.exp(-x)),
    "lognormal 0.5": (
        lambda rng, n: np.exp(rng.normal(size=n) / 2),
        lambda x: normal_below(2 * math.log(x)),
    ),
    "lognormal 1": (lambda rng, n: np.exp(rng.normal(size=n)), lambda x: normal_below(math.log(x))),
    "Pareto 4": (lambda rng, n: 1 + rng.pareto(4, n), lambda x: 1 - max(x, 1) ** -4.0),
    "largest of 128 half-normals": (
        lambda rng, n: np.abs(rng.normal(size=(n, 128))).max(axis=1),
        lambda x: (2 * normal_below(x) - 1) ** 128,
    ),
}
"""A tail's draws, and the exact probability that one is below a value."""


def exact_level(below: Below, risk: float = 0.05) -> float:
    """Return what the largest of 128 exceeds with such a probability."""
    low, high = 1e-3, 1e6
    while high - low > 1e-6 * high:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if below(middle) ** 128 < 1 - risk else (low, middle)
    return high


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(("count", "loosest"), [(16, 12), (64, 4), (256, 2.2), (2048, 1.5)])
def test_the_worst_of_fresh_samples_stays_below_and_the_bound_is_no_excuse(
    tail: str, count: int, loosest: float
) -> None:
    draw, below = TAILS[tail]
    rng = np.random.default_rng(7)
    bounds = [upper_bound(draw(rng, count)) for _ in range(40)]
    assert np.mean([below(bound) ** 128 for bound in bounds]) >= 0.945
    assert np.median(bounds) <= loosest * exact_level(below)


def test_a_tail_heavier_than_promised_is_covered_less() -> None:
    """As docs/int8.md says: a variance without end is more than a few samples can tell."""
    rng = np.random.default_rng(7)
    for count in (16, 128, 2048):
        bounds = [upper_bound(1 + rng.pareto(2, count)) for _ in range(100)]
        assert np.mean([(1 - bound**-2.0) ** 128 for bound in bounds]) >= 0.9


def test_what_was_announced_before_was_not_covered() -> None:
    """The check above can fail: the largest of 128 is beaten by every second batch of 128."""
    draw, below = TAILS["half-normal"]
    rng = np.random.default_rng(7)
    found = np.mean([below(float(draw(rng, 128).max())) ** 128 for _ in range(200)])
    assert found == pytest.approx(0.5, abs=0.05)


def test_bound_is_what_was_seen_where_enough_was() -> None:
    samples = np.random.default_rng(0).exponential(size=19 * 8)
    assert upper_bound(samples, batch=8) == samples.max()
    assert upper_bound(samples[:-1], batch=8) > samples[:-1].max()


def test_bound_follows_the_unit_and_the_risk() -> None:
    samples = np.random.default_rng(0).exponential(size=100)
    bound = upper_bound(samples)
    assert upper_bound(1e-9 * samples) == pytest.approx(1e-9 * bound, rel=1e-4)
    assert upper_bound(samples, risk=0.01) > bound > upper_bound(samples, batch=16)
    assert upper_bound(samples.astype(np.float32)) == pytest.approx(bound, rel=1e-3)


@pytest.mark.parametrize(
    ("samples", "bound"),
    [
        ([], math.inf),
        ([0.1], math.inf),
        ([0.1, 0.2], math.inf),
        ([0.0] * 16, 0.0),
        ([0.5] * 16, 0.5),
        ([0.1, math.inf, 0.2, 0.3], math.inf),
    ],
)
def test_few_equal_and_infinite_samples(samples: list[float], bound: float) -> None:
    assert upper_bound(np.array(samples)) == bound


def test_nan_stays_one() -> None:
    assert math.isnan(upper_bound(np.array([0.1, math.nan, 0.2, 0.3])))


def test_few_samples_give_a_wide_bound() -> None:
    samples = np.random.default_rng(3).exponential(size=2048)
    widths = [upper_bound(samples[:count]) for count in (3, 8, 32, 2048)]
    assert math.isfinite(widths[0])
    assert widths == sorted(widths, reverse=True)
