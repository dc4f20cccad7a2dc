"""What an epoch comes to next, read a run at a time before it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .files import ShardFiles
from .index import GAP_BYTES, RUN_BYTES, ShardIndex
from .order import EpochOrder, Rows


class ReadAhead:
    """Reads the runs of the window under way and of the next one, in their order, in one thread.

    The bytes are dropped: the system keeps them in its cache, where they are found by all processes
    that share an epoch, and from which it drops them when memory is short. As a window is used up,
    the next one is read in proportion, so that the disk is asked evenly.
    """

    def __init__(self, index: ShardIndex, files: ShardFiles, order: EpochOrder) -> None:
        self._index, self._files, self._order = index, files, order
        self._runs = np.concatenate(order.windows)
        self._firsts = np.cumsum([0, *map(len, order.windows)])
        self._next: int | None = None
        self._pool = ThreadPoolExecutor(1, "read-ahead")

    def reach(self, position: int) -> None:
        """Ask for what is needed once an epoch has come to this position."""
        number, share = self._order.window_at(position)
        windows = len(self._order.windows)
        if windows in {1, number}:
            return
        if self._next is None:
            self._next = int(self._firsts[number])
        last = min(number + 2, windows)
        end = self._firsts[number + 1] + round(
            share * int(self._firsts[last] - self._firsts[number + 1])
        )
        for run in self._runs[self._next : end]:
            self._pool.submit(self._read, int(run))
        self._next = max(self._next, int(end))

    def close(self) -> None:
        """Stop reading."""
        self._pool.shutdown(cancel_futures=True)

    def _read(self, run: int) -> None:
        begin, end = self._index.starts[run : run + 2]
        if begin == end:  # all of it is held out
            return
        members = self._index.members[self._index.train[begin:end]]
        # Whoever needs an image of it says what is wrong.
        with contextlib.suppress(OSError):
            for start, size in _spans(members["start"], members["size"]):
                self._files.content(int(members["shard"][0]), start, size)


def _spans(starts: Rows, sizes: Rows) -> Iterator[tuple[int, int]]:
    """Yield where to read, and how much: neighbours at once, but not what a large gap holds."""
    begin = end = int(starts[0])
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        if start - end > GAP_BYTES or start + size - begin > RUN_BYTES:
            if end > begin:
                yield begin, end - begin
            begin = start
        end = start + size
    yield begin, end - begin
