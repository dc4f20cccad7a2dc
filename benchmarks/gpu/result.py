"""What motorvae-doctor gpu leaves: each row's samples or why there are none, as JSON and table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from rich import box
from rich.console import Console
from rich.table import Table

from ...export.tables import engine_table
from ...runtime.bundle.graph_key import Precision, Variant
from ...runtime.bundle.manifest import GraphReport
from ...runtime.core.documents import document_from_json
from ...runtime.core.errors import MeasurementError
from ...runtime.core.latency import NS_PER_MS, percentiles_of
from ...runtime.core.redaction import without_private
from ...runtime.core.spec import ModelSpec, StrictModel
from ...runtime.engines.tensorrt.engine_manifest import EngineManifest
from ..measure.environment import Environment
from ..report.tables import digits_of

SCHEMA_VERSION: Literal[1] = 1

Status = Literal["measured", "drifted", "unproven"]
CudaGraph = Literal["off", "copies and kernels", "kernels", "left to the engine"]
Spin = Literal["driver's default", "engine's own"]
Transfers = Literal["pinned memory", "engine's own"]
Stage = Literal["wall", "device", "h2d", "compute", "d2h"]
"""One image from host memory to its latent in host memory, by the host's clock; the same without
the host's part, by the GPU's; and its three parts. A recorded graph is one thing to the GPU, so
that it has no parts to tell apart."""

STAGES: tuple[Stage, ...] = ("wall", "device", "h2d", "compute", "d2h")


class MsSeries(StrictModel):
    """Every sample of one stage in milliseconds, as they were taken, and their percentiles."""

    samples_ms: tuple[float, ...] = Field(min_length=1)
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    @model_validator(mode="after")
    def _check_percentiles(self) -> MsSeries:
        if not all(math.isfinite(sample) and sample >= 0 for sample in self.samples_ms):
            raise ValueError("each sample must be a number of 0 or more")
        said = (self.p50_ms, self.p95_ms, self.p99_ms, self.max_ms)
        found = _percentiles_ms(self.samples_ms)
        if not all(math.isclose(one, other) for one, other in zip(said, found, strict=True)):
            raise ValueError(f"percentiles {said} are not those of the samples, {found}")
        return self


class Row(StrictModel):
    """One way to run the encoder on one image at a time: measured, or the reason why not.

    Attributes:
        engine: Which engine.
        precision: Of weights and arithmetic.
        form: Which form of the encoder ran in ONNX Runtime; of engines it is the leanest
            that gives both outputs, whatever this says.
        graph: What runs as one recorded CUDA graph. TensorRT-RTX is asked to record its kernels
            and does not tell whether it did.
        spin: How the host waits for the GPU: "driver's default" spins where there are more
            processors than contexts, and else yields.
        transfers: How images and latents cross; always part of "wall".
        status: "drifted" was past a limit of the gate, so that its time means nothing.
        reason: Why there are no samples; None where there are.
        name: Engine, version, device and device layer, as the engine itself says.
        notes: What the engine says of how it ran.
        stages: Samples by stage.
        gate: How the very outputs that were timed compare with the reference.
        equals_graph_off: Whether `mu` of every image is bit for bit that of the same engine
            without a graph; None where it was not compared.
        warnings: Which series are restless.
    """

    engine: str
    precision: Precision
    form: Variant = "full"
    graph: CudaGraph = "off"
    spin: Spin = "driver's default"
    transfers: Transfers = "pinned memory"
    status: Status = "unproven"
    reason: str | None = None
    name: str | None = None
    notes: tuple[str, ...] = ()
    stages: dict[Stage, MsSeries] = Field(default_factory=dict)
    gate: tuple[GraphReport, ...] = ()
    equals_graph_off: bool | None = None
    warnings: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_status(self) -> Row:
        measured = self.status == "measured"
        if measured != bool(self.stages) or measured != (self.reason is None):
            raise ValueError("a measured row has samples and no reason; another the other way")
        if measured and not (self.gate and all(report.passed for report in self.gate)):
            raise ValueError("a row counts as measured only past the drift gate")
        return self

    @property
    def title(self) -> str:
        """Engine, precision, form and graph in words."""
        form = "" if self.form == "full" else f" {self.form}"
        return f"{self.engine} {self.precision}{form}, CUDA graph: {self.graph}"

    def public(self) -> Row:
        """Return the same with no host, user or home folder in what an error or engine said."""
        return self.model_copy(
            update={
                "reason": self.reason and without_private(self.reason),
                "notes": tuple(map(without_private, self.notes)),
            }
        )


class GpuFacts(StrictModel):
    """The GPU as `runtime.engines.gpu_info.Gpu` describes it."""

    name: str
    compute_capability: str
    cuda: str
    driver: str | None
    memory_bytes: int
    integrated: bool


class GpuResult(StrictModel):
    """Everything that the JSON holds.

    Attributes:
        machine: The computer's product name, where the system shows one.
        power_start: What nvidia-smi says of each GPU before the first row, where it is installed.
        power_end: The same right after the last row.
        frames: Images of each row, one at a time: the bundle's held-out images, again and again.
        warmup: Runs before them that are not timed.
        engines: Manifests of the engines that were built for this.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    producer: str
    created: str
    machine: str | None
    gpu: GpuFacts
    environment: Environment
    power_start: tuple[dict[str, str], ...]
    power_end: tuple[dict[str, str], ...]
    model: ModelSpec
    weights_sha256: str
    frames: int = Field(ge=1)
    warmup: int = Field(ge=0)
    engines: tuple[EngineManifest, ...]
    rows: tuple[Row, ...]

    @property
    def measured(self) -> tuple[Row, ...]:
        """The rows that have figures."""
        return tuple(row for row in self.rows if row.status == "measured")

    @property
    def passed(self) -> bool:
        """Whether something was measured and nothing drifted."""
        return bool(self.measured) and all(row.status != "drifted" for row in self.rows)


