from __future__ import annotations

from dataclasses import replace

import pytest

from motorvae.training.loop.schedule import Position
from motorvae.training.options import TrainOptions
from motorvae.training.plan import Plan, batch_size_for, duration


@pytest.mark.parametrize(
    ("images", "ranks", "size"),
    [(7200, 1, 64), (1024, 1, 64), (1023, 1, 32), (180, 1, 8), (180, 2, 4), (20, 1, 4), (2, 1, 4)],
)
def test_small_sets_get_a_smaller_power_of_two(images: int, ranks: int, size: int) -> None:
    assert batch_size_for(images, ranks) == size
    if size > 4:
        assert Plan(TrainOptions(batch_size=size), images, 1, ranks).epoch_steps >= 16


def test_the_bare_command_says_that_it_will_take_hours() -> None:
    plan = Plan(TrainOptions(batch_size=64), train=7200, held_out=800)
    assert plan.line(reason=plan.reason_of_batch_size(given=False), step_s=1.9) == (
        "22600 steps in 100 + 100 epochs of 113; batch size 64, as in the model card; "
        "about 12 hours on this machine"
    )


def test_a_small_batch_says_why() -> None:
    plan = Plan(TrainOptions(batch_size=8), train=180, held_out=20)
    assert plan.reason_of_batch_size(given=False) == (
        "as the model card's 64 would make only 3 steps an epoch of so few images"
    )
    assert plan.reason_of_batch_size(given=True) == "as asked for"
    few = Plan(TrainOptions(batch_size=4), train=3, held_out=1)
    assert few.reason_of_batch_size(given=False) == "as there are so few images"


def test_time_follows_the_goal() -> None:
    options = TrainOptions(batch_size=10, steps=600, minutes=2)
    plan = Plan(options, train=100, held_out=0)
    assert plan.line(reason="r", step_s=0.1) == (
        "600 steps, 10 in an epoch; batch size 10, r; about 60 s on this machine, 2 min at most"
    )
    assert plan.line(reason="r", step_s=0.1, done=300).endswith(
        "about 30 s on this machine, 2 min at most"
    )
    assert plan.line(reason="r", step_s=0.4).endswith(
        "; --minutes 2 will end it after about 300 steps on this machine"
    )
    untimed = Plan(replace(options, minutes=None), train=100, held_out=0)
    assert untimed.line(reason="r", step_s=None).endswith("batch size 10, r")


def test_held_out_images_cost_a_third_of_trained_ones() -> None:
    options = TrainOptions(batch_size=10, epochs=(1, 1))
    assert Plan(options, train=100, held_out=30).seconds(1.0) == pytest.approx(2 * (10 + 1))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.1, "1 s"), (89, "89 s"), (150, "2.5 min"), (3600, "60 min"), (43100, "12 hours")],
)
def test_durations_have_two_figures(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_the_goal_says_epochs_and_time_left_under_a_budget_too() -> None:
    at = Position(step=100, elapsed_s=200.0)
    by_epochs = Plan(TrainOptions(batch_size=10, epochs=(3, 2)), train=1000, held_out=10)
    assert by_epochs.goal(Position()) == "of 5"
    assert by_epochs.goal(at) == "of 5, 13 min left"
    by_steps = Plan(TrainOptions(batch_size=10, steps=250), train=1000, held_out=10)
    assert by_steps.goal(at) == "of about 3, 5 min left"
    by_time = Plan(TrainOptions(batch_size=10, minutes=5.0), train=1000, held_out=10)
    assert by_time.goal(at) == "of about 2, 1.7 min left"
    over = Position(step=100, elapsed_s=400.0)
    assert by_time.goal(over) == "of about 1, 1 s left"
