"""Real processes of one run, as torchrun and srun start them; gloo on loopback, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SMALL = (
    *("vehicles", "--vehicles-count", "48", "--held-out", "0.2", "--image-size", "32"),
    *("--channels", "4", "8", "8", "16", "16", "--latent-size", "8", "--batch-size", "8"),
    *("--learning-rate", "1e-3", "--precision", "32-true", "--accelerator", "cpu"),
)
COMMAND = (sys.executable, "-m", "motorvae", "train")
_STARTED: list[subprocess.Popen[str]] = []
_OF_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "SLURM_", "TORCHELASTIC_", "MOTORVAE_")


def torchrun(processes: int, *options: str, restarts: int = 0) -> list[str]:
    """torchrun's own module with motorvae-train in each process."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes), "--max-restarts", str(restarts)),
        *("-m", "motorvae", "train", *options),
    ]


def environment(**more: str) -> dict[str, str]:
    """Of a process that nothing but `more` says anything about others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OF_LAUNCHERS)}
    return kept | {"OMP_NUM_THREADS": "1"} | more


def started(
    command: Sequence[str], here: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command, cwd=here, env=env or environment(), stderr=subprocess.PIPE, text=True
    )
    _STARTED.append(process)
    return process


def end_all() -> None:
    """End what a test that has failed has left; torchrun ends its processes on SIGTERM."""
    while _STARTED:
        process = _STARTED.pop()
        if process.poll() is None:
            process.terminate()
            try:
                process.communicate(timeout=45)
            except subprocess.TimeoutExpired:
                process.kill()
        if process.stderr is not None:
            process.stderr.close()


def said(command: Sequence[str], here: Path, code: int = 0) -> list[str]:
    """Lines of standard error of a command that is to end with this code."""
    process = started(command, here)
    _, lines = process.communicate()
    assert process.returncode == code, lines
    return lines.splitlines()


def ours(lines: Sequence[str]) -> list[str]:
    """What motorvae-train has said of how it ended, among the lines of torchrun and others."""
    return [line for line in lines if line.startswith("motorvae-train: ")]


def by_rank(here: Path, *commands: Sequence[str], port: int) -> list[subprocess.Popen[str]]:
    """Processes with the variables that torchrun gives them, each with a command of its own."""
    count = str(len(commands))
    return [
        started(
            command,
            here,
            environment(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=count,
                LOCAL_WORLD_SIZE=count,
                GROUP_RANK="0",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
                TORCHELASTIC_RUN_ID="none",
            ),
        )
        for rank, command in enumerate(commands)
    ]
