from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from motorvae.benchmarks.results import Case, Result, load_result, save_result, series_of
from motorvae.runtime.errors import MeasurementError, OutputError


def test_a_result_reads_back_as_it_was_written(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bench.json"
    save_result(path, result)
    assert load_result(path) == result
    raw = json.loads(path.read_text())["cases"][0]["stages"]["run"]["samples_ns"]
    assert tuple(raw) == result.cases[0].stages["run"].samples_ns
    assert [file.name for file in path.parent.iterdir()] == ["bench.json"]


def test_percentiles_are_those_of_the_samples() -> None:
    series = series_of([n * 1_000_000 for n in range(1, 102)])
    found = (series.p50_ms, series.p95_ms, series.p99_ms, series.max_ms)
    assert found == pytest.approx((51, 96, 100, 101))


Edit = Callable[[dict[str, Any]], object]
EDITS: dict[str, tuple[Edit, str]] = {
    "another version": (
        lambda r: r.update(schema_version=2),
        r"schema_version=2, and this motorVAE reads 1: run motorvae-bench again",
    ),
    "no version": (lambda r: r.pop("schema_version"), "schema_version=None"),
    "unknown key": (lambda r: r.update(speed="fast"), "speed: Extra inputs"),
    "polished median": (
        lambda r: r["cases"][0]["stages"]["run"].update(p50_ms=0.1),
        "are not those of the samples",
    ),
    "sample of no time": (
        lambda r: r["cases"][0]["stages"]["run"]["samples_ns"].__setitem__(0, 0),
        "a sample of 0 ns",
    ),
    "no samples": (
        lambda r: r["cases"][0]["stages"]["run"].update(samples_ns=[]),
        "samples_ns",
    ),
}


@pytest.mark.parametrize(("edit", "message"), EDITS.values(), ids=EDITS)
def test_an_altered_result_is_refused(
    result: Result, tmp_path: Path, edit: Edit, message: str
) -> None:
    path = tmp_path / "bench.json"
    content = json.loads(result.model_dump_json())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(MeasurementError, match=message):
        load_result(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_what_is_not_a_result_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bench.json"
    path.write_bytes(content)
    with pytest.raises(MeasurementError, match=r"bench\.json.*run motorvae-bench again"):
        load_result(path)


def test_a_missing_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="cannot read"):
        load_result(tmp_path / "bench.json")


def test_a_case_has_samples_or_a_reason_and_never_both() -> None:
    with pytest.raises(ValidationError, match="either samples or the reason"):
        Case(group="encoder", engine="torch eager", batch=1)
    with pytest.raises(ValidationError, match="either samples or the reason"):
        Case(
            group="encoder",
            engine="torch eager",
            batch=1,
            not_measured="broken",
            stages={"run": series_of([1])},
        )


def test_a_result_that_cannot_be_written_says_so(result: Result, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        save_result(tmp_path / "file" / "bench.json", result)
