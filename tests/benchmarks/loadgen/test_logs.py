"""LoadGen's log in the form that 6.0.17 writes: its keys, with values made up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from motorvae.benchmarks.loadgen.logs import DETAILS, verdict_in
from motorvae.runtime.core.errors import MeasurementError

SINGLE: dict[str, Any] = {
    "loadgen_version": "6.0.17 @ d6147c7eb7",
    "result_validity": "VALID",
    "result_min_duration_met": True,
    "result_min_queries_met": True,
    "early_stopping_met": True,
    "result_query_count": 637,
    "early_stopping_latency_ss": 3140940,
    "result_50.00_percentile_latency_ns": 3103584,
    "result_90.00_percentile_latency_ns": 3133839,
}
OFFLINE: dict[str, Any] = {
    "loadgen_version": "6.0.17 @ d6147c7eb7",
    "effective_samples_per_query": 660,
    "result_validity": "INVALID",
    "result_min_duration_met": False,
    "result_min_queries_met": True,
    "early_stopping_met": True,
    "result_samples_per_second": 318.962,
    "result_90.00_percentile_latency_ns": 1863937931,
}


def log(folder: Path, values: dict[str, Any], **errors: str) -> Path:
    entries = [(key, value, False) for key, value in values.items()]
    entries += [(key, value, True) for key, value in errors.items()]
    lines = [
        f":::MLLOG {json.dumps({'key': key, 'value': value, 'metadata': {'is_error': bad}})}"
        for key, value, bad in entries
    ]
    (folder / DETAILS).write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder


def test_a_single_stream_has_its_percentile_and_the_estimate_of_it(tmp_path: Path) -> None:
    found = verdict_in(log(tmp_path, SINGLE), "SingleStream")
    assert (found.valid, found.queries) == (True, 637)
    assert (found.p50_ms, found.p90_ms) == (3.103584, 3.133839)
    assert found.early_stopping_p90_ms == 3.14094
    assert found.samples_per_s is None


def test_offline_has_samples_a_second_and_no_latency(tmp_path: Path) -> None:
    found = verdict_in(log(tmp_path, OFFLINE), "Offline")
    assert (found.valid, found.min_duration_met) == (False, False)
    assert (found.samples_per_s, found.queries) == (318.962, 660)
    assert (found.p50_ms, found.p90_ms, found.early_stopping_p90_ms) == (None, None, None)


def test_too_few_queries_for_an_estimate_are_no_estimate_of_nothing(tmp_path: Path) -> None:
    found = verdict_in(log(tmp_path, {**SINGLE, "early_stopping_latency_ss": 0}), "SingleStream")
    assert found.early_stopping_p90_ms is None


def test_errors_that_it_logged_are_kept(tmp_path: Path) -> None:
    found = verdict_in(log(tmp_path, SINGLE, error_invalid="out of order"), "SingleStream")
    assert found.errors == ("error_invalid: out of order",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        ("", "gave no verdict"),
        (":::MLLOG {", "a line that is no log entry"),
        (':::MLLOG {"key": "x"}', "a line that is no log entry"),
        (":::MLLOG []", "a line that is no log entry"),
    ],
)
def test_a_log_without_a_verdict_is_one_line(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / DETAILS).write_text(content)
    with pytest.raises(MeasurementError, match=message) as caught:
        verdict_in(tmp_path, "Offline")
    assert str(caught.value).endswith("run motorvae-bench again")
