"""How much memory a new process can have, in a container, too.

/proc/meminfo is that of the machine (proc(5)); the limit of a container is in the files of its
control group, version 2: memory.max, memory.current, memory.stat (Linux'
Documentation/admin-guide/cgroup-v2.rst). What is cached of files and not in use counts as taken
there, and is given back when somebody needs it.
"""

from __future__ import annotations

import re
from pathlib import Path

from .small_files import text_of_small_file

_GROUP = "sys/fs/cgroup"


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory that a new process can have here, in a container, too; None if unknown."""
    available = listed_bytes(text_of_small_file(root / "proc/meminfo"), "MemAvailable")
    if available is None:
        return None
    most, taken, stat = (
        text_of_small_file(root / _GROUP / f"memory.{name}") for name in ("max", "current", "stat")
    )
    if not (_is_number(most) and _is_number(taken)):  # no container, or no limit ("max")
        return available
    cached = re.search(r"^inactive_file ([0-9]{1,20})$", stat, re.MULTILINE)
    return min(available, max(0, int(most) - int(taken) + (int(cached[1]) if cached else 0)))


def listed_bytes(meminfo: str, name: str) -> int | None:
    """Return what a text in the form of /proc/meminfo gives for a name; None if nothing."""
    found = re.search(rf"^{name}:\s+([0-9]{{1,15}}) kB", meminfo, re.MULTILINE)
    return int(found[1]) << 10 if found else None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,20}", text) is not None
