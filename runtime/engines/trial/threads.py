"""ThreadTrial: an encoder with one thread against the same with all, as frames of a camera come."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...core.frame import NS_PER_MS
from ...core.lifecycle import Closing
from ..select import SelectedEngine
from .records import FasterThreads

_RUNS = 6
_UNTIMED = 1
_PAUSE_S = 0.003
"""Between two frames of a camera the threads of an engine fall asleep, and so they must here."""


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
        *,
        remembered: bool = False,
    ) -> ThreadTrial:
        """Open an encoder with all threads, and with one unless that was tried here before.

        `open_with` opens it with a number of threads, by default all that there are; (N, 1, S, S)
        is a frame of each camera. What was `remembered` of an earlier trial is believed where one
        of the two was faster beyond doubt; the note says when that was.
        """
        every = open_with(None)
        threads = every.backend.threads
        if threads is None or threads == 1:
            return cls(every)
        record = None
        try:
            if remembered and every.sha256:
                record = FasterThreads(
                    every.sha256, every.backend.name, every.precision, threads, batch_shape[0]
                )
            if record is None or (known := record.known()) is None:
                return cls(every, open_with(1), batch_shape, record)
            if known.threads == threads:
                every.backend.notes += (known.note,)
                return cls(every)
            one = open_with(1)
        except BaseException:
            every.backend.close()
            raise
        every.backend.close()
        one.backend.notes += (known.note,)
        return cls(one)

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
