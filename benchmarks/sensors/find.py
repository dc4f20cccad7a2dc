"""All sensors of this machine, and where there is none, one line that says why."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from ...runtime.core.errors import MeasurementError, MissingDependencyError, needed_for
from ..measure.energy import Scope
from .base import ROOT, Absent, Sensor
from .ina import RAILS, ina_sensors
from .rapl import rapl_sensors

if TYPE_CHECKING:
    from .nvml import NvmlReading

_FEATURE = "the energy of an NVIDIA GPU"
_LIBRARY = "libnvidia-ml.so.1"
_SCOPES = get_args(Scope)
GPU_RAILS = frozenset(
    name for name, (scope, _) in RAILS.items() if scope == "board" or "GPU" in name
)
"""Rails that a Jetson's GPU is fed from; of an AGX Orin there is none for all of it."""


class Found(NamedTuple):
    """The sensors of a machine, by `Scope`, those that cover most first; and what is not there."""

    sensors: list[Sensor]
    absent: list[Absent]


def find_sensors(root: Path = ROOT) -> Found:
    """Look for sensors of energy or power: a Jetson's monitors, RAPL, and NVML."""
    found = [*ina_sensors(root), *rapl_sensors(root), *_of_nvidia_gpus()]
    sensors = [one for one in found if isinstance(one, Sensor)]
    absent = [one for one in found if isinstance(one, Absent)]
    sensors.sort(key=lambda sensor: _SCOPES.index(sensor.scope))
    return Found(sensors, absent)


def require_sensors(root: Path = ROOT) -> Found:
    """Find at least one, or raise a MeasurementError that says what was looked for.

    Energy is measured or not given: it is never estimated.
    """
    found = find_sensors(root)
    if not found.sensors:
        reasons = "; ".join(one.words for one in found.absent)
        raise MeasurementError(
            f"--energy: this machine shows no sensor of energy ({reasons}): make one readable, or "
            "leave out --energy"
        )
    return found


def covers_gpu(name: str, scope: Scope) -> bool:
    """Return whether a GPU's energy is in what a sensor of this name and scope counts.

    RAPL's zones prove nothing of a GPU, not even `psys`, from which a card may be left out.
    """
    return scope == "GPU" or name in GPU_RAILS


def gpu_sensors(root: Path = ROOT) -> Found:
    """Find the sensors that cover a GPU; there may be none."""
    found = find_sensors(root)
    return Found([one for one in found.sensors if covers_gpu(one.name, one.scope)], found.absent)


def nvml_reading() -> NvmlReading | None:
    """Return what reads the clocks of NVIDIA GPUs, or None without a driver for one.

    A MissingDependencyError where the extra is not installed.
    """
    if not has_driver():
        return None
    with needed_for(_FEATURE, package="zeus", extra="energy"):
        from .nvml import NvmlReading as Gpus  # noqa: PLC0415  # optional
    return Gpus()


def _of_nvidia_gpus() -> list[Sensor | Absent]:
    kind = "NVML"
    if not has_driver():
        return [Absent(kind, f"no NVIDIA driver, {_LIBRARY} does not load")]
    try:
        with needed_for(_FEATURE, package="zeus", extra="energy"):
            from .nvml import nvml_sensors  # noqa: PLC0415  # optional
    except MissingDependencyError as error:
        return [Absent(kind, str(error))]
    return nvml_sensors()


def has_driver() -> bool:
    """Return whether an NVIDIA driver is there that NVML could ask."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return False
    return True
