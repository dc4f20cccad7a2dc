"""Batches straight from the mapped array, and how many of them an epoch has."""

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
        return prefetched(self._data, self._batches)


def prefetched(data: DataSet, batches: Sequence[Rows]) -> Iterator[Tensor]:
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
