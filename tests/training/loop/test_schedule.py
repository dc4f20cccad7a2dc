from __future__ import annotations

from dataclasses import replace

import pytest

from motorvae.training.loop.schedule import (
    Plan,
    Position,
    Schedule,
    duration,
    steps_of_stages,
)
from motorvae.training.options import TrainOptions


def _schedule(options: TrainOptions, *, finish: bool = False) -> Schedule:
    return Schedule(Plan(options, train=100, held_out=10), finish=finish)


def test_second_stage_takes_its_beta_and_half_the_rate(options: TrainOptions) -> None:
    schedule = _schedule(options)
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
    schedule = _schedule(replace(options, epochs=(3, 1), minutes=2.0))
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
    schedule, other = _schedule(options), _schedule(options)
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
    schedule = _schedule(replace(options, epochs=(1, 1), steps=10))
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
    schedule = _schedule(replace(options, steps=10, minutes=2.0))
    schedule.count_step()
    schedule.at.stage_over = True
    schedule.end_epoch()
    assert schedule.begin_epoch()
    assert schedule.steps_left == 5


def test_a_restored_schedule_follows_the_new_goal(options: TrainOptions) -> None:
    schedule = _schedule(options)
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
        resumed = _schedule(replace(options, **change))  # type: ignore[arg-type]  # as above
        resumed.restore(replace(schedule.at))
        assert resumed.stage_finished is over, change


def test_to_finish_trains_no_further_than_to_the_end_of_an_epoch(options: TrainOptions) -> None:
    schedule = _schedule(options)
    schedule.count_step()
    finishing = _schedule(options, finish=True)
    finishing.restore(schedule.at)
    assert finishing.at.stage_over
    assert not finishing.finished
    finishing.end_epoch()
    assert finishing.finished


@pytest.mark.parametrize(
    ("images", "ranks", "size"),
    [(7200, 1, 64), (1024, 1, 64), (1023, 1, 32), (180, 1, 8), (180, 2, 4), (20, 1, 4), (2, 1, 4)],
)
def test_small_sets_get_a_smaller_power_of_two(images: int, ranks: int, size: int) -> None:
    plan = Plan(TrainOptions(), images, 1, ranks)
    assert plan.batch_size == size
    if size > 4:
        assert plan.epoch_steps >= 16


def _announced(plan: Plan, *, asked: int | None = 1, done: int = 0) -> str:
    return plan.announcement(asked=asked, done=done, resumed=False)


def test_the_bare_command_says_that_it_will_take_hours() -> None:
    plan = Plan(TrainOptions(), train=7200, held_out=800, step_s=1.9)
    assert _announced(plan, asked=None) == (
        "22600 steps in 100 + 100 epochs of 113; batch size 64, as in the model card; "
        "about 12 hours on this machine"
    )


def test_a_small_batch_says_why() -> None:
    plan = Plan(TrainOptions(batch_size=8), train=180, held_out=20)
    assert "; batch size 8, as the model card's 64 would make only 3 steps an epoch of so few " in (
        _announced(plan, asked=None)
    )
    assert "; batch size 8, as asked for" in _announced(plan, asked=8)
    few = Plan(TrainOptions(batch_size=4), train=3, held_out=1)
    assert "; batch size 4, as there are so few images" in _announced(few, asked=None)
    resumed = few.announcement(asked=4, done=1, resumed=True)
    assert resumed == (
        "200 steps in 100 + 100 epochs of 1, 1 made already; batch size 4, as the run was started"
    )


def test_time_follows_the_goal() -> None:
    options = TrainOptions(batch_size=10, steps=600, minutes=2)
    plan = Plan(options, train=100, held_out=0, step_s=0.1)
    assert _announced(plan) == (
        "600 steps, 10 in an epoch; batch size 10, as asked for; about 60 s on this machine, "
        "2 min at most"
    )
    assert _announced(plan, done=300).endswith("about 30 s on this machine, 2 min at most")
    assert _announced(replace(plan, step_s=0.4)).endswith(
        "; --minutes 2 will end it after about 300 steps on this machine"
    )
    assert _announced(replace(plan, step_s=None)).endswith("; at most 2 min in all (--minutes)")
    untimed = Plan(replace(options, minutes=None), train=100, held_out=0)
    assert _announced(untimed).endswith("batch size 10, as asked for")


