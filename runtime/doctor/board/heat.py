"""A Jetson's temperatures against their trip points, and whether heat throttles it now.

Sources: inevitablekl/edge-ai-defect (an Orin Nano's zones; cv0 to cv2 answer EAGAIN),
swsususu/ThorFAN (a Thor's zones; gpu-thermal does not answer while the GPU is powered off;
gpu-throttle-alert at 1 and devfreq-gpu-gpc-0 at 18 while it was throttled at 109 degrees), and
NVIDIA's patch for Linux' tegra234-p3737-0000+p3701.dtsi (the CPU: passive at 99.0, critical at
104.5 degrees). A passive trip point is where clocks are lowered, an active one where a fan starts;
but an AGX Orin has a passive one at 70 degrees to which hot-surface-alert alone is bound, as the
links cdev0 and on in its zone say, and which lowers nothing.
A kernel with CONFIG_THERMAL_STATISTICS counts in stats/time_in_state_ms how long each cooling
device was in each state since the boot (Linux' Documentation/driver-api/thermal/sysfs-api.rst).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..finding import Finding
from .readings import is_temperature, slows_down
from .tree import Tree, Unread

_THERMAL = "/sys/class/thermal"
_MOST_ZONES = 64
_MOST_TRIPS = 16
_MOST_BOUND = 64
_CLOSE = 5.0  # degrees below the throttling point
_FAN = "sudo jetson_clocks --fan  # then look at the fan, the heat sink and the air around them"


class Zone(NamedTuple):
    """One thermal zone, in degrees Celsius; None where a trip point is not there."""

    name: str
    now: float
    throttles: float | None
    shuts_down: float | None


class Heat(NamedTuple):
    """Zones that answer, those that do not and why, cooling devices that lower clocks now.

    And how long one of the latter has lowered them since the boot, where the kernel counts that.
    """

    zones: tuple[Zone, ...]
    silent: tuple[tuple[str, Unread], ...]
    throttling: tuple[str, ...]
    throttled_s: float | None


def heat_of(tree: Tree) -> Heat:
    """Read every zone and every cooling device."""
    zones, silent = [], []
    for folder in tree.names(_THERMAL, r"thermal_zone[0-9]{1,4}")[:_MOST_ZONES]:
        path = f"{_THERMAL}/{folder}"
        name = _name_of(tree, path) or folder
        now = tree.number(f"{path}/temp")
        if isinstance(now, Unread):
            silent.append((name, now))
        elif not is_temperature(now):
            silent.append((name, Unread("no temperature")))
        else:
            trips = _trips(tree, path)
            zones.append(Zone(name, now / 1e3, trips.get("passive"), trips.get("critical")))
    throttling, spans = [], []
    for folder in tree.names(_THERMAL, r"cooling_device[0-9]{1,4}")[: 4 * _MOST_ZONES]:
        device = _name_of(tree, f"{_THERMAL}/{folder}")
        state = tree.number(f"{_THERMAL}/{folder}/cur_state")
        if not (device and slows_down(device)):
            continue
        if not isinstance(state, Unread) and state > 0:
            throttling.append(device)
        span = _lowered_s(tree.read(f"{_THERMAL}/{folder}/stats/time_in_state_ms"))
        spans += [] if span is None else [span]
    longest = max(spans, default=None)
    return Heat(tuple(zones), tuple(silent), tuple(throttling), longest)


def check_heat(tree: Tree) -> Iterator[Finding]:
    """Say how hot it is, and whether that costs speed now."""
    what, heat = "temperature", heat_of(tree)
    if not heat.zones and not heat.throttling:
        forbidden = [unread.reason for _, unread in heat.silent if unread.forbidden]
        reason = forbidden[0] if forbidden else "could not be read"
        yield Finding(what, reason, "optional", f"cat {_THERMAL}/thermal_zone*/temp")
        return
    parts = []
    if heat.zones:
        hottest = max(heat.zones, key=lambda zone: zone.now)
        parts.append(f"{hottest.name} {hottest.now:.1f} degrees C")
        parts += _limits(heat.zones)
    if heat.throttled_s:
        parts.append(f"clocks were lowered for {heat.throttled_s:,.1f} s since the boot")
    if heat.silent:
        parts.append(f"no answer from {', '.join(name for name, _ in heat.silent)}")
    over = [zone.name for zone in heat.zones if zone.throttles and zone.now >= zone.throttles]
    close = [
        zone.name
        for zone in heat.zones
        if zone.throttles and zone.throttles - _CLOSE <= zone.now < zone.throttles
    ]
    if causes := dict.fromkeys((*heat.throttling, *over)):
        throttled = f"throttled now ({', '.join(causes)})"
        yield Finding(what, "; ".join((throttled, *parts)), "warn", _FAN)
    elif close:
        text = f"close to throttling ({', '.join(close)})"
        yield Finding(what, "; ".join((text, *parts)), "warn", _FAN)
    elif heat.throttled_s:
        yield Finding(what, "; ".join(("not throttled now", *parts)), "warn", _FAN)
    else:
        yield Finding(what, "; ".join(("not throttled", *parts)))


def _limits(zones: tuple[Zone, ...]) -> list[str]:
    """Return the lowest limits of all zones, in clauses."""
    throttles = [zone.throttles for zone in zones if zone.throttles]
    shuts_down = [zone.shuts_down for zone in zones if zone.shuts_down]
    parts = [f"throttles from {min(throttles):.1f}"] if throttles else []
    return parts + ([f"shuts down at {min(shuts_down):.1f}"] if shuts_down else [])


def _trips(tree: Tree, path: str) -> dict[str, float]:
    """Return the lowest trip point of each type, in degrees.

    A passive one to which only devices are bound that lower no clock is left out.
    """
    found: dict[str, float] = {}
    bound = _bound(tree, path)
    for name in tree.names(path, r"trip_point_[0-9]{1,3}_type")[:_MOST_TRIPS]:
        kind = tree.read(f"{path}/{name}")
        at = tree.number(f"{path}/{name.removesuffix('type')}temp")
        devices = bound.get(int(name.split("_")[2]))
        if kind == "passive" and devices and not any(map(slows_down, devices)):
            continue
        if isinstance(kind, str) and not isinstance(at, Unread) and at > 0 and is_temperature(at):
            found[kind] = min(found.get(kind, at / 1e3), at / 1e3)
    return found


def _bound(tree: Tree, path: str) -> dict[int, list[str]]:
    """Return the cooling devices that the kernel has bound to each trip point of a zone."""
    found: dict[int, list[str]] = {}
    for name in tree.names(path, r"cdev[0-9]{1,3}_trip_point")[:_MOST_BOUND]:
        trip = tree.number(f"{path}/{name}")
        device = _name_of(tree, f"{path}/{name.removesuffix('_trip_point')}")
        if device and not isinstance(trip, Unread):
            found.setdefault(trip, []).append(device)
    return found


def _lowered_s(text: str | Unread) -> float | None:
    """Return how many seconds a cooling device was in another state than 0; None where unknown."""
    if isinstance(text, Unread):
        return None
    spans = re.findall(r"^state([0-9]{1,6})\s+([0-9]{1,15})$", text, re.MULTILINE)
    return sum(int(ms) for state, ms in spans if int(state)) / 1e3 if spans else None


def _name_of(tree: Tree, path: str) -> str | None:
    """Return what a zone or a device calls itself, where that is a short word."""
    text = tree.read(f"{path}/type")
    return text if isinstance(text, str) and re.fullmatch(r"[\w.@+-]{1,60}", text) else None
