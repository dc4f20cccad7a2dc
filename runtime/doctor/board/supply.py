"""A Jetson's supply: what its rails draw, and how often too much current has throttled it.

Sources: the hwmon folders `soctherm_oc` (oc1_event_cnt and on, counted since the boot) and
`ina3221` (in1_label, in1_input in mV, curr1_input in mA, curr1_crit_alarm) of an Orin Nano in
inevitablekl/edge-ai-defect and an AGX Orin in agentculture/jetson-orin-cli; their numbers may
change with each boot. On Orin OC1 is under-voltage, OC2 average
and OC3 instantaneous over-current (there, after NVIDIA's developer guide); on Xavier the numbers
mean something else. Channels of ina3221 from the fourth on are shunt voltages and sums, not rails,
and in1_enable at 0 is a channel that is switched off (Linux' Documentation/hwmon/ina3221.rst).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..finding import Finding
from .identity import Board
from .tree import Tree, Unread

_HWMON = "/sys/class/hwmon"
_MONITORS = r"hwmon[0-9]{1,4}"
_MEANINGS = {
    ("tegra234", 1): "under-voltage",
    ("tegra234", 2): "average over-current",
    ("tegra234", 3): "instantaneous over-current",
}
_ALONE: tuple[int, ...] = (1,)
_CHANNELS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("ina3221", "ina3221x"), (1, 2, 3)),
    **dict.fromkeys(("ina219", "ina220", "ina226", "ina228", "ina230", "ina231"), _ALONE),
    **dict.fromkeys(("ina237", "ina238", "ina260"), _ALONE),
}
"""Rails that a monitor measures, by its kind."""
_UNUSED = {"NC", "nc"}  # what NVIDIA's device trees call a channel that nothing is wired to
_LABEL = r"[\w.+-]{1,40}"
_MOST_MONITORS = 64
_MOST_RAILS = 3
_MOST_MILLI = 10**6  # of V and of A; beyond that the file holds no reading
_MOST_COUNT = 10**18


class Rail(NamedTuple):
    """One channel of a power monitor to which something is wired, and which is switched on."""

    monitor: str  # its folder
    kind: str  # such as ina3221
    channel: int
    label: str | None  # None where a monitor of one channel has no name for it

    @property
    def alone(self) -> bool:
        """Whether the monitor has no other channel."""
        return _CHANNELS[self.kind] == _ALONE


class Supply(NamedTuple):
    """Events by their number, rails over their limit now, watts of each rail."""

    events: dict[int, int]
    folder: str | None  # of the counters
    unread: Unread | None  # why a counter that is there could not be read
    alarms: tuple[str, ...]
    rails: dict[str, float]


def rails_of(tree: Tree) -> Iterator[Rail]:
    """Find every rail that is measured; of a channel without a label it is not known what it is."""
    for name in tree.names(_HWMON, _MONITORS)[:_MOST_MONITORS]:
        path = f"{_HWMON}/{name}"
        kind = str(tree.read(f"{path}/name"))
        channels = _CHANNELS.get(kind, ())
        for channel in channels:
            label = _label(tree, f"{path}/in{channel}_label")
            if channels == _ALONE:
                label = label or _label(tree, f"{path}/label")
            elif label is None:
                continue
            if label not in _UNUSED and tree.number(f"{path}/in{channel}_enable") != 0:
                yield Rail(path, kind, channel, label)


def supply_of(tree: Tree) -> Supply:
    """Read every counter of events, and every rail with a name."""
    events: dict[int, int] = {}
    folder, unread = None, None
    alarms: list[str] = []
    rails: dict[str, float] = {}
    for name in tree.names(_HWMON, _MONITORS)[:_MOST_MONITORS]:
        path = f"{_HWMON}/{name}"
        for counter in tree.names(path, r"oc[1-9]_event_cnt"):
            count = tree.number(f"{path}/{counter}")
            folder = folder or path
            if isinstance(count, Unread):
                unread = count
            elif 0 <= count < _MOST_COUNT:
                events[int(counter[2])] = count
    for rail in rails_of(tree):
        if rail.label is not None and re.fullmatch(_LABEL, rail.label):
            if (watts := _watts(tree, rail)) is not None:
                rails.setdefault(rail.label, watts)
            if _over_limit(tree, rail):
                alarms.append(rail.label)
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


def _label(tree: Tree, name: str) -> str | None:
    label = tree.read(name)
    return None if isinstance(label, Unread) else label or None


def _watts(tree: Tree, rail: Rail) -> float | None:
    """Return what a rail draws; None where its files hold no readings."""
    volts = tree.number(f"{rail.monitor}/in{rail.channel}_input")
    amperes = tree.number(f"{rail.monitor}/curr{rail.channel}_input")
    if isinstance(volts, Unread) or isinstance(amperes, Unread):
        return None
    if not (0 <= volts < _MOST_MILLI and 0 <= amperes < _MOST_MILLI):
        return None
    return volts * amperes / 1e6


def _over_limit(tree: Tree, rail: Rail) -> bool:
    alarm = f"{rail.monitor}/curr{rail.channel}"
    return any(tree.read(f"{alarm}_{kind}_alarm") == "1" for kind in ("crit", "max"))