def series_of_ms(samples_ms: Sequence[float]) -> MsSeries:
    """Return samples in milliseconds with their percentiles.

    Raises:
        MeasurementError: There are none.
    """
    p50_ms, p95_ms, p99_ms, max_ms = _percentiles_ms(samples_ms)
    return MsSeries(
        samples_ms=tuple(samples_ms), p50_ms=p50_ms, p95_ms=p95_ms, p99_ms=p99_ms, max_ms=max_ms
    )


def samples_ns_of(samples_ms: Sequence[float]) -> list[int]:
    """Return milliseconds as whole nanoseconds; the GPU's clock ticks about every 500."""
    return [round(sample * NS_PER_MS) for sample in samples_ms]


def load_gpu_result(path: Path) -> GpuResult:
    """Read a result.

    Raises:
        MeasurementError: It is missing, not JSON, of another schema version, or inconsistent.
    """
    return document_from_json(
        path,
        GpuResult,
        version=SCHEMA_VERSION,
        error=MeasurementError,
        again="run motorvae-doctor gpu again",
    )


def _percentiles_ms(samples_ms: Sequence[float]) -> tuple[float, float, float, float]:
    found = percentiles_of(samples_ns_of(samples_ms))
    if found is None:
        raise MeasurementError("no samples were taken, so there is nothing to say of them")
    return found.p50, found.p95, found.p99, found.max


def print_gpu_result(console: Console, result: GpuResult) -> None:
    """Print the GPU, the engines, one line for each stage that was measured, and what was not."""
    gpu = result.gpu
    console.print(
        f"{gpu.name}, compute capability {gpu.compute_capability}, driver {gpu.driver or '?'}, "
        f"CUDA {gpu.cuda}, {gpu.memory_bytes / 1e9:.1f} GB"
    )
    for package in dict.fromkeys(engine_manifest.package for engine_manifest in result.engines):
        console.print(engine_table([p for p in result.engines if p.package == package]))
    if result.measured:
        console.print(_figures(result))
    for row in result.measured:
        if row.equals_graph_off is False:
            console.print(f"{row.title}: latents are not bit for bit those without the graph")
        for remark in (*row.notes, *row.warnings):
            console.print(f"{row.title}: {remark}")
    for row in result.rows:
        if row.status == "drifted":
            console.print(f"{row.title}: {row.reason}", style="bold red")
    reasons: dict[str, list[str]] = {}
    for row in result.rows:
        if row.status == "unproven":
            reasons.setdefault(row.reason or "", []).append(row.title)
    for reason, titles in reasons.items():
        console.print(f"unproven: {'; '.join(titles)}: {reason}")


def _figures(result: GpuResult) -> Table:
    table = Table(
        title=f"encoder, batch 1: ms of one run, {result.frames} runs each, all past the gate",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in ("engine", "stage"):
        table.add_column(heading, overflow="fold")
    for heading in ("p50", "p95", "p99", "max"):
        table.add_column(heading, justify="right", overflow="fold")
    for row in result.measured:
        label = row.title + (" *" if row.warnings else "")
        for stage, series in row.stages.items():
            figures = (series.p50_ms, series.p95_ms, series.p99_ms, series.max_ms)
            table.add_row(label, stage, *map(digits_of, figures))
            label = ""
        table.add_section()
    return table
