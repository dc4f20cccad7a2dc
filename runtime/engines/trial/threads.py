"""ThreadTrial: an encoder with one thread against the same with all, as frames of a camera come."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...bundle.graph_key import Precision
from ...core.frame import NS_PER_MS
from ...core.lifecycle import Closing
from ..cpu_threads import default_threads
from ..select import SelectedEngine
from .records import Faster, FasterThreads

_RUNS = 6
_UNTIMED = 1
_PAUSE_S = 0.003
"""Between two frames of a camera the threads of an engine fall asleep, and so they must here."""


@dataclass(slots=True)
class EarlierTrial:
    """What an earlier trial found of a graph, for runs of so many `images`.

    It is called by `select_engine`, before the graph is opened: OpenVINO compiles it for a number
    of threads, which takes as long as many runs.
    """

    images: int
    record: FasterThreads | None = None
    """Where what is found out now is written down."""
    found: Faster | None = None

    def __call__(self, sha256: str, library: str, precision: Precision) -> int | None:
        """Return with how many threads runs were faster, or None where that is not known."""
        threads = default_threads()
        self.record = FasterThreads(sha256, library, precision, threads, self.images)
        self.found = self.record.known() if threads > 1 else None
        return self.found.threads if self.found is not None else None


@dataclass(slots=True)
class ThreadTrial(Closing):
    """An opened encoder, and where it is not known which is faster, the same with one thread.

    Runs that follow each other at once say nothing of a camera: between its frames threads fall
    asleep, and to wake them can take longer than the work that they take over.
    """

    first: SelectedEngine
    one: SelectedEngine | None = None
    batch_shape: tuple[int, ...] = ()
    record: FasterThreads | None = None

    @classmethod
    def opened(
        cls,
        open_with: Callable[[int | None], SelectedEngine],
        batch_shape: tuple[int, ...],
        earlier: EarlierTrial | None = None,
    ) -> ThreadTrial:
        """Open an encoder with all threads, and with one unless that was tried here before.

        `open_with` opens it with a number of threads, by default all that there are, or as many as
        an `earlier` trial found, which it gives to `select_engine`; (N, 1, S, S) is a frame of each
        camera. What was found earlier is believed for some days; the note says when that was.
        """
        first = open_with(None)
        if earlier is not None and earlier.found is not None:
            first.backend.notes += (earlier.found.note,)
            return cls(first)
        if first.backend.threads is None or first.backend.threads == 1:
            return cls(first)
        try:
            one = open_with(1)
        except BaseException:
            first.backend.close()
            raise
        return cls(first, one, batch_shape, earlier.record if earlier is not None else None)

    def faster(self) -> SelectedEngine:
        """Return the faster one and close the other; its note says what was measured."""
        every, one = self.first, self.one
        if one is None:
            return every
        try:
            batch = np.zeros(self.batch_shape, every.backend.input_dtype)
            taken_ns = np.empty((_UNTIMED + _RUNS, 2))
            pair = enumerate((every.backend, one.backend))
            for turn, (column, backend) in itertools.product(range(len(taken_ns)), pair):
                time.sleep(_PAUSE_S)
                began_ns = time.monotonic_ns()
                backend.run(batch)
                taken_ns[turn, column] = time.monotonic_ns() - began_ns
        except BaseException:
            self.close()
            raise
        every_ms, one_ms = np.median(taken_ns[_UNTIMED:], axis=0) / NS_PER_MS
        kept, other = (one, every) if one_ms < every_ms else (every, one)
        other.backend.close()
        threads, of = kept.backend.threads, every.backend.threads
        note = (
            f"{threads} thread{'s' if kept is every else ''}, as frames with pauses between them "
            f"took {one_ms:.1f} ms with 1 and {every_ms:.1f} ms with {of}"
        )
        kept.backend.notes += (note,)
        if self.record is not None and threads is not None:
            self.record.remember(threads, note, max(one_ms, every_ms) / min(one_ms, every_ms))
        return kept

    def close(self) -> None:
        """Close both."""
        self.first.backend.close()
        if self.one is not None:
            self.one.backend.close()


def autotuned_engine(
    open_with: Callable[[int | None], SelectedEngine], batch_shape: tuple[int, ...]
) -> SelectedEngine:
    """Open an encoder with all threads or with one, whichever is faster now."""
    return ThreadTrial.opened(open_with, batch_shape).faster()
