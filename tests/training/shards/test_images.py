from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.core.errors import DataError
from motorvae.training.dataset import DataSet
from motorvae.training.loop.batches import HeldOutBatches, TrainBatches
from motorvae.training.loop.schedule import Plan, Schedule
from motorvae.training.options import TrainOptions
from motorvae.training.shards.images import ShardImages

from .conftest import Prepare
from .packing import SIDE, mixed_windows, pack, picture


@pytest.fixture
def data(prepare: Prepare, shards: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    mixed_windows(monkeypatch)
    found, _ = prepare(shards)
    return found


def _schedule(data: DataSet, ranks: int = 1) -> Schedule:
    options = TrainOptions(batch_size=8 // ranks, seed=3)
    return Schedule(Plan(options, len(data.train), len(data.held_out), ranks))


def _steps(data: DataSet, ranks: int = 1, start: int = 0, epoch: int = 1) -> list[bytes]:
    """The bytes of each step's images, over all ranks."""
    parts = []
    for rank in range(ranks):
        schedule = _schedule(data, ranks)
        schedule.at.epochs_done, schedule.at.step_in_epoch = epoch, start
        parts.append([batch.numpy() for batch in TrainBatches(data, schedule, rank)])
    return [np.concatenate(step).tobytes() for step in zip(*parts, strict=True)]


def _known(data: DataSet) -> dict[str, int]:
    return {_digest(image.tobytes()): row for row, image in enumerate(data.batch(np.arange(48)))}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _rows(known: dict[str, int], steps: list[bytes]) -> list[int]:
    """Which images steps had."""
    size, whole = 4 * SIDE * SIDE, b"".join(steps)
    return [known[_digest(whole[i : i + size])] for i in range(0, len(whole), size)]


def test_an_epoch_has_each_training_image_once_in_mixed_order(data: DataSet) -> None:
    known = _known(data)
    rows = _rows(known, _steps(data))
    assert sorted(rows) == data.train.tolist()
    assert rows != data.train.tolist()
    assert rows != _rows(known, _steps(data, epoch=2))
    held_out = HeldOutBatches(data, _schedule(data).plan, 0)
    found = _rows(known, [batch.numpy().tobytes() for batch in held_out])
    assert found == sorted(data.held_out.tolist())


def test_a_step_is_the_same_on_other_ranks_and_after_a_stop(data: DataSet) -> None:
    whole = _steps(data)
    assert len(whole) == 5
    assert _steps(data, ranks=2) == whole
    assert _steps(data, ranks=4) == whole
    for start in range(5):
        assert _steps(data, start=start) == whole[start:]
    assert _steps(data, ranks=2, start=2) == whole[2:]


def test_images_are_indexed_as_an_array_is(data: DataSet) -> None:
    images = data.images[:]
    assert images.shape == data.images.shape == (48, 32, 32)
    np.testing.assert_array_equal(data.images[5], images[5])
    np.testing.assert_array_equal(data.images[np.array([9, 2, 9])], images[[9, 2, 9]])
    np.testing.assert_array_equal(data.images[4:9:2], images[4:9:2])
    np.testing.assert_array_equal(np.stack([*data.each(data.train)]), images[data.train])
    assert data.images[np.array([], np.int64)].shape == (0, 32, 32)


@pytest.mark.parametrize("how", ["deleted", "another", "cut short", "no file"])
def test_others_take_the_place_of_what_is_lost_and_that_is_counted(
    prepare: Prepare, shards: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed_windows(monkeypatch)
    data, lines = prepare(shards)
    lines.clear()
    known = _known(data)
    gone = shards / "train-002.tar"
    content = gone.read_bytes()
    gone.unlink()
    if how == "another":
        pack(gone, {f"{row:04d}.png": picture(50 + row) for row in range(12, 18)})
    elif how == "cut short":
        gone.write_bytes(content[:700])
    elif how == "no file":
        gone.mkdir()
    lost = set(range(12, 18))
    steps = _steps(data)
    left = [row for row in data.train.tolist() if row not in lost]
    rows = _rows(known, steps)
    assert set(rows) == set(left)  # none of the other side, and all that is left
    assert len(rows) == len(data.train)
    assert data.replaced == len(data.train) - len(left) > 0
    (line,) = lines
    assert line.startswith(f"{gone} cannot be read any more (")
    # They are the same on other ranks, and once again.
    assert _steps(data, ranks=2) == steps
    assert _steps(data) == steps
    assert data.replaced == 3 * (len(data.train) - len(left))
    assert len(lines) == 1


def test_a_shard_that_is_back_is_read_again(data: DataSet, shards: Path, tmp_path: Path) -> None:
    steps = _steps(data)
    (shards / "train-002.tar").rename(tmp_path / "kept")
    assert _steps(data) != steps
    (tmp_path / "kept").rename(shards / "train-002.tar")
    assert _steps(data) == steps


def test_only_where_nothing_is_left_a_run_ends(data: DataSet, shards: Path) -> None:
    """What replaces a batch of which nothing is left is of its own side of the split, too."""
    known, train = _known(data), set(data.train.tolist())
    # A shard that begins with a held-out image.
    number = next(one for one in range(8) if 6 * one not in train and 6 * one + 1 in train)
    kept = shards / f"train-{number:03d}.tar"
    left = set(range(6 * number, 6 * number + 6))
    assert any(not left & {*_rows(known, [step])} for step in _steps(data))
    for path in shards.iterdir():
        if path != kept:
            path.unlink()
    assert set(_rows(known, _steps(data))) == left & train
    kept.unlink()
    with pytest.raises(DataError, match="no image of the 8 shards can be read any more"):
        _steps(data)


def test_more_shards_than_stay_open(prepare: Prepare, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for row in range(80):
        pack(folder / f"{row}.tar", {"a.png": picture(row % 20)})
    data, _ = prepare(folder)
    assert isinstance(data.images, ShardImages)
    assert len(data.images[:]) == 80
    assert len(data.images._files._opened) == 64
