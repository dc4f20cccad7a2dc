"""The images of an index, decoded as they are asked for; others take the place of what is lost."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.core.errors import DataError, ImageError
from ...runtime.core.text import printable
from ...runtime.pixels.files.image_files import fitted_from_bytes
from .files import ShardFiles
from .index import AGAIN, ShardIndex
from .order import EpochOrder, Rows
from .read_ahead import ReadAhead

_MOST_TRIED = 4096

Pixels = npt.NDArray[np.uint8]


class ShardImages:
    """N images as the model takes them, indexed as an array of (N, H, W) or (N, 3, H, W) uint8.

    They are decoded in threads, by the path that `motorvae-encode` and a deployed encoder take.
    An image that cannot be read any more, as its shard is gone, damaged or another by now, is
    replaced by the next of those it was asked for with, and `replaced` counts it; `warn` is told of
    each such shard once. A DataError where nothing is left.
    """

    def __init__(
        self, index: ShardIndex, *, workers: int = 0, warn: Callable[[str], None] = lambda _: None
    ) -> None:
        self.index, self._warn = index, warn
        self._spec, self._limit = index.set.spec, index.set.limit
        shards = index.set.shards
        self._files = ShardFiles([one.path for one in shards], [one.stamp for one in shards])
        self._pool = ThreadPoolExecutor(workers or os.cpu_count() or 1, "decode")
        self.replaced = 0
        self._lost: set[int] = set()
        self._lock = Lock()

    def __len__(self) -> int:
        return self.index.set.images

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all images together."""
        return len(self), *self._spec.picture_shape

    def __getitem__(self, rows: Any) -> Pixels:
        """Decode one image, or several."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        asked = np.asarray(rows, np.int64)
        found = self.taken(asked.reshape(-1), asked.reshape(-1))
        return found[0] if asked.ndim == 0 else found

    def taken(self, rows: Rows, whole: Rows, begin: int = 0) -> Pixels:
        """Decode some rows, which are those of `whole` from `begin` on.

        What replaces an image depends on the whole alone, so that ranks that share it agree.
        """
        places = range(begin, begin + len(rows))
        found = list(self._pool.map(lambda place: self._one(place, whole), places))
        return np.stack(found) if found else np.empty((0, *self.shape[1:]), np.uint8)

    @contextlib.contextmanager
    def epoch(self, seed: int, epoch: int) -> Iterator[Callable[[int, int], Rows]]:
        """Give the training rows of an epoch, by a position and a number; what comes is read ahead.

        Shards are opened anew, so that one that was deleted since the last epoch is missed.
        """
        self._files.close()
        index = self.index
        window = index.set.runs_in_window
        order = EpochOrder(index.train, index.starts, window, seed=seed, epoch=epoch)
        with contextlib.closing(ReadAhead(index, self._files, order)) as ahead:

            def rows(begin: int, size: int) -> Rows:
                ahead.reach(begin + size - 1)
                return order.rows(begin, size)

            yield rows

    def _one(self, place: int, whole: Rows) -> Pixels:
        """Return an image, or the first of those after it that can be read."""
        others = (whole[(place + step) % len(whole)] for step in range(len(whole)))
        # Of the same side of the split.
        side = self.index.train if self._is_trained(int(whole[place])) else self.index.held_out
        for tried, row in enumerate(itertools.chain(others, side[:: -(-len(side) // _MOST_TRIED)])):
            if (pixels := self._decoded(int(row))) is not None:
                if tried:
                    with self._lock:
                        self.replaced += 1
                return pixels
        raise DataError(
            f"no image of the {len(self.index.set.shards)} shards can be read any more: put them "
            f"back and go on with --resume, or {AGAIN}"
        )

    def _is_trained(self, row: int) -> bool:
        train = self.index.train
        place = int(np.searchsorted(train, row))
        return place < len(train) and int(train[place]) == row

    def _decoded(self, row: int) -> Pixels | None:
        _, start, _, size, shard = self.index.members[row].item()
        try:
            data = self._files.content(shard, start, size)
            return fitted_from_bytes(data, self._spec, self._limit).pixels
        except ImageError as error:
            self._miss(shard, error.clause())
        except OSError as error:
            self._miss(shard, error.strerror or str(error))
        return None

    def _miss(self, shard: int, reason: str) -> None:
        with self._lock:
            if shard in self._lost:
                return
            self._lost.add(shard)
        path = printable(self.index.set.shards[shard].path)
        self._warn(
            f"{path} cannot be read any more ({printable(reason)}): other images take the place of "
            "its own"
        )
