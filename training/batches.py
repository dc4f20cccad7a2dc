"""Batches straight from the mapped array: order by (seed, epoch), resumable in mid-epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..runtime.errors import DataError
from ..runtime.frames import input_from_luma
from .data import DataSet
from .schedule import Schedule

Rows = npt.NDArray[np.int64]


def images_from_rows(data: DataSet, rows: Rows) -> Tensor:
    """Return those images as (N, 1, S, S) float32 in [0, 1], through the runtime's scaling."""
    return torch.from_numpy(input_from_luma(data.images[rows])).unsqueeze(1)


class TrainBatches(Iterable[Tensor]):
    """The training images of one epoch, shuffled; every rank takes its own part.

    The last images of an epoch that do not fill a batch on every rank wait for a later
    epoch's order. The iterator ends early once the schedule says that the stage is over.

    Raises:
        DataError: There are fewer training images than ranks.
    """

    def __init__(
        self,
        data: DataSet,
        schedule: Schedule,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        ranks: int,
    ) -> None:
        _check_enough(len(data.train), ranks, "training")
        self._data, self._schedule, self._seed = data, schedule, seed
        self._rank, self._ranks = rank, ranks
        self._batch_size = min(batch_size, len(data.train) // ranks)
        self.count = len(data.train) // (self._batch_size * ranks)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield (B, 1, S, S) float32 batches from the schedule's place in the epoch on."""
        at = self._schedule.at
        order = np.random.default_rng((self._seed, at.epochs_done)).permutation(self._data.train)
        used = order[: self.count * self._ranks * self._batch_size]
        batches = used.reshape(self.count, self._ranks, self._batch_size)[:, self._rank]
        for batch in _prefetched(self._data, list(batches[at.step_in_epoch :])):
            yield batch
            if self._schedule.at.stage_over:
                return

    def state_dict(self) -> dict[str, int]:
        """Tell Lightning that it can resume in mid-epoch: the schedule knows the place."""
        return {"step_in_epoch": self._schedule.at.step_in_epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Do nothing: the schedule has been restored already."""


class CountedTrainBatches(TrainBatches):
    """`TrainBatches` whose number is known beforehand, because no clock can end the epoch."""

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch."""
        return self.count


class HeldOutBatches(Iterable[Tensor]):
    """The held-out images in fixed order; every rank takes its own part, in equally many batches.

    Raises:
        DataError: There are fewer held-out images than ranks.
    """

    def __init__(self, data: DataSet, *, batch_size: int, rank: int, ranks: int) -> None:
        _check_enough(len(data.held_out), ranks, "held-out")
        self._data = data
        count = -(-len(data.held_out) // (batch_size * ranks))
        self._batches: Sequence[Rows] = np.array_split(data.held_out[rank::ranks], count)

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield (B, 1, S, S) float32 batches."""
        return _prefetched(self._data, self._batches)


def _prefetched(data: DataSet, batches: Sequence[Rows]) -> Iterator[Tensor]:
    """Assemble each batch in a thread while the one before it is computed on."""
    with ThreadPoolExecutor(1) as pool:
        pending = [pool.submit(images_from_rows, data, rows) for rows in batches[:1]]
        for rows in batches[1:]:
            ready = pending.pop().result()
            pending.append(pool.submit(images_from_rows, data, rows))
            yield ready
        for last in pending:
            yield last.result()


def _check_enough(count: int, ranks: int, what: str) -> None:
    if count < ranks:
        raise DataError(
            f"{count} {what} images for {ranks} devices: give more images or fewer --devices"
        )
