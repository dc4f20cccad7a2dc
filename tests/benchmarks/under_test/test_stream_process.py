from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest

from motorvae.benchmarks.under_test.model_under_test import ModelUnderTest
from motorvae.benchmarks.under_test.stream_process import StreamProcess, parsed
from motorvae.runtime.core.errors import MeasurementError


def test_rows_come_from_a_process_that_is_then_gone(tested: ModelUnderTest) -> None:
    args = ("synthetic?fps=60", "--model", str(tested.bundle.folder), "--backend", "onnx")
    with StreamProcess(args) as process:
        rows = parsed(process.rows(3))
        pid = next(
            process.pid
            for process in psutil.Process().children()
            if "stream_main" in " ".join(process.cmdline())
        )
        memory = process.memory()
        assert memory["peak"] >= memory["rss"] > 1 << 20
    assert [row["index"] for row in rows] == sorted(row["index"] for row in rows)
    assert all(len(row["mu"]) == tested.spec.latent_size for row in rows)
    assert not psutil.pid_exists(pid)


def test_a_command_that_fails_is_quoted(tmp_path: Path) -> None:
    with (
        pytest.raises(MeasurementError, match=re.escape(f"no bundle at {tmp_path / 'none'}")),
        StreamProcess(("--camera", "synthetic", "--model", str(tmp_path / "none"))) as process,
    ):
        process.rows(1)
