"""What a person sees while data is prepared and while the model trains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from .module import EpochRow, VAETraining
from .schedule import Position


@contextlib.contextmanager
def preparing(console: Console) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar while images are decoded; gives the function that moves it."""
    with _bar(console, TimeRemainingColumn()) as progress:
        task = progress.add_task("preparing images", total=None)

        def move(done: int, expected: int | None) -> None:
            progress.update(task, completed=done, total=expected)

        yield move


class EpochBar(ProgressBar):
    """Lightning's progress bar in rich: one bar for the epoch, one line for each that is over.

    Attributes:
        goal: Says how many epochs there will be and how long they take; see `Plan.goal`.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self.goal: Callable[[Position], str] = lambda _: ""
        self._shown = True
        self._progress: Progress | None = None

    def disable(self) -> None:
        """Show nothing; Lightning calls this on all ranks but the first."""
        self._shown = False

    def enable(self) -> None:
        """Show the bar again."""
        self._shown = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Open the epoch's bar."""
        if self._shown:
            self._close()
            self._progress = _bar(self._console)
            batches = trainer.train_dataloader
            self._progress.add_task(
                self._epoch(trainer, pl_module), total=getattr(batches, "left", None)
            )
            self._progress.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Move the bar and show the batch's loss."""
        if self._progress is not None:
            metrics = self.get_metrics(trainer, pl_module)
            losses = f"loss {metrics['reconstruction']:.5g}, KL {metrics['kl']:.4g}"
            self._progress.update(
                self._progress.task_ids[0],
                advance=1,
                description=f"{self._epoch(trainer, pl_module)}: {losses}",
            )

    def on_train_epoch_end(self, *_: Any) -> None:
        """Close the bar; the line about the epoch follows."""
        self._close()

    def on_exception(self, *_: Any) -> None:
        """Close the bar, so that the terminal is left as it was."""
        self._close()

    def _epoch(self, trainer: Trainer, module: LightningModule) -> str:
        assert isinstance(module, VAETraining)  # noqa: S101  # for the type checker
        return f"epoch {trainer.current_epoch + 1} {self.goal(module.schedule.at)}"

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def line_from_row(row: EpochRow) -> str:
    """Return what one epoch came to: training loss, and held-out loss in brackets."""
    return (
        f"epoch {row.epoch} stage {row.stage} beta {row.beta:g}: "
        f"reconstruction {row.train_reconstruction:.5g} "
        f"(held-out {row.held_out_reconstruction:.5g}), "
        f"KL {row.train_kl:.4g} ({row.held_out_kl:.4g}), "
        f"total {row.train_total:.5g} ({row.held_out_total:.5g}), "
        f"{row.active_units} active units, {row.elapsed_s:.0f} s"
    )


def _bar(console: Console, *more: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(12),
        MofNCompleteColumn(),
        *more,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
