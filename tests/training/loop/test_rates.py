from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from motorvae.training.loop.rates import kl_weight_at, learning_rate_at
from motorvae.training.loop.recipes import options_of_recipe
from motorvae.training.loop.schedule import Plan, Schedule
from motorvae.training.options import TrainOptions


def _rates(steps: int, **change: Any) -> list[float]:
    """The learning rate of every step of a run, whose second half is stage 2."""
    options = TrainOptions(learning_rate=1.0, **change)  # not used by a run, which refuses 1
    return [
        learning_rate_at(options, step / steps, stage=int(2 * step >= steps), first=1 / steps)
        for step in range(steps)
    ]


def _weights(steps: int, **change: Any) -> list[float]:
    options = TrainOptions(**change)
    return [
        kl_weight_at(options, step / steps, stage=int(2 * step >= steps)) for step in range(steps)
    ]


def test_stages_halve_the_rate_as_the_card_does() -> None:
    assert _rates(8) == [1] * 4 + [0.5] * 4
    assert _rates(8, lr_schedule="constant") == [1] * 8


def test_cosine_and_line_fall_to_zero_over_the_whole_run() -> None:
    assert _rates(4, lr_schedule="linear") == pytest.approx([1, 0.75, 0.5, 0.25])
    cosine = [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert _rates(4, lr_schedule="cosine") == pytest.approx(cosine)
    options = TrainOptions(learning_rate=0.1, lr_schedule="cosine")
    assert learning_rate_at(options, 1.0, stage=1, first=0.1) == 0


@pytest.mark.parametrize("schedule", ["stages", "constant", "cosine", "linear"])
def test_warmup_rises_from_above_zero_and_what_falls_falls_after_it(schedule: str) -> None:
    rates = _rates(10, lr_schedule=schedule, warmup=0.4)
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == pytest.approx(1)
    assert max(rates) <= 1
    after = _rates(6, lr_schedule=schedule)
    if schedule != "stages":
        assert rates[4:] == pytest.approx(after)
    else:
        assert rates[4:] == [1, *[0.5] * 5]


def test_the_kl_weight_is_the_stages_unless_a_schedule_moves_it() -> None:
    assert _weights(4) == [0.001, 0.001, 0.05, 0.05]
    assert _weights(4, betas=(0, 1), kl_schedule="linear") == [0, 0.25, 0.5, 0.75]
    assert _weights(5, betas=(0, 1), kl_schedule="linear", kl_span=(0.2, 0.6)) == pytest.approx(
        [0, 0, 0.5, 1, 1]
    )


def test_cycles_rise_in_their_first_half_and_start_again() -> None:
    weights = _weights(16, betas=(0, 1), kl_schedule="cyclical", kl_cycles=2)
    assert weights == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1] * 2)
    spanned = _weights(8, betas=(0, 1), kl_schedule="cyclical", kl_cycles=2, kl_span=(0, 1))
    assert spanned == pytest.approx([0, 0.25, 0.5, 0.75] * 2)
    last = TrainOptions(betas=(0, 1), kl_schedule="cyclical")
    assert kl_weight_at(last, 1.0, stage=1) == 1


def test_the_originals_later_schedule_is_what_its_code_says() -> None:
    """The formula of the original's `kld_weight_scheduler`, `linear`, with its defaults."""
    options = options_of_recipe("original-linear-kl")
    assert sum(options.epochs) == 100
    for epoch in range(100):
        progress = max(epoch - 28, 0) / (100 - 28)
        expected = 0.01 + progress * (0.5 - 0.01)
        stage = int(epoch >= 50)
        assert kl_weight_at(options, epoch / 100, stage=stage) == pytest.approx(expected)
        assert learning_rate_at(options, epoch / 100, stage=stage, first=0.001) == 1e-4


@pytest.mark.parametrize(
    ("change", "step", "elapsed_s", "share"),
    [
        ({"steps": 100}, 25, 1e6, 0.25),
        ({"steps": 100, "minutes": 1.0}, 25, 6.0, 0.25),
        ({"steps": 100, "minutes": 1.0}, 25, 45.0, 0.75),
        ({"steps": None, "minutes": 1.0, "epochs": (500, 500)}, 10, 30.0, 0.5),
        ({"steps": None, "epochs": (2, 2)}, 26, 0.0, 0.5),  # 13 steps an epoch of 100 images
        ({"steps": 100, "minutes": 1.0}, 25, 61.0, 1.0),
    ],
)
def test_the_share_is_the_larger_of_steps_and_minutes(
    options: TrainOptions, change: dict[str, Any], step: int, elapsed_s: float, share: float
) -> None:
    schedule = Schedule(Plan(replace(options, **change), train=100, held_out=10))
    schedule.at.step, schedule.at.elapsed_s = step, elapsed_s
    assert schedule.share == pytest.approx(share)
