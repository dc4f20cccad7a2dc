"""A run's folder: who makes it, what each epoch adds to it, and what completes it."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from rich.console import Console

from ..runtime.core.atomic_files import replaced_file
from ..runtime.core.documents import save_document
from ..runtime.core.errors import OutputError
from .checkpoint import (
    KEPT_NAME,
    LAST_LATENTS_NAME,
    LAST_WEIGHTS_NAME,
    LATENTS_NAME,
    WEIGHTS_NAME,
    KeptEpoch,
    KeptWeights,
    save_weights,
)
from .interrupt import RESUME_NAME
from .latent_statistics import latent_statistics, save_held_out, save_latents
from .learned import Floats, Learned, learned_from_reconstructions
from .loop.module import EpochRow, EpochWeights, Interrupted, VAETraining
from .loop.plots import save_loss, save_reconstructions
from .loop.progress import line_from_row
from .model.vae import weights_of
from .options import TrainOptions, resume_command

CACHE_NAME = "cache"
LATEST_NAME = "latest"
_METRICS_NAME = "metrics.csv"
_SHOWN_IMAGES = 8
_JUDGED_IMAGES = 256
_BATCH = 32


def new_run_folder(options: TrainOptions) -> Path:
    """Make the folder of a new run.

    Raises:
        OutputError: It exists already, or cannot be made.
    """
    name = options.name or dt.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = options.output / name
    latest = options.output / LATEST_NAME
    if latest.exists() and not latest.is_symlink():
        raise OutputError(f"{latest} is in the way of the link to the newest run: move it away")
    if options.name is not None and folder.exists():
        raise OutputError(
            f"{folder} exists: choose another --name, or go on with {resume_command(folder)}"
        )
    number = 1
    while folder.exists():
        number += 1
        folder = options.output / f"{name}-{number}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {error.strerror}; choose another") from error
    return folder


def remove_run_folder(folder: Path) -> None:
    """Remove a run that never began, and the folder of runs if nothing else is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def point_latest_at(folder: Path) -> None:
    """Let `latest` beside the run's folder lead to it, in one step."""
    try:
        with tempfile.TemporaryDirectory(prefix=".latest-", dir=folder.parent) as temporary:
            link = Path(temporary) / LATEST_NAME
            link.symlink_to(folder.name, target_is_directory=True)
            os.replace(link, folder.parent / LATEST_NAME)  # noqa: PTH105  # replaces the link itself
    except OSError as error:
        raise OutputError(
            f"cannot link {folder.parent / LATEST_NAME} to {folder.name}: {error.strerror}; "
            "choose an --output on a file system with links"
        ) from error


class RunFiles(Checkpoint):
    """After each epoch: a row in metrics.csv, at times a picture, and the resume file."""

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder, self._console = folder, console

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the epoch came to; Lightning calls this after the module's own hook."""
        assert isinstance(pl_module, VAETraining)  # noqa: S101  # for the type checker
        row, schedule = pl_module.history[-1], pl_module.schedule
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(asdict(row), step=row.epoch)
            save_metrics(self._folder, pl_module.history)
            # Epochs 1, 2, 5, 10, 20, 50, 100, ..., and the last of a stage.
            if str(row.epoch).rstrip("0") in {"1", "2", "5"} or schedule.stage_finished:
                name = f"epoch-{row.epoch:03d}.png"
                _reconstructed(self._folder, pl_module, name, _SHOWN_IMAGES)
            left = "" if schedule.finished else f"; {schedule.time_left()}"
            self._console.print(line_from_row(row) + left)
        trainer.save_checkpoint(self._folder / RESUME_NAME)
        if not schedule.finished and pl_module.wants_stop():
            raise Interrupted


@dataclass(frozen=True)
class Finished:
    """What a finished run keeps.

    Attributes:
        kept: Which epochs its weights are of.
        learned: What the best epoch's model has learned, by the held-out images.
        best: Weights of the best epoch.
    """

    kept: KeptWeights
    learned: Learned
    best: dict[str, torch.Tensor]


def finish_run(folder: Path, module: VAETraining) -> Finished:
    """Write all that only a finished run has but the file that says so; see `complete_run`.

    Afterwards the module has the weights of the best epoch. Each of the two files of weights has
    latent statistics of its own: those of other weights would call every image out of distribution.

    Raises:
        OutputError: The disk is full or cannot be written; the run can still be resumed.
    """
    model = module.model.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's stub lacks it
    last = EpochWeights(module.history[-1], weights_of(model))
    # A resume file of an earlier version has no best weights.
    best = module.best or last
    save_metrics(folder, module.history)
    save_loss(folder / "loss.png", module.history)
    save_held_out(folder, module.data)
    statistics = latent_statistics(model, module.data)
    save_latents(folder / LAST_LATENTS_NAME, statistics)
    if best.row.epoch != last.row.epoch:
        model.load_state_dict(best.weights)
        statistics = latent_statistics(model, module.data)
    save_latents(folder / LATENTS_NAME, statistics)
    learned = learned_from_reconstructions(
        *_reconstructed(folder, module, "best.png", _JUDGED_IMAGES)
    )
    kept = KeptWeights(best=_kept(best.row, WEIGHTS_NAME), last=_kept(last.row, LAST_WEIGHTS_NAME))
    save_document(folder / KEPT_NAME, kept, indent=2)
    save_weights(folder, last.weights, LAST_WEIGHTS_NAME)
    return Finished(kept, learned, best.weights)


def complete_run(folder: Path, finished: Finished) -> None:
    """Write the weights, by which a run counts as finished, and remove what it needed until then.

    Raises:
        OutputError: The disk is full or cannot be written; the run can still be resumed.
    """
    save_weights(folder, finished.best)
    (folder / RESUME_NAME).unlink(missing_ok=True)
    shutil.rmtree(folder / CACHE_NAME, ignore_errors=True)


def _kept(row: EpochRow, file: str) -> KeptEpoch:
    return KeptEpoch(
        file=file,
        epoch=row.epoch,
        stage=row.stage,
        steps=row.steps,
        train_total=row.train_total,
        held_out_total=row.held_out_total,
    )


def _reconstructed(
    folder: Path, module: VAETraining, picture: str, count: int
) -> tuple[npt.NDArray[np.uint8], Floats, Floats, Floats]:
    """Reconstruct the first held-out images, and write a picture of some of them.

    Returns:
        The images (N, S, S), their reconstructions (N, 1, S, S), mu and log_var (N, D).
    """
    rows = module.data.held_out[:count]
    parts = []
    training = module.model.training
    module.model.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            batch = module.data.batch(rows[start : start + _BATCH])
            output = module.model(batch.to(module.device))
            parts.append([tensor.float().cpu().numpy() for tensor in output])
    module.model.train(training)
    reconstruction, mu, log_var = (np.concatenate(column) for column in zip(*parts, strict=True))
    images = module.data.images[rows]
    save_reconstructions(
        folder / "reconstructions" / picture,
        images[:_SHOWN_IMAGES] / np.float32(255),
        reconstruction[:_SHOWN_IMAGES, 0],
    )
    return images, reconstruction, mu, log_var


def save_metrics(folder: Path, history: list[EpochRow]) -> None:
    """Write `metrics.csv` with one row an epoch, from the first on."""
    names = [field.name for field in fields(EpochRow)]
    with (
        replaced_file(folder / _METRICS_NAME) as path,
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in history)
