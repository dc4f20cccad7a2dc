"""What an epoch comes to next, read a run at a time before it is needed."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .files import ShardFiles
from .index import ShardIndex
from .order import EpochOrder


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
        members = self._index.members
        first, last = members[self._index.train[begin]], members[self._index.train[end - 1]]
        start = int(first["start"])
        size = int(last["start"] + last["size"]) - start
        # Whoever needs an image of it says what is wrong.
        with contextlib.suppress(OSError):
            self._files.content(int(first["shard"]), start, size)
