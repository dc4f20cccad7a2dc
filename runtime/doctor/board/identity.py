"""Which Jetson this is, and whether it is one: from the device tree, or from sysfs in a container.

Sources: the raw output of AGX Thor and AGX Orin boards in rbonghi/jetson_stats issues 711 and 864;
Docker masks /sys/firmware, where the device tree lies, as dusty-nv/jetson-inference's start script
says ("/proc or /sys files aren't mountable"), whereas /sys/devices/soc0 stays visible.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..finding import Finding
from .tree import Tree, Unread

_COMPATIBLE = ("/proc/device-tree/compatible", "/sys/firmware/devicetree/base/compatible")
_MODELS = (
    "/proc/device-tree/model",
    "/sys/firmware/devicetree/base/model",
    "/sys/devices/soc0/machine",
)
_LONGEST_MODEL = 100


class Board(NamedTuple):
    """A Jetson: what it calls itself, and its system on a chip, such as tegra234."""

    model: str
    soc: str | None


def board_of(tree: Tree) -> Board | None:
    """Return which Jetson a system is, or None where it is no Jetson."""
    compatible = _first(tree, _COMPATIBLE) or ""
    found = re.search(r"nvidia,(tegra[0-9]{3})", compatible)
    of_sysfs = tree.read("/sys/devices/soc0/family") == "Tegra"
    if not (found or of_sysfs or "nvidia,tegra" in compatible):
        return None
    model = _first(tree, _MODELS)
    name = model[:_LONGEST_MODEL] if model else "one whose model could not be read"
    return Board(name, found[1] if found else None)


def check_identity(board: Board) -> Iterator[Finding]:
    """Name the board."""
    yield Finding("Jetson", f"{board.model}{f' ({board.soc})' if board.soc else ''}")


def _first(tree: Tree, names: tuple[str, ...]) -> str | None:
    """Return the text of the first file that has one."""
    texts = (tree.read(name) for name in names)
    return next((text for text in texts if not isinstance(text, Unread) and text), None)
