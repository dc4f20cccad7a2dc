from __future__ import annotations

from dataclasses import replace

import pytest

from motorvae.training.loop.schedule import Schedule, steps_of_stages
from motorvae.training.options import TrainOptions


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
    other.restore(replace(schedule.at))
    assert other.at == schedule.at
    assert other.at.step_in_epoch == 1


@pytest.mark.parametrize(
    ("steps", "epochs", "expected"),
    [
        (1000, (100, 100), (500, 500)),
        (1000, (3, 1), (750, 250)),
        (2, (100, 1), (1, 1)),
        (2, (1, 100), (1, 1)),
        (7, (1, 1), (4, 3)),
    ],
)
def test_steps_are_split_in_proportion_to_epochs(
    steps: int, epochs: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert steps_of_stages(steps, epochs) == expected


def test_steps_end_both_stages_exactly_and_epochs_do_not(options: TrainOptions) -> None:
    schedule = Schedule(replace(options, epochs=(1, 1), steps=10))
    per_stage = [0, 0]
    while not schedule.finished:
        schedule.begin_epoch()
        for _ in range(2):
            if schedule.at.stage_over:
                break
            schedule.count_step()
            per_stage[schedule.at.stage] += 1
        schedule.end_epoch()
    assert per_stage == [5, 5]


def test_a_stage_that_time_cut_short_leaves_the_next_its_own_steps(options: TrainOptions) -> None:
    schedule = Schedule(replace(options, steps=10, minutes=2.0))
    schedule.count_step()
    schedule.at.stage_over = True
    schedule.end_epoch()
    assert schedule.begin_epoch()
    assert schedule.steps_left == 5


def test_a_restored_schedule_follows_the_new_goal(options: TrainOptions) -> None:
    schedule = Schedule(options)
    for _ in range(6):
        schedule.count_step()
    schedule.end_epoch()
    for change, over in (
        ({"epochs": (2, 2)}, False),
        ({"epochs": (1, 9)}, True),
        ({"steps": 12}, True),
        ({"steps": 14}, False),
        ({"minutes": 1e-9}, False),
    ):
        resumed = Schedule(replace(options, **change))  # type: ignore[arg-type]  # as above
        resumed.restore(replace(schedule.at))
        assert resumed.stage_finished is over, change


def test_to_finish_trains_no_further_than_to_the_end_of_an_epoch(options: TrainOptions) -> None:
    schedule = Schedule(options)
    schedule.count_step()
    finishing = Schedule(options, finish=True)
    finishing.restore(schedule.at)
    assert finishing.at.stage_over
    assert not finishing.finished
    finishing.end_epoch()
    assert finishing.finished
