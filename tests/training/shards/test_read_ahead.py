"""What is read, and when: asked of the real reader, whose reads are counted."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from motorvae.training.dataset import DataSet
from motorvae.training.shards.files import ShardFiles
from motorvae.training.shards.images import ShardImages
from motorvae.training.shards.index import RUN_BYTES, ShardIndex
from motorvae.training.shards.order import EpochOrder
from motorvae.training.shards.read_ahead import ReadAhead

from .conftest import Prepare
from .packing import mixed_windows, packed, picture


class _Noting(ShardFiles):
    """Notes what is read, and reads it."""

    def __init__(self, paths: list[str]) -> None:
        super().__init__(paths)
        self.read: list[tuple[int, int, int]] = []

    def content(self, shard: int, start: int, size: int) -> bytes:
        self.read.append((shard, start, start + size))
        return super().content(shard, start, size)


def _epoch_of(data: DataSet, window: int) -> tuple[ShardIndex, _Noting, EpochOrder]:
    """An epoch of a set, and its files, which note what is read of them."""
    assert isinstance(data.images, ShardImages)
    index = data.images.index
    files = _Noting([shard.path for shard in index.set.shards])
    return index, files, EpochOrder(index.train, index.starts, window, seed=1, epoch=0)


def test_runs_are_read_whole_before_they_are_needed(
    prepare: Prepare, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed_windows(monkeypatch)
    index, files, order = _epoch_of(prepare(shards)[0], 2)
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
    index, files, order = _epoch_of(prepare(shards)[0], 2)
    ahead = ReadAhead(index, files, order)
    for end in range(4, len(index.train) + 4, 4):
        ahead.reach(min(end, len(index.train)) - 1)
    ahead._pool.shutdown()
    spans = [run for run in range(len(index.starts) - 1) if np.diff(index.starts)[run]]
    assert len(files.read) == len(set(files.read)) == len(spans)


def _spaced(path: Path, pictures: int, between: int) -> None:
    """A shard with a large member after each picture, of which the disk holds nothing."""
    with path.open("wb") as file:
        for row in range(pictures):
            for name, data, size in (("png", picture(row), 0), ("lidar.bin", b"", between)):
                member = tarfile.TarInfo(f"{row}.{name}")
                member.size = len(data) or size
                file.write(member.tobuf() + data)
                file.seek(-file.tell() % 512 + (0 if data else size), os.SEEK_CUR)
        file.write(bytes(1024))


@pytest.mark.parametrize(
    ("pictures", "between", "more", "runs"),
    [(12, 950 << 20, 0, 1), (100, 300 << 10, 0, 1), (100, 100 << 10, 101 * 100 << 10, 3)],
)
def test_large_members_between_pictures_are_not_read(
    prepare: Prepare, tmp_path: Path, pictures: int, between: int, more: int, runs: int
) -> None:
    """Neither those of gigabytes, nor so many small ones at once that they are as much."""
    _spaced(tmp_path / "a.tar", pictures, between)
    packed(tmp_path, range(200, 206))
    index, files, order = _epoch_of(prepare(tmp_path)[0], 1)
    assert len(index.starts) - 1 == runs + 1
    ahead = ReadAhead(index, files, order)
    for position in range(len(index.train)):
        ahead.reach(position)
    ahead._pool.shutdown()
    assert max(end - start for _, start, end in files.read) <= RUN_BYTES
    read = {span for span in files.read if index.set.shards[span[0]].path.endswith("a.tar")}
    rows = index.members[index.train]
    wanted = rows[[index.set.shards[row].path.endswith("a.tar") for row in rows["shard"]]]
    assert sum(end - start for _, start, end in read) <= wanted["size"].sum() + more
    for _, start, _, size, _ in wanted.tolist():
        assert any(first <= start and start + size <= last for _, first, last in read)
