"""Proofs made by hand, of machines that are not here, and the command with steps of a test."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motorvae.benchmarks.measure.case import samples_of
from motorvae.benchmarks.measure.result import Environment, GpuRates, Rate
from motorvae.benchmarks.proof.record import GpuIdentity, MachineFacts, Proof, Row, StepRecord

PRETEND = Path(__file__).with_name("pretend.py")
GPU = GpuIdentity(
    name="A GPU of a test",
    compute_capability="8.9",
    cuda="13.0",
    driver="580.10",
    memory_bytes=24 << 30,
    integrated=False,
    machine="A board of a test",
)
ENVIRONMENT = Environment(
    machine="x86_64",
    cpu="A processor of a test",
    cores=8,
    logical_cores=16,
    usable_cores=16,
    memory_bytes=32 << 30,
    system="Linux 6.1",
    python="3.11.2",
    versions={},
    threads={},
    governor=None,
    load_start=(0, 0, 0),
    load_end=(0, 0, 0),
)


class Ready:
    """A pipe by which a step says that it runs."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.code = f"import os, time\nopen({str(path)!r}, 'w').write(str(os.getpid()))\n"

    def wait(self) -> int:
        """Return the step's process number once it has said it."""
        assert select.select([self._pipe], [], [], 60)[0], "no step has begun"
        return int(os.read(self._pipe, 100))


@pytest.fixture
def ready(tmp_path: Path) -> Ready:
    return Ready(tmp_path / "ready")


@pytest.fixture
def command() -> Callable[..., list[str]]:
    """The command line of a run whose steps are Python sources, by name.

    The machine is said to have the GPU above; the processes, the files and the signals are real.
    """

    def line(steps: dict[str, Any], *args: str, gpu: str = GPU.name) -> list[str]:
        for name, step in steps.items():
            steps[name] = {"code": step} if isinstance(step, str) else step
        return [sys.executable, str(PRETEND), gpu, json.dumps(steps), *args]

    return line


@pytest.fixture
def prove(
    command: Callable[..., list[str]], tmp_path: Path
) -> Callable[..., tuple[int, str, dict[str, Any]]]:
    """Run that command; return its exit code, what it said, and the JSON."""

    def run(
        steps: dict[str, Any], *args: str, gpu: str = GPU.name, limit_s: float = 60
    ) -> tuple[int, str, dict[str, Any]]:
        done = subprocess.run(
            command(steps, *args, gpu=gpu),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
            env={**os.environ, "COLUMNS": "100"},
        )
        file = tmp_path / "gpu-proof" / "proof.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return done.returncode, done.stderr, found

    return run


@pytest.fixture
def proof() -> Proof:
    """What a machine with a GPU might leave; no figure in it was measured by anybody."""

    def step(name: str, *rows: Row, **facts: Any) -> StepRecord:
        ran = {"seconds": 12.5, "exit_code": 0, "ended": "exit code 0", "commit": "ab" * 20}
        what = f"what {name} proves"
        return StepRecord(
            name=name, proves=what, limit_s=60, rows=rows, **{**ran, "dirty": False, **facts}
        )

    return Proof(
        created="2026-11-29T10:00:00+00:00",
        updated="2026-11-29T10:10:00+00:00",
        command="python -m motorvae.benchmarks.proof",
        machine=MachineFacts(gpu=GPU, environment=ENVIRONMENT),
        steps=(
            step(
                "doctor-onnx",
                Row(
                    what="ONNX Runtime CUDA, fp16, encoder",
                    status="proven",
                    note="made up",
                    figures={"wall_p50_ms": 1.2345, "compute_p50_ms": 0.5},
                ),
                Row(what="ONNX Runtime CUDA, int8, encoder", status="unproven", reason="no graph"),
            ),
            step("tests-rtx", Row(what="tests", status="failed", reason="2 of 9 tests failed <&>")),
            StepRecord(
                name="doctor-tensorrt",
                proves="TensorRT engines",
                limit_s=600,
                rows=(Row(what="TensorRT engines", status="unproven", reason="not installed"),),
            ),
        ),
    )


@pytest.fixture
def gpu_rates() -> GpuRates:
    """Rates made by hand: 10 and 40 TFLOP/s, 100 GB/s, and 400 GB/s from a cache."""

    def rate(work: int, nanoseconds: int) -> Rate:
        return Rate(work=work, series=samples_of((nanoseconds,) * 5))

    return GpuRates(
        device=GPU.name,
        torch="2.9",
        matrix={"fp32": rate(10**10, 10**6), "fp16": rate(4 * 10**10, 10**6)},
        copy_memory=rate(10**8, 10**6),
        read_memory=rate(10**8, 10**6),
        read_again=rate(4 * 10**8, 10**6),
    )
