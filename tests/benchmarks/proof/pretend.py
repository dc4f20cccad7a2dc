"""The command on a machine that is said to have a GPU, with steps that a test gives as sources."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from motorvae.benchmarks.proof import run, steps
from motorvae.benchmarks.proof.cli import main
from motorvae.benchmarks.proof.evidence import by_exit_code
from motorvae.benchmarks.proof.process import Ended
from motorvae.benchmarks.proof.record import GpuIdentity, MachineFacts, Row
from motorvae.benchmarks.proof.steps import Place, Step

GPU, SOURCES, *ARGS = sys.argv[1:]


def facts(_run: object) -> MachineFacts:
    gpu = GpuIdentity(
        name=GPU,
        compute_capability="8.9",
        cuda="13.0",
        driver="580.10",
        memory_bytes=24 << 30,
        integrated=False,
        machine=None,
    )
    return MachineFacts(gpu=gpu, environment=None)


def half_proven(what: str, _ended: Ended, _work: Path) -> Sequence[Row]:
    """Read evidence as of a doctor that was ended after its first case."""
    return [
        Row(what=f"first of {what}", status="proven"),
        Row(what=f"second of {what}", status="unproven", reason="not reached"),
    ]


def broken(_what: str, _ended: Ended, _work: Path) -> Sequence[Row]:
    """Break as nobody foresaw."""
    raise AttributeError("no such verb")


READERS = {"half_proven": half_proven, "broken": broken, "exit_code": by_exit_code}


def planned(place: Place) -> tuple[Step, ...]:
    return tuple(
        Step(
            name=name,
            proves=f"that {name} works",
            limit_s=one.get("limit_s", 30),
            command=[sys.executable, "-c", one["code"]],
            modules=tuple(one.get("modules", ())),
            files=tuple((place.work / path, "it is made by hand") for path in one.get("files", ())),
            leaves=tuple(place.work / path for path in one.get("leaves", ())),
            reader=READERS[one.get("reader", "exit_code")],
        )
        for name, one in json.loads(SOURCES).items()
    )


if __name__ == "__main__":
    run.ProofRun._facts = facts  # type: ignore[method-assign, assignment]
    steps.planned_steps = planned
    sys.exit(main(ARGS))
