"""What is read, and when: asked of the real reader, whose reads are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motorvae.training.shards.files import ShardFiles
from motorvae.training.shards.images import ShardImages
from motorvae.training.shards.order import EpochOrder
from motorvae.training.shards.read_ahead import ReadAhead

from .conftest import Prepare
from .packing import mixed_windows


class _Noting(ShardFiles):
    """Notes what is read, and reads it."""

    def __init__(self, paths: list[str]) -> None:
        super().__init__(paths)
        self.read: list[tuple[int, int, int]] = []

    def content(self, shard: int, start: int, size: int) -> bytes:
        self.read.append((shard, start, start + size))
        return super().content(shard, start, size)


def test_runs_are_read_whole_before_they_are_needed(
    prepare: Prepare, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed_windows(monkeypatch)
    data, _ = prepare(shards)
    assert isinstance(data.images, ShardImages)
    index = data.images.index
    files = _Noting([shard.path for shard in index.set.shards])
    order = EpochOrder(index.train, index.starts, 2, seed=1, epoch=0)
    assert len(order.windows) > 4
    rows = order.rows(0, len(index.train))
    for position in range(len(rows)):  # each as where a run is resumed
        files.read.clear()
        ahead = ReadAhead(index, files, order)
        ahead.reach(position)
        ahead._pool.shutdown()  # once all is read
        number, _ = order.window_at(position)
        assert len(files.read) <= len(np.concatenate(order.windows[number : number + 2]))
        _, start, _, size, shard = index.members[rows[position]].item()
        assert any(
            one == shard and first <= start and start + size <= last
            for one, first, last in files.read
        )


def test_an_epoch_reads_each_run_once(
    prepare: Prepare, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed_windows(monkeypatch)
    data, _ = prepare(shards)
    assert isinstance(data.images, ShardImages)
    index = data.images.index
    files = _Noting([shard.path for shard in index.set.shards])
    order = EpochOrder(index.train, index.starts, 2, seed=1, epoch=0)
    ahead = ReadAhead(index, files, order)
    for end in range(4, len(index.train) + 4, 4):
        ahead.reach(min(end, len(index.train)) - 1)
    ahead._pool.shutdown()
    spans = [run for run in range(len(index.starts) - 1) if np.diff(index.starts)[run]]
    assert len(files.read) == len(set(files.read)) == len(spans)
