from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from motorvae.runtime.core.errors import ConfigError
from motorvae.training.loop import module as module_module
from motorvae.training.loop.module import VAETraining
from motorvae.training.options import TrainOptions
from motorvae.training.train import options_to_resume, train

from ..runs import OnLoss, ctrl_c, rows_of, weights_of


def test_metrics_give_both_stages_apart(finished_run: Path) -> None:
    rows = rows_of(finished_run)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [(row["stage"], row["beta"], row["learning_rate"]) for row in rows] == [
        ("1", "0.001", "0.001"),
        ("1", "0.001", "0.001"),
        ("2", "0.05", "0.0005"),
        ("2", "0.05", "0.0005"),
    ]
    for row in rows:
        for side in ("train", "held_out"):
            parts = [float(row[f"{side}_{part}"]) for part in ("reconstruction", "kl", "total")]
            assert parts[2] == pytest.approx(parts[0] + float(row["beta"]) * parts[1])
        assert 0 <= int(row["active_units"]) <= 8
    losses = [float(row["train_reconstruction"]) for row in rows]
    assert losses[-1] < losses[0]


def test_second_stage_starts_a_fresh_adam(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, float]] = []
    ended = VAETraining.on_train_batch_end

    def watched(self: VAETraining, *args: Any) -> None:
        ended(self, *args)
        (optimizer,) = self.trainer.optimizers
        steps = {int(state["step"].item()) for state in optimizer.state.values()}
        (group,) = optimizer.param_groups
        seen.append((self.schedule.at.stage, *steps, group["lr"]))

    monkeypatch.setattr(VAETraining, "on_train_batch_end", watched)
    train(options)
    steps = len(seen) // 2
    assert seen == [(0, step + 1, 1e-3) for step in range(steps)] + [
        (1, step + 1, 5e-4) for step in range(steps)
    ]


def test_minutes_end_both_stages_and_resume_keeps_the_clock(
    options: TrainOptions, on_loss: OnLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = count()
    monkeypatch.setattr(module_module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    timed = replace(options, minutes=20 / 60, epochs=(300, 100))
    whole = train(replace(timed, name="timed"))
    on_loss(9, ctrl_c)
    stopped = train(replace(timed, name="stopped"))
    assert not stopped.finished
    resumed = train(options_to_resume(stopped.folder))
    assert resumed.finished
    for outcome in (whole, resumed):
        assert outcome.last is not None
        assert outcome.last.stage == 2
        assert 20 <= outcome.last.elapsed_s <= 23  # a batch under way, and the epoch's end
    assert rows_of(resumed.folder) == rows_of(whole.folder)
    assert weights_of(resumed.folder) == weights_of(whole.folder)
    first = [row for row in rows_of(whole.folder) if row["stage"] == "1"]
    assert 12 <= int(first[-1]["steps"]) <= 16  # three quarters of the time, less the epoch ends


def test_a_loss_that_is_no_number_ends_the_run(options: TrainOptions) -> None:
    with pytest.raises(ConfigError, match=r"not a number after epoch 1 with --learning-rate=0\.9"):
        train(replace(options, learning_rate=0.9, betas=(1e38, 1e38)))
