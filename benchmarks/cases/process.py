"""The cases of whole processes: start to first latent, import time, and configs to stream."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import get_args

from ...runtime.bundle.graph_key import OUTPUTS, Precision
from ...runtime.core.errors import MeasurementError
from ...runtime.engines.base import CpuRunner
from ..measure.case import Case
from ..under_test.engines_under_test import RUNNERS, is_for
from ..under_test.model_under_test import ModelUnderTest
from ..under_test.stream_process import StreamProcess, import_ns

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

    def args(self, tested: ModelUnderTest, camera: str) -> tuple[str, ...]:
        """Return the command's options."""
        return (
            *("--camera", camera, "--model", str(tested.bundle.folder)),
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


def stream_configs(tested: ModelUnderTest) -> list[StreamConfig]:
    """Return every engine and precision that the bundle can be streamed with on a CPU."""
    found = {
        StreamConfig(runner, entry.precision)
        for entry in tested.bundle.manifest.graphs
        for runner in RUNNERS
        if entry.graph == "encoder" and is_for(entry, runner) and entry.precision != "fp16"
    }
    order = get_args(Precision)
    return sorted(found, key=lambda config: (config.runner, order.index(config.precision)))


def start_up_cases(tested: ModelUnderTest, rounds: int) -> list[Case]:
    """Time processes from their start to the first row in a pipe, in turns, one launch a turn."""
    taken: dict[StreamConfig, list[int]] = {config: [] for config in stream_configs(tested)}
    reasons: dict[StreamConfig, str] = {}
    for turn in range(rounds + 1):
        for config, samples in taken.items():
            if config in reasons:
                continue
            try:
                first_ns = _first_row_ns(tested, config)
            except MeasurementError as error:
                reasons[config] = str(error)
            else:
                if turn:  # before it, files came from the disk
                    samples.append(first_ns)
    return [
        config.planned("start-up").without(reasons[config])
        if config in reasons
        else config.planned("start-up").timed({"first latent": samples}, turn=1)
        for config, samples in taken.items()
    ]


def import_cases(rounds: int) -> list[Case]:
    """Time the import of the runtime's commands in fresh interpreters."""
    import_ns()  # files come from the disk
    case = Case(group="import", engine=_MOTORVAE, not_measured="not reached")
    return [case.timed({"import": [import_ns() for _ in range(rounds)]}, turn=1)]


def _first_row_ns(tested: ModelUnderTest, config: StreamConfig) -> int:
    with StreamProcess(config.args(tested, "synthetic")) as process:
        process.rows(1)
        return time.perf_counter_ns() - process.spawned_ns
