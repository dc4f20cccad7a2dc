"""The benchmark's JSON: cases, settings, machine and rates; what does not fit is refused."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Literal, TypedDict

from pydantic import Field, model_validator

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.documents import document_from_json
from ...runtime.core.errors import MeasurementError
from ...runtime.core.spec import ModelSpec, StrictModel
from ...runtime.engines.tensorrt.engine_manifest import EngineManifest
from .case import DRIFT_LIMIT, SPREAD_LIMIT, Case, Samples
from .environment import Environment
from .rounds import RoundPlan


class Rate(StrictModel):
    """A rate of the machine, measured before and after the cases."""

    work: int  # Operations or bytes of one sample
    series: Samples  # The samples, in nanoseconds
    warnings: tuple[str, ...] = ()  # Where the machine changed in between

    @property
    def best_per_s(self) -> float:
        """Work per second in the fastest sample."""
        return self.work / min(self.series.samples) * 1e9

    @property
    def p50_per_s(self) -> float:
        """Work per second in the median sample."""
        return self.work / self.series.p50 * 1e3


class MachineRates(TypedDict):
    """The rates among the fields of a `Result`."""

    matrix: dict[Precision, Rate]
    copy_memory: Rate
    read_memory: Rate


class Settings(StrictModel):
    """How the benchmark was run."""

    quick: bool = False  # Too few samples to be quoted; only shows that everything works
    untrained: bool = False  # The weights are random
    weights_sha256: str  # Identity of the weights
    seed: int = 0  # Seed of the inputs, and of the weights where they are untrained
    schedule: RoundPlan  # Calls of each latency case
    # Calls of each training case, where it was asked for
    training_schedule: RoundPlan | None = None
    spread_limit: float = SPREAD_LIMIT  # Of a stable series; see `case.SPREAD_LIMIT`
    drift_limit: float = DRIFT_LIMIT  # Of a stable series; see `case.DRIFT_LIMIT`


class GpuFacts(StrictModel):
    """The GPU as `runtime.engines.gpu_info.Gpu` describes it, and what was built for it."""

    name: str
    compute_capability: str
    cuda: str
    driver: str | None
    memory_bytes: int
    integrated: bool
    machine: str | None  # The computer's product name, where the system shows one
    # What nvidia-smi reports of each GPU before the first case; empty without it
    power_start: tuple[dict[str, str], ...]
    power_end: tuple[dict[str, str], ...]  # The same right after the last case
    engines: tuple[EngineManifest, ...]  # Manifests of the engines that were built for this


class Result(StrictModel):
    """Everything that a JSON of motorvae-bench run or motorvae-doctor gpu holds."""

    schema_version: Literal[3] = 3
    created: str  # When, in UTC
    command: str  # What was typed, so that it can be typed again
    model: ModelSpec  # Sizes of the model
    settings: Settings  # How it was run
    environment: Environment  # On what
    # Matrix products (2 n^3 operations each) in each precision that the processor can do; rates are
    # absent where a GPU alone was examined
    matrix: dict[Precision, Rate] = Field(default_factory=dict)
    copy_memory: Rate | None = None  # Its copy bandwidth, bytes read plus bytes written
    read_memory: Rate | None = None  # Its read bandwidth
    gpu: GpuFacts | None = None  # Of motorvae-doctor gpu
    cases: tuple[Case, ...]  # What was measured
    warnings: tuple[str, ...] = ()  # What makes the whole doubtful

    @model_validator(mode="after")
    def _check_cases(self) -> Result:
        if self.gpu is None and "fp32" not in self.matrix:
            raise ValueError("matrix has no fp32 rate")
        counts = collections.Counter(case.key for case in self.cases)
        if twice := [key for key, count in counts.items() if count > 1]:
            raise ValueError(f"two cases are called {twice[0]!r}")
        return self

    def turn_of(self, case: Case) -> int:
        """Return how many samples of a case were taken in one go."""
        return case.turn or self.settings.schedule.turn


def load_result(path: Path) -> Result:
    """Read a result; a MeasurementError says why it cannot be used."""
    again = "run motorvae-bench again"
    return document_from_json(path, Result, error=MeasurementError, again=again)
