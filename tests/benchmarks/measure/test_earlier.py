from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from motorvae.benchmarks.measure.result import Result, load_result
from motorvae.runtime.core.errors import MeasurementError


def version_3(result: Result) -> dict[str, Any]:
    """The result as version 3 wrote it: without what came since."""

    def without_p90(content: Any) -> Any:
        if isinstance(content, list):
            return [without_p90(one) for one in content]
        if isinstance(content, dict):
            return {name: without_p90(one) for name, one in content.items() if name != "p90"}
        return content

    content: dict[str, Any] = without_p90(json.loads(result.model_dump_json()))
    new = ("energy", "loadgen", "conditions")
    content["cases"] = [
        {name: value for name, value in case.items() if name not in new}
        for case in content["cases"]
    ]
    kept = {name: value for name, value in content.items() if name not in new}
    return {**kept, "schema_version": 3}


def test_a_result_of_version_3_is_read_with_the_p90_of_its_samples(
    result: Result, tmp_path: Path
) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(version_3(result)), encoding="utf-8")
    assert '"p90"' not in path.read_text(encoding="utf-8")
    assert load_result(path) == result


def test_a_polished_result_of_version_3_is_refused(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    content = version_3(result)
    content["cases"][0]["stages"]["run"]["p50"] = 0.1
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(MeasurementError, match="are not those of the samples"):
        load_result(path)
    content["cases"][0]["stages"]["run"]["samples"] = ["x", 3]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(MeasurementError, match=r"samples"):
        load_result(path)
