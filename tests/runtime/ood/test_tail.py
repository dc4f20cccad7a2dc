from __future__ import annotations

import numpy as np
import pytest

from motorvae.runtime.ood.tail import TAIL_LEVEL, Tail

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
    assert tail_of(np.arange(101.0)).median == 50


def test_images_that_are_all_alike_have_one_limit() -> None:
    tail = Tail(LEVELS, np.full(len(LEVELS), 3.0), mean_excess=0.0, effective_images=1)
    assert {tail.limit(level) for level in (0.1, 0.5, 0.99, 1)} == {3.0}
