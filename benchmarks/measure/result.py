"""The benchmark's JSON: cases, settings, machine and rates; what does not fit is refused."""

from __future__ import annotations

import collections
import gzip
import io
import os
import platform
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import psutil  # type: ignore[import-untyped]
from pydantic import Field, model_validator

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.documents import bytes_of_file, document_from_bytes, document_from_json
from ...runtime.core.errors import MeasurementError
from ...runtime.core.packages import OPENCV_PACKAGES, versions_of
from ...runtime.core.spec import ModelSpec, StrictModel
from ...runtime.core.system.small_files import text_of_small_file
from ...runtime.engines.gpu_info import NoGpu, find_gpu
from ...runtime.engines.tensorrt.engine_manifest import EngineManifest
from .case import DRIFT_LIMIT, SPREAD_LIMIT, Case, Samples
from .earlier import upgraded
from .energy import EnergyFacts, WatchFacts
from .loadgen import LoadGenRun
from .rounds import RoundPlan

_PACKAGES = (
    "motorvae",
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    *OPENCV_PACKAGES,
    "numpy",
    "av",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
)
_DEVICE_TREE = Path("/proc/device-tree/model")
_PRODUCT_NAMES = (_DEVICE_TREE, Path("/sys/class/dmi/id/product_name"))
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_NVIDIA_SMI = ("nvidia-smi", "--format=csv,noheader")
_POWER = (
    *("name", "pstate", "power.draw", "power.limit", "clocks.sm", "clocks.mem"),
    *("temperature.gpu", "utilization.gpu"),
)
_COMMAND_S = 20
ENCODER_FP16_BYTES = 20 << 20
"""About what one run of the default encoder moves in FP16: 10 million weights of two bytes."""
_MOST_BYTES = 64 << 20  # raw samples of every case; a full run has one of these


class Environment(StrictModel):
    """The machine and the software of one benchmark run."""

    machine: str  # Instruction set, such as x86_64
    cpu: str  # Model name of the processor
    cores: int | None  # Physical cores, or None where the system does not report them
    logical_cores: int  # Hardware threads of the machine
    usable_cores: int  # Those that this process may run on
    memory_bytes: int  # Main memory of the machine
    system: str  # Operating system and kernel
    python: str  # Version of Python
    versions: dict[str, str]  # Version of each package that takes part and is installed
    threads: dict[str, int]  # Threads that each engine was set to
    governor: str | None  # The CPU frequency governor, where the system shows one
    load_start: tuple[float, float, float]  # Load averages over 1, 5 and 15 minutes
    load_end: tuple[float, float, float]  # The same after it, the benchmark's own load included
    gpu: str | None = None  # Name of the GPU, where there is one
    power_mode: str | None = None  # Of the board or the GPU, where it has one


def load_now() -> tuple[float, float, float]:
    """Return the load averages over 1, 5 and 15 minutes."""
    one, five, fifteen = psutil.getloadavg()
    return float(one), float(five), float(fifteen)


def usable_cores() -> int:
    """Return how many hardware threads this process may run on."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def environment_now(
    *,
    threads: dict[str, int],
    load_start: tuple[float, float, float],
    packages: Sequence[str] = (),
) -> Environment:
    """Describe this machine at the end of a run; versions of further packages count on demand."""
    gpu = find_gpu()
    # What the board or the GPU is limited to.
    limits = (*_lines("nvpmodel", "-q"), *_lines(*_NVIDIA_SMI, "--query-gpu=power.limit"))
    return Environment(
        machine=platform.machine(),
        cpu=cpu_name(),
        cores=psutil.cpu_count(logical=False),
        logical_cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        system=platform.platform(),
        python=platform.python_version(),
        versions=versions_of((*_PACKAGES, *packages)),
        threads=threads,
        governor=text_of_small_file(_GOVERNOR) or None,
        load_start=load_start,
        load_end=load_now(),
        gpu=None if isinstance(gpu, NoGpu) else gpu.name,
        power_mode="; ".join(limits) or None,
    )


def power_state() -> tuple[dict[str, str], ...]:
    """Return each GPU's clocks and power by nvidia-smi; nothing where it is not installed."""
    lines = _lines(*_NVIDIA_SMI, f"--query-gpu={','.join(_POWER)}")
    states = (line.split(", ") for line in lines)
    return tuple(dict(zip(_POWER, one, strict=True)) for one in states if len(one) == len(_POWER))


def clocks() -> tuple[str, ...]:
    """Return what the GPU's clocks are now, by nvidia-smi or jetson_clocks, for a case's notes."""
    states = (", ".join(map(" ".join, state.items())) for state in power_state())
    return (*states, *_lines("jetson_clocks", "--show"))


def product_name() -> str | None:
    """Return what the maker calls this computer, or None; its host name is nobody's business."""
    return next(filter(None, map(text_of_small_file, _PRODUCT_NAMES)), None)


def _lines(*command: str) -> list[str]:
    """Return the lines that a command prints; none where it is not there or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def cpu_name() -> str:
    """Return what the processor, or the board it is on, is called."""
    for line in text_of_small_file(Path("/proc/cpuinfo")).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    # Arm boards name themselves in the device tree instead.
    return text_of_small_file(_DEVICE_TREE) or platform.processor() or "unknown"


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


class GpuRates(StrictModel):
    """What a GPU does at best, as far as torch finds it."""

    schema_version: Literal[1] = 1
    device: str  # The GPU's name as torch has it
    torch: str  # Version of torch
    matrix: dict[Precision, Rate]  # 2 n^3 operations a sample; float32 without TF32, as engines do
    copy_memory: Rate  # Within the device's memory, bytes read plus bytes written
    read_memory: Rate  # Of more than any cache of it holds
    # Of as many bytes as one run of the encoder moves, again and again: where a cache holds them
    # all, as the L2 of large GPUs does, weights come from there as well
    read_again: Rate

    @property
    def best_read_per_s(self) -> float:
        """Bytes per second at which weights can be read at best, from wherever they are."""
        return max(self.read_memory.best_per_s, self.read_again.best_per_s)


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

    schema_version: Literal[3, 4] = 4  # 3 has no p90, and is read as 4
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
    energy: EnergyFacts | None = None  # The sensors, where energy was asked for
    loadgen: tuple[LoadGenRun, ...] = ()  # MLPerf's, where it was asked for
    loadgen_logs: str | None = None  # The folder beside the result with LoadGen's own files
    watch: WatchFacts | None = None  # What read conditions, where the system shows any
    cases: tuple[Case, ...]  # What was measured
    warnings: tuple[str, ...] = ()  # What makes the whole doubtful

    @model_validator(mode="before")
    @classmethod
    def _from_earlier(cls, content: Any) -> Any:
        return upgraded(content)

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
    """Read a result, also one that gzip made smaller; a MeasurementError says why it cannot be."""
    again = "run motorvae-bench again"
    if path.suffix == ".gz":
        data = bytes_of_file(path, most_bytes=_MOST_BYTES, error=MeasurementError, again=again)
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                content = file.read(_MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise MeasurementError(f"{path} is no gzip file ({error}): {again}") from error
        if len(content) > _MOST_BYTES:
            raise MeasurementError(f"{path} unfolds to more than {_MOST_BYTES} bytes: {again}")
        return document_from_bytes(content, path, Result, error=MeasurementError, again=again)
    return document_from_json(
        path, Result, error=MeasurementError, again=again, most_bytes=_MOST_BYTES
    )
