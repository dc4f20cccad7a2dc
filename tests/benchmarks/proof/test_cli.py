"""The command: what is wrong is one line, and a machine without a GPU proves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from motorvae.benchmarks.proof.cli import main

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--steps", "nothing"), "--steps nothing: there is none of this name; take all, or some"),
        (("--seconds", "0"), "--seconds 0: take more than 0"),
        (("--time-factor", "0"), "--time-factor 0: take 0.1 to 100"),
        (("--frames", "0"), "--frames 0: take 1 or more"),
        (("--model", "none"), "--model none: there is no such file or folder"),
        (("--checkpoint", "."), "--checkpoint: name the bundle of that run, too, with --model"),
        (("--checkout", "."), "--checkout .: it has no tests/gpu of motorVAE"),
        (("--output", "/proc/none"), "cannot write /proc/none"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    args: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(args) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"gpu-proof: {message}")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_steps_are_listed_with_what_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--list", "--time-factor", "2"]) == 0
    assert "rate in images/s (at most 600 s)" in capsys.readouterr().out
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert "train: training on the GPU, in bf16: its rate in images/s (at most 300 s)\n" in said
    assert "run it in a checkout of motorVAE, or name one: --checkout" in said
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_every_row_is_unproven_for_that_reason(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "motorvae.benchmarks.proof", "--checkout", str(ROOT)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # hides a GPU that may be there
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("gpu-proof: ")]
    assert line.startswith("gpu-proof: no GPU, so that nothing is proven: ")
    assert line.endswith(": run make gpu-proof on the machine that has one")
    found = json.loads((tmp_path / "gpu-proof" / "proof.json").read_text("utf-8"))
    rows = [row for step in found["steps"] for row in step["rows"]]
    assert {(row["status"], row["reason"]) for row in rows} == {
        ("unproven", found["machine"]["no_gpu"])
    }
    assert found["machine"]["environment"]["python"] == sys.version.split()[0]
