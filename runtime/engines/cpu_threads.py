"""How many threads an engine takes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import ConfigError
from ..core.system.other_core import core_of

MOST_THREADS = 1024
_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def default_threads() -> int:
    """Return the number of cores that this process can really use.

    Engines count the cores of the machine; in a container, or under taskset, that is more than
    there are to have, and threads without a core make every run wait. Two hardware threads of one
    core share its arithmetic and count once.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    usable = os.sched_getaffinity(0)
    cores = len({core_of(number) for number in usable})
    # How many cores' time a container may take, rounded up.
    quotas = filter(None, map(_cores_of, _quota_files()))
    return max(1, min([cores, *quotas]))


def checked_threads(threads: int | None) -> int:
    """Return what was asked for, or the default; raise ConfigError where it is out of range."""
    if threads is None:
        return default_threads()
    if not 1 <= threads <= MOST_THREADS:
        raise ConfigError(
            f"threads={threads} is out of range: take 1 to {MOST_THREADS}, or leave it out"
        )
    return threads


def _quota_files() -> Iterator[tuple[Path, ...]]:
    """Yield where limits of this process may stand: of its group, and of those around it."""
    try:
        lines = _OWN_GROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers:  # version 2
            root, files = _GROUPS, ["cpu.max"]
        elif "cpu" in controllers.split(","):
            root, files = _GROUPS / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        group = root / name.lstrip("/")
        for folder in (group, *group.parents):
            yield tuple(folder / file for file in files)
            if folder == root:
                break


def _cores_of(files: tuple[Path, ...]) -> int | None:
    try:
        limit, period = " ".join(file.read_text(encoding="ascii") for file in files).split()
        return -(-int(limit) // int(period)) if int(limit) > 0 else None
    except (OSError, ValueError):  # no such group here, or "max"
        return None
