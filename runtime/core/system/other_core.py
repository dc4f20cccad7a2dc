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

REAL_TIME = {getattr(os, name, None) for name in ("SCHED_FIFO", "SCHED_RR")}
_SIBLINGS = "/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"


def core_of(number: int) -> str:
    """Return which core a hardware thread is of: the numbers of all of its threads, or its own."""
    try:
        return Path(_SIBLINGS.format(number=number)).read_text(encoding="ascii")
    except OSError:
        return str(number)


class OtherCore:
    """One thread, which does one piece of work at a time.

    After a pause the system may wake a thread on the very core of whoever wakes it, and both then
    wait for each other: halves of a picture took longer than the whole (docs/speed.md). So the
    thread is bound to the other cores for each piece of work. It also runs before ordinary threads
    where the caller does (real-time policies of sched(7)), as that one would otherwise wait for it
    behind all of those. It keeps that while it sleeps: if it gave it up at the end of its work,
    another thread would often run before the caller hears of the end.

    Raises:
        RuntimeError: No thread can be started.
    """

    def __init__(self) -> None:
        self._cpus = frozenset(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="other core")
        self._thread = self._pool.submit(threading.get_native_id).result()
        self._others = functools.cache(self._others_than)
        self._free = threading.Lock()

    def submit(
        self, work: Callable[Args, Found], *args: Args.args, **options: Args.kwargs
    ) -> Future[Found] | None:
        """Begin a piece of work; None where the thread is busy, or is not to be placed as above."""
        others = self._others(_own_cpu())
        if not others or not self._free.acquire(blocking=False):
            return None

        def placed() -> Found:
            try:
                return work(*args, **options)
            finally:
                self._rest()

        begun: Future[Found] | None = None
        try:
            os.sched_setaffinity(self._thread, others)
            policy = policy_of(0)
            if policy in REAL_TIME:
                own, policy = os.sched_getparam(0), policy | os.SCHED_RESET_ON_FORK
                os.sched_setscheduler(self._thread, policy, own)
            else:
                self.calm()
            begun = self._pool.submit(placed)
        except (OSError, RuntimeError):  # a container forbids it, cores are gone, or Python ends
            return None
        finally:
            if begun is None:
                self._rest()
        return begun

    def calm(self) -> None:
        """Let the thread run among all others, as one has to that takes long."""
        if policy_of(self._thread) in REAL_TIME:
            make_ordinary(self._thread)

    def _rest(self) -> None:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(self._thread, self._cpus)
        self._free.release()

    def _others_than(self, own: int) -> frozenset[int]:
        if own < 0:
            return frozenset()
        taken = core_of(own)
        return frozenset(cpu for cpu in self._cpus if core_of(cpu) != taken)


def other_core() -> OtherCore | None:
    """Return the one of this process; None where there is one core, or no thread to be placed."""
    process = os.getpid()  # one that was forked has none of its parent's threads
    if process not in _made and (found := _new_one()) is not None:
        _made.setdefault(process, found)  # another thread's may be there: then this one ends
    return _made.get(process)


def calm_other_core() -> None:
    """Let the one of this process run among all others, if there is one; its next caller may not.

    That is for whoever takes back what lets callers run first: none of them may come again.
    """
    if (made := _made.get(os.getpid())) is not None:
        made.calm()


def runs_first() -> bool:
    """Whether the calling thread runs before ordinary ones, and what it waits for can, too."""
    return policy_of(0) in REAL_TIME


_made: dict[int, OtherCore] = {}  # by process


def _new_one() -> OtherCore | None:
    if not hasattr(os, "sched_setaffinity") or _own_cpu() < 0:
        return None
    cores = {core_of(cpu) for cpu in os.sched_getaffinity(0)}
    if len(cores) < 2:
        return None
    try:
        return OtherCore()
    except RuntimeError:  # as many threads as are allowed are there
        return None


def policy_of(thread: int) -> int:
    """Return how a thread is scheduled, 0 being the calling one; musl does not say it."""
    try:
        return os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK
    except OSError:
        return os.SCHED_OTHER


def make_ordinary(thread: int) -> None:
    """Let a thread run among all others, as far as the system allows it."""
    with contextlib.suppress(OSError):
        # Who may not take that mark away would be refused the rest as well.
        policy = os.SCHED_OTHER | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(thread, policy, os.sched_param(0))


def _own_cpu() -> int:
    """Return the hardware thread that the calling thread runs on, or -1 (sched_getcpu(3))."""
    ask = _sched_getcpu()
    return -1 if ask is None else ask()


@functools.cache
def _sched_getcpu() -> Callable[[], int] | None:
    found: Callable[[], int] | None = getattr(ctypes.CDLL(None), "sched_getcpu", None)
    return found
