"""When this process stood still: what came meanwhile waited unseen, and is not new."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from ..core.lifecycle import Closing

BEAT_S = 0.01
PAUSE_NS = 40_000_000
"""A heartbeat that is so late stood still, or a machine too busy to tell the difference."""
_SUSPENDED_NS = 1_000_000
_MOST_PAUSES = 256


class Pause(NamedTuple):
    """From the last beat before it to the first one after it, on the monotonic clock."""

    start_ns: int
    end_ns: int


class Heartbeat:
    """The beats of this process, by a thread that sleeps between them, while anybody listens.

    A process that is stopped (SIGSTOP, a frozen container, a paused virtual machine whose clock
    goes on) while it waits for data sees but a long wait, and the kernel tells nobody. Beats that
    did not come do. A suspended machine's monotonic clock stands still as well; the clock of the
    time since booting does not, where there is one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners = 0
        self._ended = threading.Event()
        self._last_ns = 0
        self._suspended_ns = 0
        self._pauses: tuple[Pause, ...] = ()  # replaced, as others read it meanwhile

    def acquire(self) -> None:
        """Beat, if it does not yet."""
        with self._lock:
            self._listeners += 1
            if self._listeners == 1:
                self._pauses = ()
                self._last_ns, self._suspended_ns = time.monotonic_ns(), suspended_ns()
                self._ended = threading.Event()
                beats = threading.Thread(
                    target=self._run, args=(self._ended,), name="heartbeat", daemon=True
                )
                beats.start()

    def release(self) -> None:
        """Beat no more, once nobody listens."""
        with self._lock:
            self._listeners -= 1
            if self._listeners == 0:
                self._ended.set()

    def between(self, start_ns: int, end_ns: int) -> Pause | None:
        """Return from when to when it stood still within a time that ended just now, if it did.

        It is the span from the first pause's start to the last one's end.
        """
        pauses = self._within(start_ns, end_ns)
        if not pauses:
            return None
        has_all = len(pauses) < _MOST_PAUSES
        return Pause(pauses[-1].start_ns if has_all else start_ns, pauses[0].end_ns)

    def stood_ns(self, start_ns: int, end_ns: int) -> int:
        """Return how long it stood still within a time that ended just now."""
        return sum(pause.end_ns - pause.start_ns for pause in self._within(start_ns, end_ns))

    def _within(self, start_ns: int, end_ns: int) -> list[Pause]:
        """Return the pauses of a time that ended just now, or what lies in it, newest first."""
        # A pause is noted before the beat that ends it: to look the other way round misses none.
        last_ns, noted = self._last_ns, self._pauses
        found = []
        if self._listeners > 0 and end_ns - last_ns >= PAUSE_NS:
            found.append(Pause(max(start_ns, last_ns), end_ns))
        for pause in reversed(noted):
            if pause.end_ns <= start_ns:
                break
            found.append(Pause(max(start_ns, pause.start_ns), min(end_ns, pause.end_ns)))
        return found

    def beat(self) -> None:
        """Note that the process runs, and that it did not if the last beat is long ago."""
        now_ns, suspended = time.monotonic_ns(), suspended_ns()
        was_suspended = suspended - self._suspended_ns > _SUSPENDED_NS
        if now_ns - self._last_ns >= PAUSE_NS or was_suspended:
            self._pauses = (*self._pauses[1 - _MOST_PAUSES :], Pause(self._last_ns, now_ns))
        self._last_ns, self._suspended_ns = now_ns, suspended

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT_S):
            self.beat()


HEARTBEAT = Heartbeat()
"""This process's; one thread, however many cameras."""


class PauseWatch(Closing):
    """Keeps the heartbeat going while a live source is open."""

    def __init__(self) -> None:
        HEARTBEAT.acquire()
        self._is_open = True

    def close(self) -> None:
        """Once is enough."""
        if self._is_open:
            self._is_open = False
            HEARTBEAT.release()


def suspended_ns() -> int:
    """Return for how long this machine was suspended since it booted, as far as that is known."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
