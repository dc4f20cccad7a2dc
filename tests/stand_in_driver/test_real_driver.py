"""These tests on a GPU's own driver, as far as that can be shown without one: on the stand-in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from motorvae.benchmarks.proof.machine import why_no_proof

from .real_driver import SKIPPED

HERE = Path(__file__).parent
LAYER = ("cuda_layer", "cuda_close", "cuda_graph", "cuda_threads")


def on_a_real_driver(*names: str) -> subprocess.CompletedProcess[str]:
    tests = [str(HERE / f"test_{name}.py") for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *tests]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=HERE.parents[1],
        env={**os.environ, "MOTORVAE_TEST_DRIVER": "real"},
    )


def test_counted_at_its_callers_a_driver_answers_as_the_stand_in_does() -> None:
    """Nothing of it asks the stand-in what only that can know: the counts must be right."""
    done = on_a_real_driver(*LAYER)
    assert done.returncode == 0, done.stdout[-3000:]
    reasons = re.findall(r"^SKIPPED \[\d+\] \S+: (.*)$", done.stdout, re.MULTILINE)
    assert reasons
    assert [reason for reason in reasons if not reason.startswith(SKIPPED)] == []
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 80


def test_what_passes_on_the_stand_in_is_no_proof_of_a_gpu(tmp_path: Path) -> None:
    for name in ("nvidiactl", "nvidia0"):
        (tmp_path / name).touch()
    assert why_no_proof(tmp_path) == (
        "libcuda.so.1 is the tests' stand-in driver (Stand-in GPU), and no GPU"
    )


def test_a_library_without_a_kernels_device_is_no_proof_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("motorvae.benchmarks.proof.machine._STAND_IN_NAME", "no_such_name")
    assert (why_no_proof(tmp_path) or "").startswith(
        "libcuda.so.1 answers (Stand-in GPU), and the kernel has no NVIDIA device: none of nvidiact"
    )
    (tmp_path / "nvmap").touch()
    assert why_no_proof(tmp_path) is None


def test_the_whole_proof_on_the_stand_in_proves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "motorvae.benchmarks.proof", "--checkout", str(HERE.parents[1])],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    assert "no GPU, so that nothing is proven: libcuda.so.1 is the tests' stand-in" in done.stderr
    content = (tmp_path / "gpu-proof" / "proof.json").read_text(encoding="utf-8")
    assert '"name": "Stand-in GPU"' in content
    assert '"status": "proven"' not in content
    assert not list((tmp_path / "gpu-proof" / "work").glob("*.xml"))
