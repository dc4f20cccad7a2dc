"""The cases of whole processes: start to first latent, import time, and ways to stream."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import get_args

from ...runtime.bundle.graph_key import OUTPUTS, Precision
from ...runtime.core.errors import MeasurementError
from ...runtime.engines.base import CpuRunner
from ..measure.case import Case, measured_case
from ..measure.samples import samples_of
from ..subjects.engines_under_test import RUNNERS, is_for
from ..subjects.model_under_test import ModelUnderTest
from ..subjects.stream_process import StreamProcess, import_ns

_MOTORVAE = "motorvae.runtime.cli"


@dataclass(frozen=True)
class StreamConfig:
    """One choice of engine for motorvae-stream; everything else is its default.

    Attributes:
        runner: The backend, by the name that the command takes.
        precision: Which of the bundle's graphs.
    """

    runner: CpuRunner
    precision: Precision

    def args(self, subject: ModelUnderTest, camera: str) -> tuple[str, ...]:
        """Return the command's options."""
        return (
            *("--camera", camera, "--model", str(subject.bundle.folder)),
            *("--backend", self.runner, "--precision", self.precision),
        )

    def planned(self, group: str) -> Case:
        """Return its case without samples."""
        return Case.model_validate(
            {
                "group": group,
                "engine": RUNNERS[self.runner],
                "precision": self.precision,
                "outputs": " and ".join(OUTPUTS["encoder"]),
                "variant": "motorvae-stream",
                "not_measured": "not reached",
            }
        )


def ways_of(subject: ModelUnderTest) -> list[StreamConfig]:
    """Return every engine and precision that the bundle can be streamed with on a CPU."""
    found = {
        StreamConfig(runner, entry.precision)
        for entry in subject.bundle.manifest.graphs
        for runner in RUNNERS
        if entry.graph == "encoder" and is_for(entry, runner) and entry.precision != "fp16"
    }
    order = get_args(Precision)
    return sorted(found, key=lambda way: (way.runner, order.index(way.precision)))


def start_up_cases(subject: ModelUnderTest, rounds: int) -> list[Case]:
    """Time processes from their start to the first row in a pipe, in turns, one launch a turn."""
    taken: dict[StreamConfig, list[int]] = {way: [] for way in ways_of(subject)}
    reasons: dict[StreamConfig, str] = {}
    for turn in range(rounds + 1):
        for way, samples in taken.items():
            if way in reasons:
                continue
            try:
                first_ns = _first_row_ns(subject, way)
            except MeasurementError as error:
                reasons[way] = str(error)
            else:
                if turn:  # before it, files came from the disk
                    samples.append(first_ns)
    return [
        measured_case(
            way.planned("start-up").model_copy(
                update={
                    "not_measured": reasons.get(way),
                    "stages": {} if way in reasons else {"first latent": samples_of(samples)},
                    "turn": 1,
                }
            )
        )
        for way, samples in taken.items()
    ]


def import_cases(rounds: int) -> list[Case]:
    """Time the import of the runtime's commands in fresh interpreters."""
    import_ns()  # files come from the disk
    case = Case(
        group="import",
        engine=_MOTORVAE,
        turn=1,
        stages={"import": samples_of([import_ns() for _ in range(rounds)])},
    )
    return [measured_case(case)]


def _first_row_ns(subject: ModelUnderTest, way: StreamConfig) -> int:
    with StreamProcess(way.args(subject, "synthetic")) as child:
        child.rows(1)
        return time.perf_counter_ns() - child.spawned_ns
