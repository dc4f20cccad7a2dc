"""RAPL: the energy counters of x86 processors, as Linux shows them under /sys/class/powercap.

Read here and not through zeus 0.16 (`zeus.device.cpu.rapl`), which takes the zone `psys` for one
more processor, adds a wrap only once a process of its own has noticed it, up to 0.1 s later, and
does not say what a zone is called. A test holds our joules to those that zeus reads.

Zones, names and units: https://www.kernel.org/doc/html/latest/power/powercap/powercap.html
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from ..measure.energy import Scope
from .base import ROOT, Absent, Sensor, number_in, number_or_none, text_or_none

KIND = "RAPL"
_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")  # AMD's too; intel-rapl-mmio shows the same once more
_COVERS: dict[str, tuple[Scope, str]] = {
    "package": ("processor", "the processor's package: cores, caches, integrated GPU; not memory"),
    "psys": ("board", "the platform, as its maker has wired it"),
    "core": ("part", "the cores of the package"),
    "uncore": ("part", "the integrated GPU, in most processors"),
    "dram": ("part", "the memory of the package"),
}


def rapl_sensors(root: Path = ROOT) -> list[Sensor | Absent]:
    """Return every zone that can be read, and why others cannot.

    Since Linux 5.10 the counters are for root only, as they leak what a processor computes
    (CVE-2020-8694, "PLATYPUS").
    """
    folder = root / "sys/class/powercap"
    zones = sorted(path for path in folder.glob("intel-rapl:*") if _ZONE.fullmatch(path.name))
    if not zones:
        reason = f"no zone in {folder}: no such processor, or a virtual machine or container hides"
        return [Absent(KIND, f"{reason} them")]
    found: list[Sensor | Absent] = []
    denied: list[Path] = []
    for zone in zones:
        name, counter = text_or_none(zone / "name") or zone.name, zone / "energy_uj"
        scope, covers = _COVERS.get(re.split(r"[-\d]", name)[0], ("part", f"the zone {name}"))
        # Of several packages each has its own zones of the same names.
        of_package = text_or_none(folder / zone.name.rpartition(":")[0] / "name")
        try:
            number_in(counter)
        except PermissionError:
            denied.append(counter)
        except OSError as error:
            found.append(Absent(f"{KIND} {name}", f"{counter}: {error.strerror or error}"))
        else:
            found.append(
                Sensor(
                    name=f"{of_package} {name}" if of_package else name,
                    source=str(counter),
                    scope=scope,
                    covers=covers,
                    reads="energy counter",
                    read=partial(number_in, counter),
                    wraps_at=number_or_none(zone / "max_energy_range_uj"),
                )
            )
    if denied:
        found.append(
            Absent(
                KIND,
                f"no permission to read {denied[0]}, which is for root since Linux 5.10: run "
                f"'sudo chmod a+r {folder}/intel-rapl:*/energy_uj', which lasts until the next "
                "boot",
            )
        )
    return found
