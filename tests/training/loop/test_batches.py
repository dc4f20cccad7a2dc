from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch

from motorvae.runtime.core.errors import DataError
from motorvae.training.dataset import DataSet
from motorvae.training.loop.batches import (
    HeldOutBatches,
    TrainBatches,
    input_of_batch,
    is_raw,
    share_of,
)
from motorvae.training.loop.schedule import Plan, Position, Schedule
from motorvae.training.options import TrainOptions


def _data(train: int, held_out: int = 4) -> DataSet:
    count = train + held_out
    images = np.arange(count, dtype=np.uint8).repeat(4).reshape(count, 2, 2)
    rows = np.arange(count)
    return DataSet(images, [str(row) for row in rows], rows[:train], rows[train:], 0)


def _batches(data: DataSet, options: TrainOptions, **sizes: int) -> TrainBatches:
    return TrainBatches(data, _schedule(data, options, **sizes), sizes.get("rank", 0))


def _schedule(data: DataSet, options: TrainOptions, **sizes: int) -> Schedule:
    """The schedule of batches of 5 images, on one device, unless `sizes` says otherwise."""
    chosen = {name: sizes[name] for name in ("batch_size", "seed") if name in sizes}
    options = replace(options, **{"batch_size": 5, **chosen})  # type: ignore[arg-type]  # both int
    ranks, least = sizes.get("ranks", 1), sizes.get("least", 1)
    plan = Plan(options, len(data.train), len(data.held_out), ranks, least)
    plan.check()
    return Schedule(plan)


def _rows(batch: torch.Tensor) -> list[int]:
    return [round(value * 255) for value in batch[:, 0, 0, 0].tolist()]


def test_batches_are_scaled_images_and_each_is_used_once(options: TrainOptions) -> None:
    batches = _batches(_data(22), options, batch_size=5)
    seen = list(batches)
    assert [len(batch) for batch in seen] == [5, 5, 4, 4, 4]
    assert batches.left == 5
    assert seen[0].shape == (5, 1, 2, 2)
    assert seen[0].dtype == torch.float32
    assert sorted(row for batch in seen for row in _rows(batch)) == list(range(22))


@pytest.mark.parametrize("images", [2, 3, 5, 9, 33, 65, 180])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 64])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("least", [1, 2])
def test_no_batch_is_too_small_for_batch_norm(
    images: int, batch_size: int, ranks: int, least: int, options: TrainOptions
) -> None:
    if images < ranks * least:
        with pytest.raises(DataError, match=rf"needs? at least {ranks * least}, for batch norm"):
            _batches(_data(images), options, batch_size=batch_size, ranks=ranks, least=least)
        return
    sizes_of = {"batch_size": batch_size, "ranks": ranks, "least": least}
    per_rank = [
        list(_batches(_data(images), options, rank=rank, **sizes_of)) for rank in range(ranks)
    ]
    sizes = [len(batch) for batches in per_rank for batch in batches]
    assert sum(sizes) == images
    assert min(sizes) >= least
    assert max(sizes) - min(sizes) <= 1
    # More than asked for only where there would be too few otherwise.
    assert max(sizes) <= max(batch_size, 2 * least)
    assert len({len(batches) for batches in per_rank}) == 1


def test_order_comes_from_seed_and_epoch(options: TrainOptions) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        schedule = _schedule(_data(20), options, seed=seed)
        schedule.at.epochs_done = epoch
        batches = TrainBatches(_data(20), schedule, 0)
        return [_rows(batch) for batch in batches]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_an_epoch_goes_on_where_it_was_left(options: TrainOptions) -> None:
    schedule = _schedule(_data(20), options)
    batches = TrainBatches(_data(20), schedule, 0)
    whole = [_rows(batch) for batch in batches]
    schedule.at.step_in_epoch = 3
    assert [_rows(batch) for batch in batches] == whole[3:]


def test_an_epoch_ends_when_the_stage_is_over(options: TrainOptions) -> None:
    schedule = _schedule(_data(20), options)
    batches = iter(TrainBatches(_data(20), schedule, 0))
    next(batches)
    schedule.at.stage_over = True
    assert list(batches) == []


def test_an_epoch_ends_exactly_where_the_steps_of_a_stage_are_made(options: TrainOptions) -> None:
    schedule = _schedule(_data(20), replace(options, steps=9, epochs=(2, 1)))
    batches = TrainBatches(_data(20), schedule, 0)
    made = []
    for _ in range(2):
        # All batches are fetched before the first is counted, as one that reads ahead does.
        fetched = list(batches)
        made.append(len(fetched))
        for _ in fetched:
            schedule.count_step()
        schedule.end_epoch()
    assert made == [4, 2]
    assert schedule.stage_finished


