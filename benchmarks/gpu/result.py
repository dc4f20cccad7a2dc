"""What motorvae-doctor gpu leaves: cases with the GPU and its engines, as JSON and table."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from rich import box
from rich.console import Console
from rich.table import Table

from ...export.tables import engine_table
from ...runtime.core.documents import document_from_json
from ...runtime.core.errors import MeasurementError
from ...runtime.core.spec import ModelSpec, StrictModel
from ...runtime.engines.tensorrt.engine_manifest import EngineManifest
from ..measure.case import Case
from ..measure.environment import Environment
from ..report.tables import digits_of


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
        power_start: What nvidia-smi reports of each GPU before the first row; empty without it.
        power_end: The same right after the last row.
        frames: Images of each row, one at a time: the bundle's held-out images, again and again.
        warmup: Runs before them that are not timed.
        engines: Manifests of the engines that were built for this.
    """

    schema_version: Literal[2] = 2
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
    rows: tuple[Case, ...]

    @property
    def measured(self) -> tuple[Case, ...]:
        """The rows that have figures."""
        return tuple(row for row in self.rows if row.status == "measured")

    @property
    def passed(self) -> bool:
        """Whether something was measured and nothing drifted."""
        return bool(self.measured) and all(row.status != "drifted" for row in self.rows)


def load_gpu_result(path: Path) -> GpuResult:
    """Read a result; a MeasurementError says why it cannot be used."""
    return document_from_json(
        path, GpuResult, error=MeasurementError, again="run motorvae-doctor gpu again"
    )


def print_gpu_result(console: Console, result: GpuResult) -> None:
    """Print the GPU, the engines, one line for each stage that was measured, and what was not."""
    gpu = result.gpu
    console.print(
        f"{gpu.name}, compute capability {gpu.compute_capability}, driver {gpu.driver or '?'}, "
        f"CUDA {gpu.cuda}, {gpu.memory_bytes / 1e9:.1f} GB"
    )
    for package in dict.fromkeys(engine.package for engine in result.engines):
        console.print(engine_table([one for one in result.engines if one.package == package]))
    if result.measured:
        console.print(_figures(result))
    for row in result.measured:
        if row.equals_graph_off is False:
            console.print(f"{row.how}: latents are not bit for bit those without the graph")
        for remark in (*row.notes, *row.warnings):
            console.print(f"{row.how}: {remark}")
    reasons: dict[str, list[str]] = {}
    for row in result.rows:
        if row.status == "drifted":
            console.print(f"{row.how}: {row.not_measured}", style="bold red")
        elif row.status == "unproven":
            reasons.setdefault(row.not_measured or "", []).append(row.how)
    for reason, titles in reasons.items():
        console.print(f"unproven: {'; '.join(titles)}: {reason}")


def _figures(result: GpuResult) -> Table:
    table = Table(
        title=f"one image: ms of one run, {result.frames} runs each, all past the gate",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in ("engine", "stage"):
        table.add_column(heading, overflow="fold")
    for heading in ("p50", "p95", "p99", "max"):
        table.add_column(heading, justify="right", overflow="fold")
    for row in result.measured:
        label = row.how + (" *" if row.warnings else "")
        for stage, samples in row.stages.items():
            figures = (samples.p50, samples.p95, samples.p99, samples.max)
            table.add_row(label, stage, *map(digits_of, figures))
            label = ""
        table.add_section()
    return table
