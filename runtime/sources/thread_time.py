"""How long a thread was awake: it worked, or waited for a core; the rest of a wait is waiting."""

from __future__ import annotations

import os
import resource
import threading
import time
from contextlib import suppress

_SCHEDSTAT = "/proc/thread-self/schedstat"


class _Delay:
    """The kernel's count of one thread's time in which it could have run and had no core.

    The second number of the file, in nanoseconds (Linux, Documentation/scheduler/sched-stats.rst);
    which thread it is of is decided when the file is opened.
    """

    def __init__(self) -> None:
        self._file = -1
        with suppress(OSError):  # no such file here
            self._file = os.open(_SCHEDSTAT, os.O_RDONLY)

    def ns(self) -> int | None:
        if self._file < 0:
            return None
        _, waited_ns, turns = map(int, os.pread(self._file, 96, 0).split())
        return waited_ns if turns else None  # a thread that reads has had one: nobody counts

    def __del__(self) -> None:  # with the thread
        if self._file >= 0:
            os.close(self._file)


_OF_THREAD = threading.local()


def awake_ns() -> tuple[int, int]:
    """Return for how long the calling thread was awake since it began, in nanoseconds.

    The second number is how often a core was taken from it for a time that is not in the first:
    0 where the kernel counts that time.
    """
    delay: _Delay | None = getattr(_OF_THREAD, "delay", None)
    if delay is None:
        delay = _OF_THREAD.delay = _Delay()
    worked_ns, waited_ns = time.thread_time_ns(), delay.ns()
    if waited_ns is not None:
        return worked_ns + waited_ns, 0
    return worked_ns, resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
