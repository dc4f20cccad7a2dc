"""A Jetson's swap: zram, which holds pages compressed in the same memory, or a file.

Sources: /proc/swaps as proc(5) has it; an AGX Orin with one zram device for each core
(osmosishk/driveragent-agx, docs/AGX_AUDIT.md) by NVIDIA's nvzramconfig; an Orin Nano with none
(vdavid21/edge-inference-benchmark-lab, JetPack 7.2.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ...core.system.memory import listed_bytes
from ..finding import Finding
from .tree import Tree, Unread

_SWAPS = "/proc/swaps"
_MEMINFO = "/proc/meminfo"
_ZRAM_SERVICE = "/etc/systemd/nvzramconfig.sh"
_MOST_USED = 0.5  # of the swap, beyond which pages of a stream may be among them
_LITTLE_MEMORY = 9 << 30  # a board with 8 GB shows less


class Swap(NamedTuple):
    """Bytes of swap, of them in use, and how many of its devices are zram."""

    total: int
    used: int
    zram: int
    devices: int


def swap_of(tree: Tree) -> Swap | Unread:
    """Read which swap is on; a device whose line cannot be understood is left out."""
    text = tree.read(_SWAPS)
    if isinstance(text, Unread):
        return text
    if not text.startswith("Filename"):
        return Unread("no list of swap")
    total = used = zram = devices = 0
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 5 or not all(re.fullmatch(r"[0-9]{1,15}", f) for f in fields[2:4]):
            continue
        devices += 1
        zram += "/zram" in fields[0]
        total += int(fields[2]) << 10
        used += int(fields[3]) << 10
    return Swap(total, used, zram, devices)


def check_swap(tree: Tree) -> Iterator[Finding]:
    """Say which swap there is and how full it is."""
    what, swap = "swap", swap_of(tree)
    if isinstance(swap, Unread):
        yield Finding(what, f"could not be read: {_SWAPS} is {swap.reason}", "optional", "free -h")
        return
    if not swap.total:
        meminfo, command = tree.read(_MEMINFO), None
        memory = None if isinstance(meminfo, Unread) else listed_bytes(meminfo, "MemTotal")
        if memory and memory < _LITTLE_MEMORY:
            command = "sudo fallocate -l 4G /swapfile  # then chmod 600, mkswap and swapon"
            if tree.has(_ZRAM_SERVICE):
                command = "sudo systemctl enable --now nvzramconfig"
        yield Finding(what, "none; a build may then end for lack of memory", "optional", command)
        return
    kind = "zram" if swap.zram == swap.devices else "zram and files" if swap.zram else "files"
    found = f"{swap.total / 1e9:.1f} GB of {kind}, {swap.used / 1e9:.1f} GB used"
    if swap.used > _MOST_USED * swap.total:
        command = "ps -eo rss,comm --sort=-rss | head  # and end what is not needed"
        yield Finding(what, f"{found}: a stream may wait for its memory", "warn", command)
    else:
        yield Finding(what, found)
