from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from motorvae.benchmarks.measure.case import samples_of
from motorvae.benchmarks.measure.loadgen import LoadGenRun, LoadGenVerdict

MS = 10**6


def verdict(**facts: Any) -> LoadGenVerdict:
    met = {"valid": True, "min_duration_met": True, "min_queries_met": True}
    return LoadGenVerdict.model_validate(
        {"version": "6.0.17", **met, "early_stopping_met": True, "queries": 1000, **facts}
    )


def run(ours_ms: tuple[float, float], theirs: LoadGenVerdict, **facts: Any) -> LoadGenRun:
    halves = tuple(samples_of([round(ms * MS)] * 200) for ms in ours_ms)
    fixed: dict[str, Any] = {"engine": "it", "scenario": "SingleStream", "seconds": 60}
    return LoadGenRun(**fixed | {"ours": halves, "verdict": theirs} | facts)


def test_equal_figures_agree_and_half_of_the_work_does_not() -> None:
    same = run((4, 4), verdict(p50_ms=4.1, p90_ms=4.1))
    assert same.disagreement is None
    half = run((4, 4), verdict(p50_ms=2, p90_ms=2))
    assert half.disagreement == ("p50 0.50 times ours, limit 1.05; p90 0.50 times ours, limit 1.05")


def test_what_ours_differ_by_is_noise_and_no_disagreement() -> None:
    assert run((4, 5), verdict(p50_ms=5.1, p90_ms=5.1)).disagreement is None
    assert run((4, 4), verdict(p50_ms=5.1, p90_ms=5.1)).disagreement is not None


def test_nothing_is_said_to_agree_where_ours_differ_too_far_or_there_is_no_figure() -> None:
    assert run((4, 4.8), verdict(p50_ms=4.4, p90_ms=4.4)).unclear is None
    noisy = run((4, 30), verdict(p50_ms=17, p90_ms=17))
    assert noisy.disagreement is None
    assert noisy.unclear == (
        "p50 of our own loop before and after differs by a factor of 7.50; "
        "p90 of our own loop before and after differs by a factor of 7.50"
    )
    assert run((4, 4), verdict()).unclear == "LoadGen's log has no figure to compare"
    assert run((4, 4), verdict(p50_ms=2, p90_ms=2)).unclear is None  # it disagrees


def test_loadgens_own_time_is_none_of_the_engines() -> None:
    theirs = verdict(p50_ms=0.055, p90_ms=0.055)
    assert run((0.048, 0.048), theirs).disagreement is not None
    assert run((0.048, 0.048), theirs, overhead_ms=0.006).disagreement is None


def test_offline_compares_samples_a_second_of_whole_batches() -> None:
    facts: dict[str, Any] = {"scenario": "Offline", "batch": 8}
    same = run((4, 4), verdict(samples_per_s=2000), **facts)  # 8 in 4 ms
    assert same.ours_value == pytest.approx(2000)
    assert same.disagreement is None
    double = run((4, 4), verdict(samples_per_s=4000), **facts)
    assert double.disagreement == "time a sample 0.50 times ours, limit 1.05"


def test_a_run_has_a_verdict_or_a_reason() -> None:
    with pytest.raises(ValidationError, match="its verdict and ours, or a reason"):
        LoadGenRun(engine="it", scenario="Offline", seconds=1)
    assert LoadGenRun(engine="it", scenario="Offline", seconds=1, not_measured="no").ratios == {}


def test_only_ten_minutes_are_official() -> None:
    assert not run((4, 4), verdict(), seconds=599).official
    assert run((4, 4), verdict(), seconds=600).official
