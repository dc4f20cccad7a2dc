"""What each epoch shows and leaves: a bar, a line, a row, at times a picture, the resume file."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn

from .module import EpochRow, VAETraining
from .plots import SHOWN_IMAGES, save_metrics, save_reconstructions
from .resume_file import RESUME_NAME

_TEXT_S = 0.5


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


class EpochReport(Checkpoint):
    """Reports on the screen and in the run's folder; Lightning calls it after the module's hooks.

    Only the first rank shows and writes; all of them save the resume file together.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder, self._console = folder, console
        self._bar: Progress | None = None
        self._next_text_s = 0.0  # on the monotonic clock

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the epoch's bar."""
        self.on_exception()
        if trainer.is_global_zero:
            self._bar = progress_bar(self._console)
            batches = getattr(trainer.train_dataloader, "left", None)
            self._bar.add_task(_ours(pl_module).schedule.progress(), total=batches)
            self._bar.start()
            self._next_text_s = 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Move the bar, and now and then show the loss, for which a GPU must be waited for."""
        if self._bar is None or self._bar.disable:
            return
        if (now := time.monotonic()) < self._next_text_s:
            self._bar.advance(self._bar.task_ids[0])
        else:
            self._next_text_s = now + _TEXT_S
            metrics, epoch = trainer.progress_bar_metrics, _ours(pl_module).schedule.progress()
            losses = f"loss {metrics['reconstruction']:.5g}, KL {metrics['kl']:.4g}"
            self._bar.update(self._bar.task_ids[0], advance=1, description=f"{epoch}: {losses}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar and write what the epoch came to."""
        self.on_exception()
        module = _ours(pl_module)
        row, schedule = module.history[-1], module.schedule
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(asdict(row), step=row.epoch)
            save_metrics(self._folder, module.history)
            # Epochs 1, 2, 5, 10, 20, 50, 100, ..., and the last of a stage.
            if (
                str(row.epoch).rstrip("0") in {"1", "2", "5"}
                or schedule.stage_finished
                or schedule.finished
            ):
                name = f"epoch-{row.epoch:03d}.png"
                images, outputs = module.reconstructed(SHOWN_IMAGES)
                save_reconstructions(
                    self._folder, name, images, outputs.reconstruction, module.data.color
                )
            left = "" if schedule.finished else f"; {schedule.time_left()}"
            self._console.print(line_from_row(row) + left)
        trainer.save_checkpoint(self._folder / RESUME_NAME)
        if not schedule.finished:
            module.stop_if_asked(is_saved=True)

    def on_exception(self, *_: Any) -> None:
        """Close the bar, so that the terminal is left as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def line_from_row(row: EpochRow) -> str:
    """Return what one epoch came to: training loss, and held-out loss in brackets.

    What was minimised is said apart where it is not the total.
    """
    losses, totals = (row.train_loss, row.held_out_loss), (row.train_total, row.held_out_total)
    is_total = all(map(partial(math.isclose, rel_tol=1e-4), losses, totals))
    loss = "" if is_total else f"loss {row.train_loss:.5g} ({row.held_out_loss:.5g}), "
    return (
        f"epoch {row.epoch} stage {row.stage} beta {row.beta:g}: "
        f"reconstruction {row.train_reconstruction:.5g} "
        f"(held-out {row.held_out_reconstruction:.5g}), "
        f"KL {row.train_kl:.4g} ({row.held_out_kl:.4g}), "
        f"total {row.train_total:.5g} ({row.held_out_total:.5g}), {loss}"
        f"{row.active_units} active units, {row.elapsed_s:.0f} s"
    )


def _ours(module: LightningModule) -> VAETraining:
    assert isinstance(module, VAETraining)  # noqa: S101  # for the type checker
    return module
