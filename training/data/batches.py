"""Batches straight from the mapped array: order by (seed, epoch), resumable in mid-epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...runtime.core.errors import DataError
from ...runtime.core.spec import ModelSpec
from ...runtime.pixels.convert import input_from_luma
from ..loop.schedule import Schedule
from .dataset import DataSet

Rows = npt.NDArray[np.int64]


def images_from_rows(data: DataSet, rows: Rows) -> Tensor:
    """Return those images as (N, 1, S, S) float32 in [0, 1], through the runtime's scaling."""
    return torch.from_numpy(input_from_luma(data.images[rows])).unsqueeze(1)


def least_batch(spec: ModelSpec) -> int:
    """Return the fewest images that give batch norm more than one value a channel."""
    return 2 if spec.feature_size == 1 else 1


def batch_count(images: int, *, batch_size: int, ranks: int, least: int = 1) -> int:
    """Return in how many batches every rank goes through an epoch's images.

    All images are used, in batches that differ by at most one image, so none is a small rest
    whose batch norm statistics are mostly noise. No batch is larger than asked for, unless that
    would leave one below `least`.
    """
    return max(1, min(-(-images // (batch_size * ranks)), images // (least * ranks)))


class TrainBatches(Iterable[Tensor]):
    """The training images of one epoch, shuffled; every rank takes its own part.

    The iterator ends early once the schedule says that the stage is over. It has no length, as
    Lightning would ask for that only once, and time or steps can end any epoch.

    Args:
        data: The images.
        schedule: Where in its epochs and stages the run is.
        batch_size: Images of a batch, at most; see `batch_count`.
        seed: Of the order.
        rank: This process among `ranks`.
        ranks: Number of processes.
        least: Fewest images that batch norm can work with.

    Raises:
        DataError: There are fewer training images than `least` for each rank.
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
        least: int = 1,
    ) -> None:
        check_enough(len(data.train), ranks, "training", least)
        self._data, self._schedule, self._seed = data, schedule, seed
        self._rank, self._ranks = rank, ranks
        self.count = batch_count(len(data.train), batch_size=batch_size, ranks=ranks, least=least)

    @property
    def left(self) -> int:
        """Batches that are left of the epoch, were no clock to end it; at least one."""
        at, steps = self._schedule.at, self._schedule.steps_left
        # One more closes an epoch under way even where a new goal is behind already.
        rest = max(self.count - at.step_in_epoch, 1)
        return rest if steps is None else min(rest, max(steps, 1))

    def __iter__(self) -> Iterator[Tensor]:
        """Yield (B, 1, S, S) float32 batches from the schedule's place in the epoch on."""
        at, left = self._schedule.at, self.left
        order = np.random.default_rng((self._seed, at.epochs_done)).permutation(self._data.train)
        batches = np.array_split(order, self.count * self._ranks)[self._rank :: self._ranks]
        start = min(at.step_in_epoch, self.count - 1)
        for batch in _prefetched(self._data, batches[start : start + left]):
            yield batch
            if self._schedule.at.stage_over:
                return

    def state_dict(self) -> dict[str, int]:
        """Tell Lightning that it can resume in mid-epoch: the schedule knows the place."""
        return {"step_in_epoch": self._schedule.at.step_in_epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Do nothing: the schedule has been restored already."""


class HeldOutBatches(Iterable[Tensor]):
    """The held-out images in fixed order; every rank takes its own part, in equally many batches.

    Raises:
        DataError: There are fewer held-out images than ranks.
    """

    def __init__(self, data: DataSet, *, batch_size: int, rank: int, ranks: int) -> None:
        check_enough(len(data.held_out), ranks, "held-out")
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


def check_enough(count: int, ranks: int, what: str, least: int = 1) -> None:
    """Refuse to train where some device would get no batch.

    Raises:
        DataError: There are too few images.
    """
    if count >= ranks * least:
        return
    devices = "1 device needs" if ranks == 1 else f"{ranks} devices need"
    why = ", for batch norm" if least > 1 else ""
    raise DataError(
        f"{count} {what} image{'' if count == 1 else 's'}, and {devices} at least "
        f"{ranks * least}{why}: give more images{' or fewer --devices' if ranks > 1 else ''}"
    )
