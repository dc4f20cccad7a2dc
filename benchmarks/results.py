"""The benchmark's JSON: raw samples, what is said of them, and reading it back with suspicion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ..runtime.documents import document_from_json
from ..runtime.errors import MeasurementError
from ..runtime.files import replaced_file
from ..runtime.spec import ModelSpec, StrictModel
from ..runtime.timing import percentiles_of
from .environment import Environment
from .measure import Schedule
from .roofline import Roofline
from .stability import warnings_of

SCHEMA_VERSION: Literal[1] = 1

EAGER, COMPILED, ONNX = "torch eager", "torch.compile", "ONNX Runtime"
"""Names of the engines that run one graph."""

Group = Literal["encoder", "decoder", "path", "training"]


class Series(StrictModel):
    """Every sample of one stage, in the order in which they were taken, and its percentiles."""

    samples_ns: tuple[int, ...] = Field(min_length=1)
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    @model_validator(mode="after")
    def _check_percentiles(self) -> Series:
        if min(self.samples_ns) <= 0:
            raise ValueError(f"a sample of {min(self.samples_ns)} ns: each must be above 0")
        said = (self.p50_ms, self.p95_ms, self.p99_ms, self.max_ms)
        found = _percentiles_ms(self.samples_ns)
        if not all(math.isclose(one, other) for one, other in zip(said, found, strict=True)):
            raise ValueError(f"percentiles {said} are not those of the samples, {found}")
        return self


class Agreement(StrictModel):
    """How far one output of an engine is from the reference on the benchmark's own input."""

    output: str
    reference: str
    max_difference: float
    limit: float


class Case(StrictModel):
    """One subject of the benchmark: measured, or the reason why not.

    Attributes:
        group: What was timed.
        engine: Which engine, or which way of doing it.
        batch: Images in one call.
        frame: Width and height of the frame, in the group `path`.
        input_sha256: Identity of the input's bytes; equal for all that are compared.
        not_measured: Why there are no samples; None where there are.
        prepare_s: Time of opening or compiling the engine up to its first result.
        stages: Samples by stage.
        agreement: How the outputs compare with the reference, checked before timing.
        roofline: The least time on this machine, for single graphs.
        warnings: What makes the figures doubtful.
    """

    group: Group
    engine: str
    batch: int
    frame: tuple[int, int] | None = None
    input_sha256: str | None = None
    not_measured: str | None = None
    prepare_s: float | None = None
    stages: dict[str, Series] = Field(default_factory=dict)
    agreement: tuple[Agreement, ...] = ()
    roofline: Roofline | None = None
    warnings: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_measured(self) -> Case:
        if bool(self.stages) == (self.not_measured is not None):
            raise ValueError("a case has either samples or the reason why there are none")
        return self

    @property
    def title(self) -> str:
        """What was timed, in words."""
        what = f"{self.frame[0]}x{self.frame[1]} frame" if self.frame else f"batch {self.batch}"
        return f"{self.group}, {what}, {self.engine}"


class Rate(StrictModel):
    """A rate of the machine, measured before and after the cases.

    Attributes:
        work: FLOPs or bytes of one sample.
        series: The samples.
    """

    work: int
    series: Series
    warnings: tuple[str, ...] = ()

    @property
    def best_per_s(self) -> float:
        """Work per second in the fastest sample."""
        return self.work / min(self.series.samples_ns) * 1e9

    @property
    def p50_per_s(self) -> float:
        """Work per second in the median sample."""
        return self.work / self.series.p50_ms * 1e3


class Settings(StrictModel):
    """How the benchmark was run.

    Attributes:
        quick: Too few samples to be quoted; only shows that everything works.
        untrained: The weights are random.
        weights_sha256: Identity of the weights.
        seed: Seed of the inputs, and of the weights where they are untrained.
        schedule: Calls of each latency case.
        training_schedule: Calls of each training case, where it was asked for.
        spread_limit: See `stability`.
        drift_limit: See `stability`.
    """

    quick: bool
    untrained: bool
    weights_sha256: str
    seed: int
    schedule: Schedule
    training_schedule: Schedule | None
    spread_limit: float
    drift_limit: float


class Result(StrictModel):
    """Everything that a benchmark's JSON holds."""

    schema_version: Literal[1] = SCHEMA_VERSION
    created: str
    model: ModelSpec
    settings: Settings
    environment: Environment
    matrix: Rate
    copy_memory: Rate
    cases: tuple[Case, ...]
    warnings: tuple[str, ...]


def series_of(samples_ns: Sequence[int]) -> Series:
    """Return samples with their percentiles."""
    p50_ms, p95_ms, p99_ms, max_ms = _percentiles_ms(samples_ns)
    return Series(
        samples_ns=tuple(samples_ns), p50_ms=p50_ms, p95_ms=p95_ms, p99_ms=p99_ms, max_ms=max_ms
    )


def measured_case(case: Case) -> Case:
    """Return a case with the warnings that its samples deserve."""
    found = [
        warning
        for stage, series in case.stages.items()
        for warning in warnings_of(stage, series.samples_ns)
    ]
    return case.model_copy(update={"warnings": tuple(found)})


def save_result(path: Path, result: Result) -> None:
    """Write a result, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    with replaced_file(path) as temporary:
        temporary.write_text(result.model_dump_json() + "\n", encoding="utf-8")


def load_result(path: Path) -> Result:
    """Read a result.

    Raises:
        MeasurementError: It is missing, not JSON, of another schema version, or inconsistent.
    """
    return document_from_json(
        path,
        Result,
        version=SCHEMA_VERSION,
        error=MeasurementError,
        again="run motorvae-bench again",
    )


def _percentiles_ms(samples_ns: Sequence[int]) -> tuple[float, float, float, float]:
    found = percentiles_of(samples_ns)
    if found is None:
        raise MeasurementError("no samples were taken, so there is nothing to say of them")
    return found.p50, found.p95, found.p99, found.max
