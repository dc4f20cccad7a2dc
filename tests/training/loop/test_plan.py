from __future__ import annotations

from dataclasses import replace

import pytest

from motorvae.training.loop.plan import Plan, duration
from motorvae.training.loop.schedule import Position
from motorvae.training.options import TrainOptions


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
    assert Plan(options, train=100, held_out=30).seconds(1.0) == pytest.approx(2 * (10 + 1))


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
    plan = Plan(options, train=1000, held_out=10)
    assert plan.progress(Position()) == start
    assert plan.progress(Position(step=100, epochs_done=1, elapsed_s=200.0)) == under_way


def test_a_step_that_was_timed_gives_the_first_estimate() -> None:
    options = TrainOptions(batch_size=10, epochs=(1, 1), minutes=5)
    plan = Plan(options, train=1000, held_out=0, step_s=1.0)
    assert plan.progress(Position()) == "epoch 1 of 2, 3.3 min left"
    assert replace(plan, step_s=2.0).progress(Position()) == "epoch 1, 5 min left (--minutes)"


def test_a_goal_that_is_behind_is_not_an_epoch_of_fewer() -> None:
    plan = Plan(TrainOptions(batch_size=10, epochs=(1, 1)), train=100, held_out=10)
    late = Position(step=45, epochs_done=4, elapsed_s=90.0)
    assert plan.progress(late) == "epoch 5 of 5, 1 s left"
    overdue = Plan(replace(plan.options, epochs=(90, 90), minutes=1.0), 100, 10)
    assert overdue.progress(late) == "epoch 5, 1 s left (--minutes)"
