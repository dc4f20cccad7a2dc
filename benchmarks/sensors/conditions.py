"""Temperatures, clocks and throttling, as the system shows them now.

Files: https://www.kernel.org/doc/html/latest/driver-api/thermal/sysfs-api.html (thermal zones and
cooling devices), .../hwmon/sysfs-interface.html, .../admin-guide/pm/cpufreq.html and
.../admin-guide/pm/intel_pstate.html (base_frequency), Documentation/ABI (thermal_throttle), and for
soctherm's over-current counters the Jetson Linux Developer Guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from ...runtime.core.spec import StrictModel
from ...runtime.doctor.board.readings import JETSON_GPU, is_temperature, slows_down
from .base import ROOT, number_or_none, text_or_none

_CHIPS = {"coretemp", "k10temp", "zenpower", "cpu_thermal"}
"""Of hwmon, the processor's own sensors: others are those of disks and networks."""
_MOST_EVENTS = 10**15
"""Of a counter; one that shows more shows no number of events."""
PROCESSOR, GPU = "processor", "GPU"


class Reading(StrictModel):
    """What all sensors show at one time."""

    at_ns: int  # By the monotonic clock
    # Of everything, or 0 where only power was read
    took_ns: int = 0
    temperatures_c: dict[str, float] = Field(default_factory=dict)
    clocks_mhz: dict[str, float] = Field(default_factory=dict)
    base_share: float | None = None  # The largest share that a core's clock has of its base clock
    throttled: list[str] = Field(default_factory=list)  # What throttles now
    # Events of throttling since the start of the system
    counters: dict[str, int] = Field(default_factory=dict)
    power_uw: dict[str, int] = Field(default_factory=dict)  # By rail


class ConditionFiles:
    """The files of this machine that show conditions; empty where it shows none.

    They are looked for once, and each is read anew every time.
    """

    def __init__(self, root: Path = ROOT) -> None:
        thermal, system = root / "sys/class/thermal", root / "sys/devices/system/cpu"
        hwmon = sorted((root / "sys/class/hwmon").glob("hwmon*"))
        self._temperatures = dict(_temperatures(thermal, hwmon))
        self._cooling = {
            device / "cur_state": kind
            for device in sorted(thermal.glob("cooling_device*"))
            if (kind := text_or_none(device / "type")) and slows_down(kind)
        }
        # Cores that share a clock are one policy, so that a large machine has few of them.
        self._clocks = {
            policy / "scaling_cur_freq": number_or_none(policy / "base_frequency")
            for policy in sorted((system / "cpufreq").glob("policy*"))
        }
        self._counters = dict(_counters(system, hwmon))
        self._gpu_clocks = [
            device / "cur_freq"
            for device in sorted((root / "sys/class/devfreq").glob("*"))
            if re.fullmatch(JETSON_GPU, device.name)
        ]

    def __bool__(self) -> bool:
        return any(
            (self._temperatures, self._cooling, self._clocks, self._counters, self._gpu_clocks)
        )

    def temperatures(self) -> dict[str, float]:
        """Return degrees Celsius by the name of the zone or chip."""
        found = {name: number_or_none(path) for path, name in self._temperatures.items()}
        return {
            name: value / 1000
            for name, value in found.items()
            if value is not None and is_temperature(value)
        }

    def clock(self) -> tuple[float | None, float | None]:
        """Return the fastest core's clock in MHz, and the largest share of a core's base clock.

        The fastest is the one that works: a core without work may have any clock. A clock is in
        kHz in the files; the second is None where the driver shows no base clock.
        """
        found = {path: number_or_none(path) for path in self._clocks}
        known = {path: clock for path, clock in found.items() if clock}
        shares = [clock / base for path, clock in known.items() if (base := self._clocks[path])]
        fastest = max(known.values(), default=None)
        return fastest and fastest / 1000, max(shares, default=None)

    def gpu_clock(self) -> float | None:
        """Return a Jetson's GPU clock in MHz; None where there is none, or while it is off."""
        clocks = [number_or_none(path) for path in self._gpu_clocks]
        return next((clock / 1e6 for clock in clocks if clock), None)

    def throttling(self) -> list[str]:
        """Name the cooling devices that slow something down now."""
        states = {path: number_or_none(path) for path in self._cooling}
        return [
            f"{self._cooling[path]} state {state}"
            for path, state in states.items()
            if state and state > 0
        ]

    def counters(self) -> dict[str, int]:
        """Return the counters of throttling by name."""
        found = {
            name: [number_or_none(path) for path in paths] for name, paths in self._counters.items()
        }
        return {
            name: sum(count for count in counts if count is not None and count < _MOST_EVENTS)
            for name, counts in found.items()
            if any(count is not None and count < _MOST_EVENTS for count in counts)
        }


def _temperatures(thermal: Path, hwmon: list[Path]) -> Iterator[tuple[Path, str]]:
    taken: dict[str, int] = {}
    for zone in sorted(thermal.glob("thermal_zone*")):
        if kind := text_or_none(zone / "type"):
            taken[kind] = taken.get(kind, 0) + 1
            yield zone / "temp", kind if taken[kind] == 1 else f"{kind} {taken[kind]}"
    for chip in hwmon:
        name = text_or_none(chip / "name")
        if name not in _CHIPS:
            continue
        for file in sorted(chip.glob("temp*_input")):
            label = text_or_none(file.with_name(file.name.replace("_input", "_label")))
            # The package and the die, not each core, of which there may be a hundred.
            if label is None or not label.startswith("Core "):
                yield file, f"{name} {label or file.name.removesuffix('_input')}"


def _counters(system: Path, hwmon: list[Path]) -> Iterator[tuple[str, list[Path]]]:
    # Threads of one core, and cores of one package, show the same counter.
    for name, ids in (
        ("core_throttle_count", ("physical_package_id", "core_id")),
        ("package_throttle_count", ("physical_package_id",)),
    ):
        files = {
            tuple(text_or_none(file.parents[1] / "topology" / one) for one in ids): file
            for file in sorted(system.glob(f"cpu[0-9]*/thermal_throttle/{name}"))
        }
        if files:
            yield name, [*files.values()]
    for chip in hwmon:
        if text_or_none(chip / "name") == "soctherm_oc":
            for file in sorted(chip.glob("oc*_event_cnt")):
                yield f"soctherm {file.name}", [file]
