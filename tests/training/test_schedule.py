from __future__ import annotations

from dataclasses import replace

import pytest

from motorvae.training.options import TrainOptions
from motorvae.training.schedule import Schedule


def test_second_stage_takes_its_beta_and_half_the_rate(options: TrainOptions) -> None:
    schedule = Schedule(options)
    seen = []
    while not schedule.finished:
        boundary = schedule.begin_epoch()
        seen.append((schedule.at.stage, boundary, schedule.beta, schedule.learning_rate))
        schedule.end_epoch()
    assert seen == [
        (0, False, 0.001, 1e-3),
        (0, False, 0.001, 1e-3),
        (1, True, 0.05, 5e-4),
        (1, False, 0.05, 5e-4),
    ]


def test_minutes_are_split_in_proportion_to_epochs(options: TrainOptions) -> None:
    schedule = Schedule(replace(options, epochs=(3, 1), minutes=2.0))
    assert schedule.deadline_s == pytest.approx(90)
    schedule.at.elapsed_s = 89.9
    assert not schedule.out_of_time()
    schedule.at.elapsed_s = 90
    assert schedule.out_of_time()
    schedule.at.stage_over = True
    schedule.end_epoch()
    assert not schedule.finished
    assert schedule.begin_epoch()
    assert schedule.deadline_s == pytest.approx(120)
    assert not schedule.out_of_time()


def test_restored_schedule_is_the_saved_one(options: TrainOptions) -> None:
    schedule, other = Schedule(options), Schedule(options)
    schedule.begin_epoch()
    schedule.count_step()
    schedule.at.elapsed_s = 1.25
    other.restore(schedule.state())
    assert other.at == schedule.at
    assert other.at.step_in_epoch == 1
