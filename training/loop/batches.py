"""The batches of an epoch, for training and held out, in an order that (seed, epoch) decide."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..dataset import DataSet, Rows
from .schedule import Plan, Schedule


class Share(NamedTuple):
    """Which of a batch's images are a rank's: `size` from `begin` on, of the `whole` batch."""

    begin: int
    size: int
    whole: int


def share_of(images: int, batches: int, index: int, *, ranks: int, rank: int) -> Share:
    """Return a rank's share of one batch, of those that so many images are split into.

    The batches are of all ranks together and do not depend on their number; they and the shares
    differ by at most one image each, as `np.array_split` has it.
    """
    _, whole = _piece(images, batches, index)
    begin, size = _piece(whole, ranks, rank)
    return Share(begin, size, whole)


def _piece(length: int, pieces: int, index: int) -> tuple[int, int]:
    """Return where a piece of `np.array_split` begins, and how long it is."""
    least, longer = divmod(length, pieces)
    return index * least + min(index, longer), least + (index < longer)


class TrainBatches(Iterable[Tensor]):
    """The training images of one epoch, shuffled by (seed, epoch); every rank takes its own part.

    A step has the same images however many ranks share it.

    The iterator ends early once the schedule says that the stage is over. It has no length, as
    Lightning would ask for that only once, and time or steps can end any epoch.
    """

    def __init__(self, data: DataSet, schedule: Schedule, rank: int) -> None:
        self._data, self._schedule, self._rank = data, schedule, rank

    @property
    def left(self) -> int:
        """Batches that are left of the epoch, were no clock to end it; at least one."""
        at, steps = self._schedule.at, self._schedule.steps_left
        # One more closes an epoch under way even where a new goal is behind already.
        rest = max(self._schedule.plan.epoch_steps - at.step_in_epoch, 1)
        return rest if steps is None else min(rest, max(steps, 1))

    def __iter__(self) -> Iterator[Tensor]:
        """Yield (B, C, H, W) float32 batches from the schedule's position in the epoch on."""
        at, left, plan = self._schedule.at, self.left, self._schedule.plan
        first, images = self._schedule.next_batch, len(self._data.train)
        last = min(first + left, plan.epoch_batches)
        with self._data.epoch(plan.options.seed, at.epochs_done) as rows:
            whole = (rows(*_piece(images, plan.epoch_batches, i)) for i in range(first, last))
            for batch in _prefetched(self._data, whole, plan.ranks, self._rank):
                yield batch
                if self._schedule.at.stage_over:
                    return

    def state_dict(self) -> dict[str, int]:
        """Make Lightning resume in mid-epoch: the schedule knows the position."""
        return {"step_in_epoch": self._schedule.at.step_in_epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Do nothing: the schedule has been restored already."""


class HeldOutBatches(Iterable[Tensor]):
    """The held-out images in fixed order; every rank takes its part, in equally many batches."""

    def __init__(self, data: DataSet, plan: Plan, rank: int) -> None:
        self._data, self._plan, self._rank = data, plan, rank

    def __len__(self) -> int:
        """Return the number of batches."""
        return self._plan.held_out_batches

    def __iter__(self) -> Iterator[Tensor]:
        """Yield (B, C, H, W) float32 batches."""
        whole = np.array_split(self._data.validated, len(self))
        yield from _prefetched(self._data, whole, self._plan.ranks, self._rank)


def _prefetched(data: DataSet, batches: Iterable[Rows], ranks: int, rank: int) -> Iterator[Tensor]:
    """Assemble a rank's share of the next batches in threads while one is computed on."""

    def submitted(whole: Rows) -> Future[npt.NDArray[np.float32]]:
        return pool.submit(data.share, whole, *_piece(len(whole), ranks, rank))

    with ThreadPoolExecutor(data.readers) as pool:
        pending: deque[Future[npt.NDArray[np.float32]]] = deque()
        for whole in batches:
            pending.append(submitted(whole))
            if len(pending) > data.readers:
                yield torch.from_numpy(pending.popleft().result())
        while pending:
            yield torch.from_numpy(pending.popleft().result())
