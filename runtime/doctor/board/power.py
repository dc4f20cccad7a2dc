"""A Jetson's power mode, from the files of nvpmodel.

Sources: `< POWER_MODEL ID=2 NAME=MAXN_SUPER >` and `< PM_CONFIG DEFAULT=1 >` in /etc/nvpmodel.conf,
a link to a file of /etc/nvpmodel, and `pmode:0002 fmode:quiet` in /var/lib/nvpmodel/status, as in
the dumps under tests/runtime/doctor/boards. Modes without a MAXN among them, such as Xavier
NX's MODE_20W_6CORE, are ranked by their watts and cores. A board that was flashed as the kind
before "Super" has a table without MAXN_SUPER while NVIDIA's other table lies beside it
(vdavid21/edge-inference-benchmark-lab, docs/env, 2026-09-04).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..finding import Finding
from .container import container_of
from .tree import Tree, Unread

_CONF = "/etc/nvpmodel.conf"
_STATUS = "/var/lib/nvpmodel/status"
_QUERY = "sudo nvpmodel -q"
_MAXN = ("MAXN_SUPER", "MAXN")
"""The modes without a limit, the faster one first."""
_MOST_MODES = 32
_LONGEST_NAME = 40


class Mode(NamedTuple):
    """A power mode of the table."""

    number: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} ({self.number})"


class PowerModes(NamedTuple):
    """The table of modes, and which of them is set."""

    modes: tuple[Mode, ...]
    current: Mode | None
    default: Mode | None
    why_unknown: str | None  # where `current` is None

    @property
    def fastest(self) -> Mode | None:
        """The mode with the highest limits, or None where names do not tell."""
        return fastest_of(self.modes)

    @property
    def is_fastest(self) -> bool:
        """Whether nothing in the table is known to be faster than what is set."""
        best = self.fastest
        # A mode of the owner's, such as MAXN_SUPER_2, is taken for what its name begins with.
        return bool(best and self.current and self.current.name.startswith(best.name))

    def command(self) -> str | None:
        """Return what sets the fastest mode, or None where it is set or none is known."""
        best = self.fastest
        if best is None or self.is_fastest:
            return None
        return f"sudo nvpmodel -m {best.number}  # it may ask for a reboot"


def fastest_of(modes: tuple[Mode, ...]) -> Mode | None:
    """Return the mode with the highest limits by its name, or None."""
    for name in _MAXN:
        for mode in modes:
            if mode.name == name:
                return mode
    ranked = [
        (watts, cores, mode)
        for mode in modes
        if (watts := _watts(mode.name))
        for cores in [_cores(mode.name)]
    ]
    return max(ranked, key=lambda each: each[:2])[2] if ranked else None


def power_modes_of(tree: Tree) -> PowerModes | Unread:
    """Read the table and the status file."""
    text = tree.read(_CONF)
    if isinstance(text, Unread):
        return text
    modes = modes_from_text(text)
    if not modes:
        return Unread("without a power mode in it")
    default = re.search(r"<\s*PM_CONFIG\s+DEFAULT\s*=\s*([0-9]{1,4})\b", text)
    status = tree.read(_STATUS)
    current, why = None, None
    if isinstance(status, Unread):
        why = f"{_STATUS} is {status.reason}"
    elif found := re.search(r"\bpmode:([0-9]{1,6})\b", status):
        number = int(found[1])
        current = next((mode for mode in modes if mode.number == number), None)
        why = None if current else f"{_STATUS} says mode {number}, which {_CONF} has not"
    else:
        why = f"{_STATUS} names no mode"
    by_default = int(default[1]) if default else None
    return PowerModes(modes, current, next((m for m in modes if m.number == by_default), None), why)


def modes_from_text(text: str) -> tuple[Mode, ...]:
    """Return the modes of a table, each number once, in its order."""
    modes: dict[int, Mode] = {}
    for tag in re.findall(r"^[ \t]*<[ \t]*POWER_MODEL\b([^<>\n]{1,200})>", text, re.MULTILINE):
        number = re.search(r"\bID\s*=\s*([0-9]{1,4})\b", tag)
        name = re.search(rf"\bNAME\s*=\s*(\S{{1,{_LONGEST_NAME}}})(?=\s|$)", tag)
        if number and name and len(modes) < _MOST_MODES:
            modes.setdefault(int(number[1]), Mode(int(number[1]), name[1]))
    return tuple(modes.values())


def check_power(tree: Tree) -> Iterator[Finding]:
    """Name the power mode, and a faster one."""
    what, found = "power mode", power_modes_of(tree)
    if isinstance(found, Unread) and container_of(tree):
        problem = "not visible in this container"
        yield Finding(what, problem, "optional", f"{_QUERY}  # outside of the container")
        return
    if isinstance(found, Unread):
        yield Finding(what, f"could not be read: {_CONF} is {found.reason}", "optional", _QUERY)
        return
    table = ", ".join(map(str, found.modes))
    if found.current is None:
        default = f"; {found.default} is the default" if found.default else ""
        problem = f"not known: {found.why_unknown}; there are {table}{default}"
        yield Finding(what, problem, "optional", _QUERY)
        return
    hidden = _table_with_super(tree, found.modes)
    if command := found.command():
        text = f"{found.current}; {found.fastest} is the fastest of {table}"
        yield Finding(what, f"{text}{f'; {hidden}' if hidden else ''}", "warn", command)
    elif hidden:
        look = "grep COMPATIBLE_SPEC /etc/nv_boot_control.conf  # with -super-, if flashed so"
        yield Finding(what, f"{found.current}, the fastest of {table}; {hidden}", "warn", look)
    elif found.fastest:
        yield Finding(what, f"{found.current}, the fastest of {table}")
    else:
        yield Finding(what, f"{found.current} of {table}", "ok")


def _table_with_super(tree: Tree, modes: tuple[Mode, ...]) -> str | None:
    """Return, in a clause, where there is a table with MAXN_SUPER that this board does not use."""
    if any(mode.name == _MAXN[0] for mode in modes):
        return None
    conf = tree.target(_CONF)
    other = f"{conf.removesuffix('.conf')}_super.conf"
    text = tree.read(other)
    if isinstance(text, Unread) or not any(m.name == _MAXN[0] for m in modes_from_text(text)):
        return None
    return f"MAXN_SUPER is in {other}, which a board flashed as -super uses"


def _watts(name: str) -> int:
    """Return the watts in a mode's name, or 0."""
    found = re.search(r"(?<![0-9])([0-9]{1,4})W(?![A-Za-z])", name)
    return int(found[1]) if found else 0


def _cores(name: str) -> int:
    found = re.search(r"(?<![0-9])([0-9]{1,3})CORE", name)
    return int(found[1]) if found else 0
