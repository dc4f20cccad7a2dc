"""A Jetson's clocks: which processor cores run, and whether jetson_clocks has locked the rest.

Locked means that the lowest and the highest allowed clock are the same; the governor stays what it
was (inevitablekl/edge-ai-defect: CPU 1728000 kHz, GPU 1020000000 Hz, governors schedutil and
nvhost_podgov). The memory's clock, EMC, is readable by root alone; on Thor it is the device bwmgr.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..finding import Finding
from .power import PowerModes
from .readings import JETSON_GPU
from .tree import Tree, Unread

_CPU = "/sys/devices/system/cpu"
_POLICIES = f"{_CPU}/cpufreq"
_DEVFREQ = "/sys/class/devfreq"
_EMC = "/sys/kernel/debug/bpmp/debug/clk/emc/rate"
_EMC_CAP = "/sys/kernel/nvpmodel_clk_cap/emc"
_MOST_CORES = 1024
_SUPER = "MAXN_SUPER"
_SUPER_GPU_MHZ = 1000.0
"""Every board that has MAXN_SUPER then allows its GPU more; one with the firmware of before stays
at 624.75 MHz (balena-os/balena-jetson-orin issue 605)."""


class Clock(NamedTuple):
    """What one clock is allowed, in MHz, and who chooses."""

    lowest: float
    highest: float
    governor: str | None

    @property
    def locked(self) -> bool:
        """Whether there is nothing to choose."""
        return self.lowest == self.highest

    def __str__(self) -> str:
        if self.locked:
            return f"{self.highest:.0f} MHz"
        chooser = f" ({self.governor})" if self.governor else ""
        return f"{self.lowest:.0f} to {self.highest:.0f} MHz{chooser}"


def cpu_clock(tree: Tree) -> Clock | None:
    """Return what the processor's cores are allowed together, or None."""
    folders = [f"{_POLICIES}/{n}" for n in tree.names(_POLICIES, r"policy[0-9]{1,4}")]
    folders = folders or [f"{_CPU}/{n}/cpufreq" for n in tree.names(_CPU, r"cpu[0-9]{1,4}")]
    clocks = [_clock(tree, f, ("scaling_min_freq", "scaling_max_freq"), 1e3) for f in folders]
    governors = [_short(tree.read(f"{folder}/scaling_governor")) for folder in folders]
    return _together([c for c in clocks if c], [g for g in governors if g])


def gpu_clock(tree: Tree) -> Clock | None:
    """Return what the GPU is allowed, or None."""
    folders = [f"{_DEVFREQ}/{name}" for name in tree.names(_DEVFREQ, JETSON_GPU)]
    clocks = [_clock(tree, folder, ("min_freq", "max_freq"), 1e6) for folder in folders]
    governors = [_short(tree.read(f"{folder}/governor")) for folder in folders]
    return _together([c for c in clocks if c], [g for g in governors if g])


def memory_clock(tree: Tree) -> str:
    """Return in a clause what is known of the memory's clock."""
    for name in (_EMC, f"{_DEVFREQ}/bwmgr/cur_freq"):
        rate = tree.number(name)
        if not isinstance(rate, Unread) and rate > 0:
            return f"memory {rate / 1e6:.0f} MHz"
    cap = tree.number(_EMC_CAP)
    if not isinstance(cap, Unread) and cap > 0:
        return f"memory up to {cap / 1e6:.0f} MHz"
    return "memory's clock not readable as this user"


def cores_of(tree: Tree) -> tuple[list[int], list[int]] | None:
    """Return the cores that run, and those that are there and switched off."""
    present, online = (tree.read(f"{_CPU}/{name}") for name in ("present", "online"))
    if isinstance(present, Unread) or isinstance(online, Unread):
        return None
    there, running = cores_from_text(present), cores_from_text(online)
    if not running or not there:
        return None
    return running, sorted(set(there) - set(running))


def cores_from_text(text: str) -> list[int] | None:
    """Return the numbers of a list such as `0,3-5`; None where it is none."""
    found: set[int] = set()
    for part in text.split(","):
        span = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part.strip())
        if span is None:
            return None
        first, last = int(span[1]), int(span[2] or span[1])
        if last < first or last >= _MOST_CORES:
            return None
        found.update(range(first, last + 1))
    return sorted(found)


def check_clocks(tree: Tree, modes: PowerModes | Unread) -> Iterator[Finding]:
    """Say whether the clocks are locked, and which cores are off."""
    yield from _cores(tree, modes)
    clocks = {"CPU": cpu_clock(tree), "GPU": gpu_clock(tree)}
    known = {name: clock for name, clock in clocks.items() if clock}
    if not known:
        problem = "could not be read, neither those of the CPU nor of the GPU"
        yield Finding("clocks", problem, "optional", "sudo jetson_clocks --show")
        return
    texts = [f"{n} {c}" if c else f"{n}'s could not be read" for n, c in clocks.items()]
    texts.append(memory_clock(tree))
    locked = [name for name, clock in known.items() if clock.locked]
    listed = ", ".join(texts)
    mode = None if isinstance(modes, Unread) else modes.current
    gpu = clocks["GPU"]
    if mode and gpu and mode.name.startswith(_SUPER) and gpu.highest < _SUPER_GPU_MHZ:
        problem = f"{listed}; {mode.name} allows more than the firmware does, which is an older one"
        yield Finding("clocks", problem, "warn", "sudo nvbootctrl dump-slots-info")
    elif len(locked) == len(known):
        yield Finding("clocks", f"locked: {listed}")
    else:
        state = f"{' and '.join(locked)} locked" if locked else "free"
        problem = f"{state}: {listed}; latencies vary until they are locked"
        command = "sudo jetson_clocks  # until the next boot or nvpmodel"
        yield Finding("clocks", problem, "optional", command)


def _cores(tree: Tree, modes: PowerModes | Unread) -> Iterator[Finding]:
    cores = cores_of(tree)
    if cores is None:
        yield Finding("CPU cores", f"could not be read in {_CPU}", "optional", "nproc")
        return
    running, off = cores
    if not off:
        return
    command = None if isinstance(modes, Unread) else modes.command()
    if command is None:
        command = f"echo 1 | sudo tee {_CPU}/cpu{off[0]}/online"
    total = len(running) + len(off)
    found = f"{len(running)} of {total} run; off: {', '.join(map(str, off))}"
    yield Finding("CPU cores", found, "warn", command)


def _clock(
    tree: Tree, folder: str, names: tuple[str, str], unit: float
) -> tuple[float, float] | None:
    """Return the lowest and highest allowed clock in MHz, from files in units of 1/`unit` MHz."""
    lowest, highest = (tree.number(f"{folder}/{name}") for name in names)
    if isinstance(lowest, Unread) or isinstance(highest, Unread):
        return None
    return (lowest / unit, highest / unit) if 0 <= lowest <= highest and highest else None


def _together(ranges: list[tuple[float, float]], governors: list[str]) -> Clock | None:
    if not ranges:
        return None
    if all(low == high for low, high in ranges):
        # Clusters may be locked at different clocks.
        highest = max(high for _, high in ranges)
        return Clock(highest, highest, None)
    return Clock(
        min(low for low, _ in ranges),
        max(high for _, high in ranges),
        ", ".join(dict.fromkeys(governors)) or None,
    )


def _short(text: str | Unread) -> str | None:
    """Return a governor's name; None where it is none."""
    return text if isinstance(text, str) and re.fullmatch(r"[\w-]{1,40}", text) else None