def test_held_out_images_cost_a_third_of_trained_ones() -> None:
    options = TrainOptions(batch_size=10, epochs=(1, 1))
    plan = Plan(options, train=100, held_out=30, step_s=1.0)
    assert plan.seconds() == pytest.approx(2 * (10 + 1))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.1, "1 s"), (89, "89 s"), (150, "2.5 min"), (3600, "60 min"), (43100, "12 hours")],
)
def test_durations_have_two_figures(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("goal", "start", "under_way"),
    [
        ({"epochs": (3, 2)}, "epoch 1 of 5", "epoch 2 of 5, 13 min left"),
        # 167 and 83 steps: the last epoch of each stage is cut short.
        ({"steps": 250, "epochs": (2, 1)}, "epoch 1 of 3", "epoch 2 of 3, 5 min left"),
        (
            {"minutes": 60.0, "epochs": (3, 2)},
            "epoch 1, 60 min left (--minutes)",
            "epoch 2 of 5, 13 min left",
        ),
        ({"minutes": 5.0}, "epoch 1, 5 min left (--minutes)", "epoch 2, 1.7 min left (--minutes)"),
    ],
)
def test_progress_says_when_training_is_done(
    goal: dict[str, object], start: str, under_way: str
) -> None:
    """Of a run that --minutes will cut, the number of epochs is not known, so none is given."""
    options = replace(TrainOptions(batch_size=10), **goal)  # type: ignore[arg-type]  # mixed
    schedule = Schedule(Plan(options, train=1000, held_out=10))
    assert schedule.progress() == start
    schedule.at = Position(step=100, epochs_done=1, elapsed_s=200.0)
    assert schedule.progress() == under_way


def test_a_step_that_was_timed_gives_the_first_estimate() -> None:
    options = TrainOptions(batch_size=10, epochs=(1, 1), minutes=5)
    plan = Plan(options, train=1000, held_out=0, step_s=1.0)
    assert Schedule(plan).progress() == "epoch 1 of 2, 3.3 min left"
    assert Schedule(replace(plan, step_s=2.0)).progress() == "epoch 1, 5 min left (--minutes)"
    assert Schedule(plan, finish=True).progress() == "epoch 1"


def test_a_goal_that_is_behind_is_not_an_epoch_of_fewer() -> None:
    plan = Plan(TrainOptions(batch_size=10, epochs=(1, 1)), train=100, held_out=10)
    overdue = Plan(replace(plan.options, epochs=(90, 90), minutes=1.0), 100, 10)
    for one, said in ((plan, "epoch 5 of 5, 1 s left"), (overdue, "epoch 5, 1 s left (--minutes)")):
        schedule = Schedule(one)
        schedule.at = Position(step=45, epochs_done=4, elapsed_s=90.0)
        assert schedule.progress() == said


def test_a_limit_of_steps_is_said_beside_what_all_images_take() -> None:
    options = TrainOptions(batch_size=10, epochs=(1, 2), limit_steps=4)
    plan = Plan(options, train=100, held_out=10)
    assert (plan.epoch_steps, plan.epoch_batches, plan.steps) == (4, 10, 12)
    line = plan.announcement(asked=10, done=0, resumed=False)
    assert "12 steps in 1 + 2 epochs of 4, instead of 10 for all images (--limit-steps)" in line
    larger = Plan(replace(options, limit_steps=40), train=100, held_out=10)
    assert (larger.epoch_steps, larger.steps) == (10, 30)
    assert "limit" not in larger.announcement(asked=10, done=0, resumed=False)
