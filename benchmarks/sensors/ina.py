"""INA: the power monitors of Jetson boards (INA3221, INA238 and kin), under /sys/class/hwmon.

Which of their channels are rails, `runtime.doctor.board.supply` says, for `motorvae-doctor` too.

Read here and not through zeus 0.16 (`zeus.device.soc.jetson`), which sorts rails by words in their
names: VDD_CPU_GPU_CV of an Orin Nano counts as the CPU, and the AGX Orin has no total. A test holds
our power to what zeus makes of the same two files.

Files and units: https://www.kernel.org/doc/html/latest/hwmon/ina3221.html (millivolts and
milliamperes) and .../ina238.html (microwatts); rails: "Software-Based Power Consumption Modeling"
in the Jetson Linux Developer Guide, https://docs.nvidia.com/jetson/.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ...runtime.doctor.board.supply import Rail, rails_of
from ...runtime.doctor.board.tree import Tree
from ..measure.energy import Scope
from .base import ROOT, Absent, Sensor, number_in, one_line

KIND = "INA"
_MOST_MICROWATTS = 10**12
RAILS: Mapping[str, tuple[Scope, str]] = {
    "VDD_IN": ("board", "the whole module, without the carrier board"),
    "VIN": ("board", "the input of the whole board"),
    "VDD_CPU_GPU_CV": ("part", "CPU, GPU and CV engines together"),
    "VDD_GPU_SOC": ("part", "GPU and SoC together"),
    "VDD_CPU_CV": ("part", "CPU and CV engines together"),
    "VIN_SYS_5V0": ("part", "memory, storage and other parts that run from 5 V"),
    "VDD_SOC": ("part", "the SoC without CPU, GPU and CV engines"),
    "VDD_GPU": ("part", "the GPU"),
}
"""Rails that are known by name: the scope and what each covers."""


def ina_sensors(root: Path = ROOT) -> list[Sensor | Absent]:
    """Return every rail that is measured, and why others cannot be read."""
    found = [_sensor(root, rail) for rail in rails_of(Tree(root))]
    if not found:
        folder = root / "sys/class/hwmon"
        return [Absent(KIND, f"no power monitor in {folder}: this is no Jetson board")]
    return found


def _sensor(root: Path, rail: Rail) -> Sensor | Absent:
    chip = root / rail.monitor.lstrip("/")
    label = one_line(rail.label or "") or f"{chip.name} {rail.kind}"
    if rail.alone:
        power = chip / "power1_input"
        return _rail(label, rail.kind, power, partial(number_in, power))
    volts, amperes = (chip / f"{name}{rail.channel}_input" for name in ("in", "curr"))
    return _rail(label, rail.kind, amperes, partial(_product, volts, amperes))


def _rail(label: str, kind: str, source: Path, read: partial[int]) -> Sensor | Absent:
    try:
        read()
    except OSError as error:
        return Absent(f"{KIND} {label}", f"{source}: {error.strerror or error}")
    scope, covers = RAILS.get(label, ("part", f"the rail {label}"))
    return Sensor(
        name=label,
        source=f"{source} ({kind})",
        scope=scope,
        covers=covers,
        reads="power",
        read=read,
    )


def _product(volts: Path, amperes: Path) -> int:
    """Return microwatts of millivolts and milliamperes; an OSError where they are no readings."""
    power = number_in(volts) * number_in(amperes)
    if abs(power) > _MOST_MICROWATTS:
        raise OSError(f"{volts} and {amperes.name} give {power / 1e6:.3g} W, no power of a rail")
    return power
