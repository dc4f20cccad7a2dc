"""What the machine is and how busy it was, so that two results are only compared if they may be."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from ...runtime.core.packages import OPENCV_PACKAGES, versions_of
from ...runtime.core.spec import StrictModel
from ...runtime.engines.gpu_info import NoGpu, find_gpu

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
        cpu=_cpu_name(),
        cores=psutil.cpu_count(logical=False),
        logical_cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        system=platform.platform(),
        python=platform.python_version(),
        versions=versions_of((*_PACKAGES, *packages)),
        threads=threads,
        governor=_text(_GOVERNOR),
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
    return next(filter(None, map(_text, _PRODUCT_NAMES)), None)


def _lines(*command: str) -> list[str]:
    """Return the lines that a command prints; none where it is not there or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _cpu_name() -> str:
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    # Arm boards name themselves in the device tree instead.
    return _text(_DEVICE_TREE) or platform.processor() or "unknown"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None
