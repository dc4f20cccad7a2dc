"""SinkFanout: a bounded queue and a thread for each sink, so that a slow one holds no camera."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..core.errors import OutputError
from ..core.lifecycle import Closing
from ..core.row import Row, RunFacts
from .base import Sink

DEPTH_ROWS = 256
FLUSH_S = 0.25
TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 600.0
"""For closing a sink that has all its rows: an .npz is written only then."""
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class SinkReport:
    """What became of the rows of one sink; those that still wait are in neither count."""

    name: str  # the sink's
    rows: int  # how many it took
    dropped: int  # how many it did not
    failure: str | None  # why it ended early, if it did


class SinkFanout(Closing):
    """Rows to several sinks at once, each at its own pace. Close it, or use it in a `with` block.

    Each sink is written, flushed and closed in its own thread, and up to `depth` rows wait for it.
    Where a queue is full, a recording waits for room; a live source's row is dropped for that
    sink and counted in `unwritten` of the next row that this sink gets. One thread puts.
    """

    def __init__(self, sinks: Sequence[Sink], facts: RunFacts, *, depth: int = DEPTH_ROWS) -> None:
        self._threads = [_SinkThread(sink, depth=depth, waits=facts.lossless) for sink in sinks]

    @property
    def reports(self) -> list[SinkReport]:
        """One report a sink, in their order."""
        return [thread.report() for thread in self._threads]

    def put(self, row: Row) -> None:
        """Give a row to every sink that still works; where none does, raise the first's failure."""
        failures = [thread.put(row) for thread in self._threads]
        if any(failures):
            _raise_first(failures, also_of_sinks=all(failures))

    def put_last(self, row: Row) -> None:
        """Give the last row of a run, for which there is always room; never waits or raises."""
        for thread in self._threads:
            thread.put(row, last=True)

    def interrupt(self) -> None:
        """Let no `put` wait for room any more; safe in a signal handler."""
        for thread in self._threads:
            thread.waits = False

    def close(self, timeout_s: float = TIMEOUT_S) -> None:
        """Let the sinks take what waits for them, and close them; calling it again does nothing.

        A sink that takes no row for `timeout_s` is given up, and has failed.
        """
        for thread in self._threads:
            thread.end()
        for thread in self._threads:
            thread.join(timeout_s)
        _raise_first([thread.failure for thread in self._threads], also_of_sinks=False)


class _SinkThread:
    """One sink with its queue and its thread."""

    def __init__(self, sink: Sink, *, depth: int, waits: bool) -> None:
        self.waits = waits
        self.failure: Exception | None = None
        self._sink = sink
        self._room = threading.Semaphore(depth)
        self._queue: queue.SimpleQueue[tuple[Row, int] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._put = self._dropped = self._unwritten = 0
        self._ending = self._is_closing = self._is_settled = False
        self._moved_s = time.monotonic()
        # A daemon: a write to a pipe that nobody reads must not keep the process.
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)
        self._thread.start()

    def put(self, row: Row, *, last: bool = False) -> Exception | None:
        """Queue a row, or drop it; return why the sink works no more, if it does not."""
        has_room = last or self._room.acquire(blocking=False)
        while not has_room and self.waits and not self._is_settled:
            has_room = self._room.acquire(timeout=_POLL_S)  # a signal handler cannot notify
        with self._lock:
            self._put += 1
            if not has_room or self._is_settled or self._ending:
                self._dropped += 1
                self._unwritten += 1
                return self.failure
            self._queue.put((row, self._unwritten))  # locked: `_settle` empties the queue for good
            self._unwritten = 0
            return None

    def end(self) -> None:
        """Take no more rows, and let the thread end once the queue is empty."""
        self._ending = True
        self._moved_s = time.monotonic()
        self._queue.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait until the sink is closed, or give it up."""
        while self._thread.is_alive() and not self._is_settled:
            allowed_s = CLOSE_TIMEOUT_S if self._is_closing else timeout_s
            left_s = self._moved_s + allowed_s - time.monotonic()
            if left_s > 0:
                self._thread.join(left_s)
                continue
            missing = self._put - self._sink.rows - self._dropped
            what = f"{missing} rows are not written" if missing else "it is not closed"
            self._settle(
                OutputError(
                    f"{self._sink.name} took no rows for {allowed_s:g} s: {what}; "
                    "make its reader faster or choose another --output"
                )
            )

    def report(self) -> SinkReport:
        """Return what became of the rows so far."""
        with self._lock:
            rows = self._put - self._dropped if self._is_settled else self._sink.rows
            failure = None if self.failure is None else str(self.failure)
            return SinkReport(self._sink.name, rows, self._dropped, failure)

    def _run(self) -> None:
        failure: Exception | None = None
        try:
            self._write_all()
        except Exception as error:  # noqa: BLE001  # handed to the thread that puts rows
            failure = error
        self._moved_s = time.monotonic()
        self._is_closing = True
        try:
            self._sink.close()
            if failure is None:
                self._sink.check_place()
        except Exception as error:  # noqa: BLE001  # likewise
            failure = failure or error
        self._settle(failure)

    def _write_all(self) -> None:
        flush_s = time.monotonic() + FLUSH_S
        unsent = 0  # rows not taken just before the next one
        while not self._is_settled:
            try:
                taken = self._queue.get(timeout=max(0.0, flush_s - time.monotonic()))
            except queue.Empty:
                pass
            else:
                if taken is None:
                    return
                self._room.release()
                row, unwritten, before = taken[0], taken[1] + unsent, self._sink.rows
                # Rows are shared between sinks; what this one dropped is its own matter.
                self._sink.write(replace(row, unwritten=unwritten) if unwritten else row)
                self._moved_s = time.monotonic()
                unsent = 0
                if self._sink.rows == before:  # a packet that the network did not take
                    unsent = unwritten + 1
                    with self._lock:
                        self._dropped += 1
            if time.monotonic() >= flush_s:
                self._sink.flush()
                self._sink.check_place()
                flush_s = time.monotonic() + FLUSH_S

    def _settle(self, failure: Exception | None) -> None:
        """Count what is not in the output, for good."""
        with self._lock:
            if self._is_settled:
                return
            self._is_settled = True
            self._dropped = self._put - self._sink.rows
            self.failure = failure
            with contextlib.suppress(queue.Empty):
                while True:  # what waits may hold pictures, and the run may go on for days
                    self._queue.get_nowait()


def _raise_first(failures: Sequence[Exception | None], *, also_of_sinks: bool) -> None:
    """Raise the first failure, or the first that no sink should raise."""
    for failure in failures:
        if failure is not None and (also_of_sinks or not isinstance(failure, OutputError)):
            raise failure
