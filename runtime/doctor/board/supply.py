"""A Jetson's supply: what its rails draw, and how often too much current has throttled it.

Sources: the hwmon folders `soctherm_oc` (oc1_event_cnt and on, counted since the boot) and
`ina3221` (in1_label, in1_input in mV, curr1_input in mA, curr1_crit_alarm) of an Orin Nano in
inevitablekl/edge-ai-defect and an AGX Orin in agentculture/jetson-orin-cli; their numbers may
change with each boot. On Orin OC1 is under-voltage, OC2 average
and OC3 instantaneous over-current (there, after NVIDIA's developer guide); on Xavier the numbers
mean something else. Channels of ina3221 from the fourth on are sums, not rails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..finding import Finding
from .identity import Board
from .tree import Tree, Unread

_HWMON = "/sys/class/hwmon"
_MEANINGS = {
    ("tegra234", 1): "under-voltage",
    ("tegra234", 2): "average over-current",
    ("tegra234", 3): "instantaneous over-current",
}
_RAIL = r"[\w.+-]{1,40}"
_MOST_MONITORS = 64
_MOST_RAILS = 3
_MOST_MILLI = 10**6  # of V and of A; beyond that the file holds no reading
_MOST_COUNT = 10**18


class Supply(NamedTuple):
    """Events by their number, rails over their limit now, watts of each rail."""

    events: dict[int, int]
    folder: str | None  # of the counters
    unread: Unread | None  # why a counter that is there could not be read
    alarms: tuple[str, ...]
    rails: dict[str, float]


def supply_of(tree: Tree) -> Supply:
    """Read every counter of events, and every rail with a name."""
    events: dict[int, int] = {}
    folder, unread = None, None
    alarms: list[str] = []
    rails: dict[str, float] = {}
    for name in tree.names(_HWMON, r"hwmon[0-9]{1,4}")[:_MOST_MONITORS]:
        path = f"{_HWMON}/{name}"
        for counter in tree.names(path, r"oc[1-9]_event_cnt"):
            count = tree.number(f"{path}/{counter}")
            folder = folder or path
            if isinstance(count, Unread):
                unread = count
            elif 0 <= count < _MOST_COUNT:
                events[int(counter[2])] = count
        if str(tree.read(f"{path}/name")).startswith("ina"):
            _add_rails(tree, path, rails, alarms)
    return Supply(events, folder, unread, tuple(dict.fromkeys(alarms)), rails)


def check_supply(tree: Tree, board: Board) -> Iterator[Finding]:
    """Say what the board draws, and whether too much current costs or has cost speed."""
    what, supply = "supply", supply_of(tree)
    watts = [f"{name} {value:.1f} W" for name, value in list(supply.rails.items())[:_MOST_RAILS]]
    again = f"cat {supply.folder}/oc*_event_cnt  # if they grow: less power, or a stronger supply"
    counted = [
        f"{count:,} x {_MEANINGS.get((board.soc or '', number), f'OC{number}')}"
        for number, count in sorted(supply.events.items())
        if count
    ]
    if supply.alarms:
        over = f"over its limit now: {', '.join(supply.alarms)}"
        since = [f"throttled since the boot: {', '.join(counted)}"] if counted else []
        command = "sudo nvpmodel -q  # a mode with less power, or a stronger supply"
        yield Finding(what, "; ".join((over, *since, *watts)), "warn", command)
    elif counted:
        since_boot = f"throttled since the boot: {', '.join(counted)}"
        yield Finding(what, "; ".join((since_boot, *watts)), "warn", again)
    elif supply.events:
        yield Finding(what, "; ".join(("never throttled since the boot", *watts)))
    elif supply.unread:
        yield Finding(
            what,
            "; ".join((f"counters are {supply.unread.reason}", *watts)),
            "optional",
            f"sudo {again}",
        )
    else:
        problem = "no counter of over-current could be read"
        yield Finding(what, "; ".join((problem, *watts)), "optional")


def _add_rails(tree: Tree, path: str, rails: dict[str, float], alarms: list[str]) -> None:
    """Add a monitor's named rails in watts, and the names of those with an alarm."""
    for current in tree.names(path, r"curr[1-9]_input"):
        number = current[4]
        label = tree.read(f"{path}/in{number}_label")
        if isinstance(label, Unread) or not re.fullmatch(_RAIL, label):
            continue
        volts = tree.number(f"{path}/in{number}_input")
        amperes = tree.number(f"{path}/{current}")
        if (
            not isinstance(volts, Unread)
            and not isinstance(amperes, Unread)
            and 0 <= volts < _MOST_MILLI
            and 0 <= amperes < _MOST_MILLI
        ):
            rails.setdefault(label, volts * amperes / 1e6)
        kinds = ("crit", "max")
        if any(tree.read(f"{path}/curr{number}_{kind}_alarm") == "1" for kind in kinds):
            alarms.append(label)
