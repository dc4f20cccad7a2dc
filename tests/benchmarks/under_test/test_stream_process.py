from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest

from motorvae.benchmarks.cases.process import (
    StreamConfig,
    import_cases,
    start_up_cases,
    stream_configs,
)
from motorvae.benchmarks.under_test.model_under_test import ModelUnderTest
from motorvae.benchmarks.under_test.stream_process import StreamProcess, import_ns, parsed
from motorvae.runtime.core.errors import MeasurementError

ONNX = StreamConfig("onnx", "fp32")


def test_rows_come_from_a_process_that_is_then_gone(tested: ModelUnderTest) -> None:
    with StreamProcess(ONNX.args(tested, "synthetic?fps=60")) as process:
        rows = parsed(process.rows(3))
        pid = next(
            process.pid
            for process in psutil.Process().children()
            if "stream_main" in " ".join(process.cmdline())
        )
        memory = process.memory()
        assert memory.peak >= memory.rss > 1 << 20
    assert [row["index"] for row in rows] == sorted(row["index"] for row in rows)
    assert all(len(row["mu"]) == tested.spec.latent_size for row in rows)
    assert not psutil.pid_exists(pid)


def test_a_command_that_fails_is_quoted(tmp_path: Path) -> None:
    with (
        pytest.raises(MeasurementError, match=re.escape(f"no bundle at {tmp_path / 'none'}")),
        StreamProcess(("--camera", "synthetic", "--model", str(tmp_path / "none"))) as process,
    ):
        process.rows(1)


def test_start_up_is_that_of_every_way_to_stream(tested: ModelUnderTest) -> None:
    cases = start_up_cases(tested, rounds=1)
    assert len(cases) == len(stream_configs(tested))
    assert ONNX in stream_configs(tested)
    assert StreamConfig("openvino", "fp16") not in stream_configs(tested)
    for case in cases:
        if case.not_measured is None:
            (series,) = case.stages.values()
            # No interpreter imports numpy and an engine in less.
            assert min(series.samples) > 50e6
            assert case.turn == 1


def test_imports_are_timed_in_fresh_interpreters() -> None:
    assert import_ns() > 1e6
    (case,) = import_cases(2)
    assert [len(series.samples) for series in case.stages.values()] == [2]
