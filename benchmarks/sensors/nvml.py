"""NVML: energy, temperature and clocks of NVIDIA GPUs, through zeus and NVIDIA's own bindings.

zeus (Apache-2.0) opens the GPUs that CUDA_VISIBLE_DEVICES leaves visible and reads their energy
counters (since Volta); `pynvml`, which it brings, has what zeus does not read: clocks, and what
slows them. https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pynvml
from zeus.device.exception import ZeusBaseGPUError
from zeus.device.gpu.nvidia import NVIDIAGPUs
from zeus.exception import ZeusBaseError

from .base import Absent, Sensor

KIND = "NVML"
_MICROJOULES = 1000  # NVML counts millijoules
_SLOWED = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "power cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "thermal slowdown by the driver",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "thermal slowdown by the hardware",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
}
"""Of the reasons for a clock, those that a benchmark suffers from; being idle is none."""


class NvmlReading:
    """Temperature, clock and throttling of every visible GPU; of nothing where there is no NVML."""

    def __init__(self) -> None:
        self._gpus = [gpu for gpu in _gpus() if isinstance(gpu, _Gpu)]

    def __bool__(self) -> bool:
        return bool(self._gpus)

    def read(self) -> tuple[dict[str, float], dict[str, float], list[str]]:
        """Return degrees Celsius and megahertz by name, and what slows which GPU down."""
        degrees: dict[str, float] = {}
        megahertz: dict[str, float] = {}
        slowed: list[str] = []
        for name, gpu in self._gpus:
            # Each by itself: what one board does not show, another one's driver may.
            with contextlib.suppress(ZeusBaseError, pynvml.NVMLError):
                degrees[name] = float(gpu.get_gpu_temperature())
            with contextlib.suppress(pynvml.NVMLError):
                clock = pynvml.nvmlDeviceGetClockInfo(gpu.handle, pynvml.NVML_CLOCK_SM)
                megahertz[name] = float(clock)
            with contextlib.suppress(pynvml.NVMLError):
                reasons = _reasons_of(gpu.handle)
                slowed += [f"{name}: {what}" for bit, what in _SLOWED.items() if reasons & bit]
        return degrees, megahertz, slowed


def nvml_sensors() -> list[Sensor | Absent]:
    """Return the energy counter of every visible GPU, and why others have none."""
    found: list[Sensor | Absent] = []
    for one in _gpus():
        if isinstance(one, Absent):
            found.append(one)
            continue
        name, gpu = one
        read = partial(_microjoules, gpu)
        try:
            read()
        except OSError as error:
            found.append(Absent(f"{KIND} {name}", f"no energy counter: {error}"))
            continue
        found.append(
            Sensor(
                name=name,
                source="nvmlDeviceGetTotalEnergyConsumption",
                scope="GPU",
                covers="the GPU's board with its memory; not the rest of the computer",
                reads="energy counter",
                read=read,
            )
        )
    return found


class _Gpu(NamedTuple):
    name: str
    gpu: Any  # One of zeus


def _gpus() -> Iterator[_Gpu | Absent]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rights that are needed to set what we only read
            gpus = NVIDIAGPUs()
            named = [_Gpu(f"GPU {gpu.gpu_index} {gpu.get_name()}", gpu) for gpu in gpus.gpus]
    except (ZeusBaseError, pynvml.NVMLError, ValueError) as error:
        yield Absent(KIND, f"no GPU that NVML shows: {str(error).splitlines()[0][:150]}")
        return
    # It would shut NVML down when it is collected, for its GPUs, too.
    _kept.append(gpus)
    yield from named


_kept: list[NVIDIAGPUs] = []


def _reasons_of(handle: Any) -> int:
    """Return the bits of why a clock is what it is; drivers before 535 have the older name."""
    try:
        return int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    except pynvml.NVMLError_FunctionNotFound:
        return int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))


def _microjoules(gpu: Any) -> int:
    try:
        return int(gpu.get_total_energy_consumption()) * _MICROJOULES
    except (ZeusBaseGPUError, pynvml.NVMLError) as error:
        raise OSError(str(error)) from error