def test_a_goal_that_is_behind_leaves_one_batch_to_close_the_epoch(options: TrainOptions) -> None:
    schedule = _schedule(_data(20), replace(options, steps=4))
    schedule.restore(Position(step=3, step_in_epoch=3, stage_step=3))
    batches = TrainBatches(_data(20), schedule, 0)
    assert batches.left == len(list(batches)) == 1


def test_ranks_share_an_epoch_without_overlap(options: TrainOptions) -> None:
    data = _data(23, 7)
    train, held_out = (
        [[_rows(batch) for batch in batches] for batches in per_rank]
        for per_rank in (
            [
                _batches(data, options, batch_size=5, seed=1, rank=rank, ranks=2)
                for rank in range(2)
            ],
            [
                HeldOutBatches(data, _schedule(data, options, batch_size=3, ranks=2).plan, rank)
                for rank in range(2)
            ],
        )
    )
    assert len(train[0]) == len(train[1]) == 3
    assert sorted(chain(*train[0], *train[1])) == list(range(23))
    assert len(held_out[0]) == len(held_out[1]) == 2
    assert sorted(chain(*held_out[0], *held_out[1])) == list(range(23, 30))


@pytest.mark.parametrize(("images", "held_out"), [(22, 7), (40, 3), (33, 5), (12, 4)])
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_step_has_the_same_images_however_many_ranks_share_it(
    images: int, held_out: int, ranks: int, options: TrainOptions
) -> None:
    data = _data(images, held_out)
    one = _schedule(data, options, batch_size=4 * ranks, seed=3)
    many = _schedule(data, options, batch_size=4, seed=3, ranks=ranks)
    assert many.plan.step_size == one.plan.step_size
    for kind, count, batches in (
        ("train", images, one.plan.epoch_batches),
        ("held out", held_out, many.plan.held_out_batches),
    ):
        whole, *parts = (
            [
                _rows(batch)
                for batch in (
                    TrainBatches(data, schedule, rank)
                    if kind == "train"
                    else HeldOutBatches(data, schedule.plan, rank)
                )
            ]
            for schedule, rank in ((one, 0), *((many, rank) for rank in range(ranks)))
        )
        if kind == "train" or one.plan.held_out_batches == batches:
            assert [list(chain(*step)) for step in zip(*parts, strict=True)] == whole
        for rank, steps in enumerate(parts):
            for index, rows in enumerate(steps):
                part = share_of(count, batches, index, ranks=ranks, rank=rank)
                assert len(rows) == part.size > 0
                step = [row for one in parts for row in one[index]]
                assert rows == step[part.begin : part.begin + part.size]
                assert len(step) == part.whole


def test_a_run_keeps_its_batch_in_a_step_on_other_devices(options: TrainOptions) -> None:
    options = replace(options, batch_size=4)
    started = Plan(options, 23, 5, ranks=2)
    for ranks in (1, 3):
        resumed = Plan(options, 23, 5, ranks=ranks, started_on=2)
        resumed.check()
        assert (resumed.step_size, resumed.epoch_batches) == (8, started.epoch_batches) == (8, 3)
    with pytest.raises(DataError, match=r"has 7 images, as it was started on 2, and 8 devices"):
        Plan(options, 23, 8, ranks=8, started_on=2).check()


def test_a_batch_larger_than_the_data_takes_all_of_it(options: TrainOptions) -> None:
    batches = _batches(_data(3), options, batch_size=64, seed=1)
    assert [len(batch) for batch in batches] == [3]


def test_more_ranks_than_images_are_refused(options: TrainOptions) -> None:
    with pytest.raises(DataError, match="1 training image, and 2 devices need at least 2: give"):
        _batches(_data(1), options, ranks=2)
    with pytest.raises(DataError, match="1 held-out image, and 2 devices need at least 2: give"):
        _batches(_data(4, 1), options, ranks=2)


def test_a_gpu_gets_bytes_and_makes_of_them_what_others_get(options: TrainOptions) -> None:
    images = np.arange(256, dtype=np.uint8).repeat(4).reshape(256, 2, 2)  # every level
    data = DataSet(images, [str(row) for row in range(256)], np.arange(200), np.arange(200, 256), 0)
    gpu = torch.device("cuda", 1)
    assert is_raw(gpu)
    assert not is_raw(torch.device("cpu"))
    assert not is_raw(torch.device("mps"))
    schedules = [_schedule(data, options) for _ in range(2)]
    for sent, plain in (
        (TrainBatches(data, schedules[0], 0, gpu), TrainBatches(data, schedules[1], 0)),
        (
            HeldOutBatches(data, schedules[0].plan, 0, gpu),
            HeldOutBatches(data, schedules[1].plan, 0),
        ),
    ):
        count = 0
        for one, other in zip(sent, plain, strict=True):
            assert (one.dtype, other.dtype) == (torch.uint8, torch.float32)
            assert torch.equal(input_of_batch(one), other)
            assert input_of_batch(other) is other
            count += len(one)
        assert count in {200, 56}
