from __future__ import annotations

import pytest

from motorvae.benchmarks.measure.case import busy_warning, drift_of, spread_of, warnings_of


def test_a_steady_series_gets_no_warning() -> None:
    assert warnings_of("run", [100, 101, 99, 100] * 50) == ()


def test_rare_outliers_are_not_instability() -> None:
    assert warnings_of("run", ([100] * 19 + [5000]) * 10) == ()


def test_spread_is_the_interquartile_range_over_the_median() -> None:
    assert spread_of([90, 95, 100, 105, 110]) == pytest.approx(0.10)
    restless = [80, 120] * 100
    assert spread_of(restless) == pytest.approx(0.40)
    assert warnings_of("run", restless) == ("run: the middle half spans 40% of the median",)


def test_drift_compares_the_last_third_with_the_first() -> None:
    slower = [100] * 60 + [104] * 80 + [120] * 60
    assert drift_of(slower) == pytest.approx(20 / 104)
    assert drift_of(slower[::-1]) == pytest.approx(-20 / 104)
    assert [w for w in warnings_of("run", slower) if "third" in w] == [
        "run: last third above first by +19% of the median"
    ]


def test_a_change_back_and_forth_is_spread_and_not_drift() -> None:
    wave = ([100] * 10 + [150] * 10) * 9
    assert drift_of(wave) == pytest.approx(0.0)
    assert "spans" in warnings_of("run", wave)[0]


def test_too_few_samples_have_no_drift() -> None:
    assert drift_of([1, 9]) == 0.0


def test_a_busy_machine_is_named() -> None:
    assert busy_warning(0.5) is None
    assert "load 0.90 per core" in str(busy_warning(0.9))
