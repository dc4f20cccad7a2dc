"""The batches of an epoch, for training and held out, in an order that (seed, epoch) decide."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..dataset import DataSet, Rows
from .schedule import Plan, Schedule

_CPU = torch.device("cpu")
_SCALE = float(np.float32(1 / 255))  # as `write_input` of the runtime has it


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
    Lightning would ask for that only once, and time or steps can end any epoch. See `is_raw` for
    `device`.
    """

    def __init__(
        self, data: DataSet, schedule: Schedule, rank: int, device: torch.device = _CPU
    ) -> None:
        self._data, self._schedule, self._rank, self._device = data, schedule, rank, device

    @property
    def left(self) -> int:
        """Batches that are left of the epoch, were no clock to end it; at least one."""
        at, steps = self._schedule.at, self._schedule.steps_left
        # One more closes an epoch under way even where a new goal is behind already.
        rest = max(self._schedule.plan.epoch_steps - at.step_in_epoch, 1)
        return rest if steps is None else min(rest, max(steps, 1))

    def __iter__(self) -> Iterator[Tensor]:
        """Yield batches (B, C, H, W) from the schedule's position in the epoch on."""
        at, left, plan = self._schedule.at, self.left, self._schedule.plan
        first, images = self._schedule.next_batch, len(self._data.train)
        last = min(first + left, plan.epoch_batches)
        with self._data.epoch(plan.options.seed, at.epochs_done) as rows:
            whole = (rows(*_piece(images, plan.epoch_batches, i)) for i in range(first, last))
            raw = is_raw(self._device)
            for batch in _prefetched(self._data, whole, plan.ranks, self._rank, raw):
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

    def __init__(self, data: DataSet, plan: Plan, rank: int, device: torch.device = _CPU) -> None:
        self._data, self._plan, self._rank, self._device = data, plan, rank, device

    def __len__(self) -> int:
        """Return the number of batches."""
        return self._plan.held_out_batches

    def __iter__(self) -> Iterator[Tensor]:
        """Yield batches (B, C, H, W)."""
        whole = np.array_split(self._data.validated, len(self))
        raw = is_raw(self._device)
        yield from _prefetched(self._data, whole, self._plan.ranks, self._rank, raw)


def is_raw(device: torch.device) -> bool:
    """Whether batches for a device are of bytes, not float32: a quarter to send over a GPU's bus.

    On a CPU nothing is sent, and the threads that assemble them make float32 as well.
    """
    return device.type == "cuda"


def input_of_batch(images: Tensor) -> Tensor:
    """Return a batch as float32 in [0, 1], also one of bytes, bit by bit as the runtime does."""
    return images * _SCALE if images.dtype == torch.uint8 else images


def _prefetched(
    data: DataSet, batches: Iterable[Rows], ranks: int, rank: int, raw: bool
) -> Iterator[Tensor]:
    """Assemble a rank's share of the next batches in threads while one is computed on."""
    assemble: Callable[..., npt.NDArray[Any]] = data.share_of_pixels if raw else data.share

    def submitted(whole: Rows) -> Future[npt.NDArray[Any]]:
        return pool.submit(assemble, whole, *_piece(len(whole), ranks, rank))

    with ThreadPoolExecutor(data.readers) as pool:
        pending: deque[Future[npt.NDArray[Any]]] = deque()
        for whole in batches:
            pending.append(submitted(whole))
            if len(pending) > data.readers:
                yield torch.from_numpy(pending.popleft().result())
        while pending:
            yield torch.from_numpy(pending.popleft().result())
