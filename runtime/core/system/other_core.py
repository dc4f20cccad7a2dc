"""OtherCore: a thread that works beside its caller, on another core than the caller's."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

Args = ParamSpec("Args")
Found = TypeVar("Found")

_SIBLINGS = "/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"


def core_of(number: int) -> str:
    """Return which core a hardware thread is of: the numbers of all of its threads, or its own."""
    try:
        return Path(_SIBLINGS.format(number=number)).read_text(encoding="ascii")
    except OSError:
        return str(number)


class OtherCore:
    """One thread, which does what it is given in turn.

    After a pause the system may wake a thread on the very core of whoever wakes it, and both then
    wait for each other: halves of a picture took longer than the whole (docs/speed.md). So the
    thread is bound to the other cores for each piece of work.
    """

    def __init__(self) -> None:
        self._cpus = frozenset(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="other core")
        self._thread = self._pool.submit(threading.get_native_id).result()
        self._others = functools.cache(self._others_than)

    def submit(
        self, work: Callable[Args, Found], *args: Args.args, **options: Args.kwargs
    ) -> Future[Found] | None:
        """Begin a piece of work; None where the thread cannot be placed."""
        others = self._others(_own_cpu())
        if not others:
            return None
        try:
            os.sched_setaffinity(self._thread, others)
        except OSError:  # a container forbids it, or has taken cores away
            return None

        def placed() -> Found:
            try:
                return work(*args, **options)
            finally:
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(0, self._cpus)

        return self._pool.submit(placed)

    def _others_than(self, own: int) -> frozenset[int]:
        if own < 0:
            return frozenset()
        taken = core_of(own)
        return frozenset(cpu for cpu in self._cpus if core_of(cpu) != taken)


def other_core() -> OtherCore | None:
    """Return the one of this process; None where there is one core, or threads cannot be placed."""
    return _of_process(os.getpid())  # a process that was forked has none of its parent's threads


@functools.cache
def _of_process(_: int) -> OtherCore | None:
    if not hasattr(os, "sched_setaffinity") or _own_cpu() < 0:
        return None
    cores = {core_of(cpu) for cpu in os.sched_getaffinity(0)}
    return OtherCore() if len(cores) > 1 else None


def _own_cpu() -> int:
    """Return the hardware thread that the calling thread runs on, or -1 (sched_getcpu(3))."""
    ask = _sched_getcpu()
    return -1 if ask is None else ask()


@functools.cache
def _sched_getcpu() -> Callable[[], int] | None:
    found: Callable[[], int] | None = getattr(ctypes.CDLL(None), "sched_getcpu", None)
    return found
