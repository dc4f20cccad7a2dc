"""The batches of training epochs: order by (seed, epoch), resumable in mid-epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from torch import Tensor

from ..data.batches import batch_count, check_enough, prefetched
from ..data.dataset import DataSet
from .schedule import Schedule


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
        for batch in prefetched(self._data, batches[start : start + left]):
            yield batch
            if self._schedule.at.stage_over:
                return

    def state_dict(self) -> dict[str, int]:
        """Tell Lightning that it can resume in mid-epoch: the schedule knows the place."""
        return {"step_in_epoch": self._schedule.at.step_in_epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Do nothing: the schedule has been restored already."""
