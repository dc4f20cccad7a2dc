"""INA: the power monitors of Jetson boards (INA3221, INA238 and kin), under /sys/class/hwmon.

Read here and not through zeus 0.16 (`zeus.device.soc.jetson`), which sorts rails by words in their
names: VDD_CPU_GPU_CV of an Orin Nano counts as the CPU, and the AGX Orin has no total. A test holds
our power to what zeus makes of the same two files.

Files and units: https://www.kernel.org/doc/html/latest/hwmon/ina3221.html (millivolts and
milliamperes) and .../ina238.html (microwatts); rails: "Software-Based Power Consumption Modeling"
in the Jetson Linux Developer Guide, https://docs.nvidia.com/jetson/.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..measure.energy import Scope
from .base import ROOT, Absent, Sensor, number_in, number_or_none, text_or_none

KIND = "INA"
_THREE_CHANNELS = {"ina3221", "ina3221x"}
_ONE_CHANNEL = {"ina219", "ina220", "ina226", "ina230", "ina231", "ina237", "ina238"}
_UNUSED = {"NC", "nc"}  # what NVIDIA's device trees call a channel that nothing is wired to
_MOST_MICROWATTS = 10**12
_COVERS: dict[str, tuple[Scope, str]] = {
    "VDD_IN": ("board", "the whole module, without the carrier board"),
    "VIN": ("board", "the input of the whole board"),
    "VDD_CPU_GPU_CV": ("part", "CPU, GPU and CV engines together"),
    "VDD_GPU_SOC": ("part", "GPU and SoC together"),
    "VDD_CPU_CV": ("part", "CPU and CV engines together"),
    "VIN_SYS_5V0": ("part", "memory, storage and other parts that run from 5 V"),
    "VDD_SOC": ("part", "the SoC without CPU, GPU and CV engines"),
    "VDD_GPU": ("part", "the GPU"),
}


def ina_sensors(root: Path = ROOT) -> list[Sensor | Absent]:
    """Return every rail that is wired, and why others cannot be read."""
    folder = root / "sys/class/hwmon"
    found: list[Sensor | Absent] = []
    for chip in sorted(folder.glob("hwmon*")):
        kind = text_or_none(chip / "name") or ""
        if kind in _THREE_CHANNELS:
            found += _three_channels(chip, kind)
        elif kind in _ONE_CHANNEL:
            found += _one_channel(chip, kind)
    if not found:
        return [Absent(KIND, f"no power monitor in {folder}: this is no Jetson board")]
    return found


def _three_channels(chip: Path, kind: str) -> Iterator[Sensor | Absent]:
    for channel in (1, 2, 3):
        label = text_or_none(chip / f"in{channel}_label")
        # Without a label nothing is known of what is wired to it.
        if label is None or label in _UNUSED or number_or_none(chip / f"in{channel}_enable") == 0:
            continue
        volts, amperes = chip / f"in{channel}_input", chip / f"curr{channel}_input"
        yield _rail(label, kind, amperes, partial(_product, volts, amperes))


def _one_channel(chip: Path, kind: str) -> Iterator[Sensor | Absent]:
    label = (
        text_or_none(chip / "in1_label") or text_or_none(chip / "label") or f"{chip.name} {kind}"
    )
    power = chip / "power1_input"
    yield _rail(label, kind, power, partial(number_in, power))


def _rail(label: str, kind: str, source: Path, read: partial[int]) -> Sensor | Absent:
    try:
        read()
    except OSError as error:
        return Absent(f"{KIND} {label}", f"{source}: {error.strerror or error}")
    scope, covers = _COVERS.get(label, ("part", f"the rail {label}"))
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
