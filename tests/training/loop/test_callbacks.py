from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from rich.console import Console

from motorvae.training.loop.callbacks import EpochReport
from motorvae.training.options import TrainOptions
from motorvae.training.train import train


def test_each_line_but_the_last_says_how_long_training_still_takes(
    options: TrainOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    train(options)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch ")]
    left = [re.search(r", \d+ s(; \S+ (?:s|min) left)?$", line) for line in lines]
    assert [found is not None and found[1] is not None for found in left] == [True] * 3 + [False]


def test_the_bar_says_epoch_time_left_and_loss(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100)
    opened = EpochReport.__init__

    def on_a_terminal(self: EpochReport, folder: Path, _console: Console) -> None:
        opened(self, folder, terminal)

    monkeypatch.setattr(EpochReport, "__init__", on_a_terminal)
    shown: list[str] = []
    moved = EpochReport.on_train_batch_end

    def watched(self: EpochReport, trainer: Trainer, *args: object) -> None:
        moved(self, trainer, *args)  # type: ignore[arg-type]  # as Lightning gives them
        assert self._bar is not None
        shown.append(self._bar.tasks[0].description)

    monkeypatch.setattr(EpochReport, "on_train_batch_end", watched)
    train(options)
    pattern = r"epoch [1-4] of 4, \d+(\.\d)? (s|min) left: loss [\d.e+]+, KL [\d.e+-]+"
    assert shown
    assert [text for text in shown if not re.fullmatch(pattern, text)] == []


def test_where_no_bar_is_shown_no_step_waits_for_its_loss(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read a loss waits until a GPU has computed it, and the next step is not begun."""
    asked: list[int] = []
    read = Trainer.progress_bar_metrics.fget  # type: ignore[attr-defined]  # a property

    def noted(self: Trainer) -> object:
        asked.append(self.global_step)
        return read(self)

    monkeypatch.setattr(Trainer, "progress_bar_metrics", property(noted))
    assert train(options).finished
    assert asked == []
