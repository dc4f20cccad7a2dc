"""What a person sees while data is prepared and while the model trains."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn

from .module import EpochRow, VAETraining


def progress_bar(console: Console, *more: ProgressColumn) -> Progress:
    """Return a bar that is shown on a terminal only, and gone when it is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(12),
        MofNCompleteColumn(),
        *more,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class EpochBar(Callback):
    """One bar for the epoch under way, with the loss of its last batch, on the first rank only."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the epoch's bar."""
        self._close()
        if trainer.is_global_zero:
            self._progress = progress_bar(self._console)
            batches = getattr(trainer.train_dataloader, "left", None)
            self._progress.add_task(_epoch(pl_module), total=batches)
            self._progress.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Move the bar and show the batch's loss."""
        if self._progress is not None:
            metrics = trainer.progress_bar_metrics
            losses = f"loss {metrics['reconstruction']:.5g}, KL {metrics['kl']:.4g}"
            self._progress.update(
                self._progress.task_ids[0],
                advance=1,
                description=f"{_epoch(pl_module)}: {losses}",
            )

    def on_train_epoch_end(self, *_: Any) -> None:
        """Close the bar; the line about the epoch follows."""
        self._close()

    def on_exception(self, *_: Any) -> None:
        """Close the bar, so that the terminal is left as it was."""
        self._close()

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


def _epoch(module: LightningModule) -> str:
    assert isinstance(module, VAETraining)  # noqa: S101  # for the type checker
    return module.schedule.progress()
