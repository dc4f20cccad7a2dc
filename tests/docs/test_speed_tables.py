"""docs/tools/speed_tables.py prints what a run measured, whatever that is."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from motorvae.benchmarks.measure.case import Case
from motorvae.benchmarks.measure.result import load_result

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("keeps", "has", "has_not"),
    [
        (lambda _: True, ("Goals", "encoder int8", "p99 over p50", "Camera"), ()),
        (
            lambda case: case.group in {"encoder", "path"},
            ("Goals", "encoder int8", "1080p mjpeg to mu, against", "Encoder, batch 1"),
            ("Camera", "p99 over p50", "decoder"),
        ),
        (lambda case: case.group == "stream", ("p99 over p50", "Camera"), ("encoder int8",)),
        (
            lambda case: case.precision != "int8" and case.engine != "plain recipe",
            ("encoder float32 mu", "decoder int8", "Camera"),
            ("encoder int8", "against the plain recipe", "p99 over p50"),
        ),
    ],
    ids=["whole", "no camera", "camera alone", "no INT8"],
)
@pytest.mark.parametrize("is_left_out", [True, False], ids=["left out", "not measured"])
def test_it_prints_what_there_is(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    keeps: Callable[[Case], bool],
    has: tuple[str, ...],
    has_not: tuple[str, ...],
    *,
    is_left_out: bool,
) -> None:
    """Of a run with `--only`, and of one in which cases could not be measured."""
    result = load_result(DOCS / "results" / "speed.json.gz")
    nothing = {"stages": {}, "not_measured": "not here"}
    cases = [
        case if keeps(case) else case.model_copy(update=nothing)
        for case in result.cases
        if keeps(case) or not is_left_out
    ]
    path = tmp_path / "bench.json"
    path.write_text(result.model_copy(update={"cases": tuple(cases)}).model_dump_json())
    runpy.run_path(str(DOCS / "tools" / "speed_tables.py"))["main"]([str(path)])
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line]
    assert not [part for part in has if not any(part in row for row in rows)]
    assert not [part for part in has_not if any(part in row for row in rows)]
