"""The order of an epoch's images, in which they lie together that are read together.

A full shuffle of members of large files would read each of them from another place. Here a shard
is cut into runs of some megabytes, each of which is read at once. An epoch draws the order of all
runs of all shards, takes so many at a time, and shuffles the images of these: a buffer as of
WebDataset's `shuffle`, but filled from as many places.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


class EpochOrder:
    """The training rows of one epoch, by (seed, epoch) alone; each of them once.

    Memory is taken for the runs, and for the images of one window at a time.
    """

    def __init__(
        self, train: Rows, starts: Rows, runs_in_window: int, *, seed: int, epoch: int
    ) -> None:
        """Take rows in their order, and where in them each run starts, with their end, (R + 1,)."""
        self._train, self._starts, self._seed = train, starts, (seed, epoch)
        runs = np.random.default_rng(self._seed).permutation(len(starts) - 1)
        # Of nearly the same number, so that no small rest is hardly shuffled.
        self.windows = np.array_split(runs, max(1, -(-len(runs) // runs_in_window)))
        sizes = np.diff(starts)
        self._ends = np.cumsum([sizes[window].sum() for window in self.windows])
        self._kept: tuple[int, Rows] = (-1, train[:0])

    def window_at(self, position: int) -> tuple[int, float]:
        """Return the number of the window at a position, and how much of it lies before that."""
        number = int(np.searchsorted(self._ends, position, "right"))
        if number == len(self._ends):
            return number, 0.0
        begin = int(self._ends[number - 1]) if number else 0
        return number, (position - begin) / (int(self._ends[number]) - begin)

    def rows(self, begin: int, size: int) -> Rows:
        """Return so many rows of the epoch, from a position on."""
        parts = [self._train[:0]]
        while size > 0:
            number, _ = self.window_at(begin)
            first = int(self._ends[number - 1]) if number else 0
            part = self._window(number)[begin - first : begin - first + size]
            parts.append(part)
            begin, size = begin + len(part), size - len(part)
        return np.concatenate(parts)

    def _window(self, number: int) -> Rows:
        if self._kept[0] != number:
            runs = (
                self._train[slice(*self._starts[run : run + 2])] for run in self.windows[number]
            )
            # A sequence that ends with zero seeds as one without it.
            generator = np.random.default_rng((*self._seed, 1 + number))
            self._kept = number, generator.permutation(np.concatenate([*runs]))
        return self._kept[1]
