"""Batches, one step, one epoch: what Lightning's Trainer takes, computes and reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from ...runtime.core.errors import ConfigError
from ...runtime.core.spec import ModelSpec
from ..dataset import DataSet, Pixels, Rows
from ..model import Loss, MotorVAE, VAEOutput, active_units, sample_latent, vae_loss, weights_of
from .schedule import Plan, Position, Schedule

_TRAINING_NOISE, _HELD_OUT_NOISE = 0, 1
_BATCH = 32


@dataclass(frozen=True)
class EpochRow:
    """One row of `metrics.csv`."""

    epoch: int  # counting from 1 over both stages
    stage: int  # 1 or 2
    beta: float  # weight of the KL term
    learning_rate: float  # adam's
    steps: int  # optimizer steps since the start
    elapsed_s: float  # seconds of training since the start
    # squared error summed over pixels, averaged over the epoch's images
    train_reconstruction: float
    train_kl: float  # KL summed over latent dimensions, averaged over the epoch's images, in nats
    train_total: float  # reconstruction + beta * KL
    held_out_reconstruction: float  # as above, over the held-out images after the epoch
    held_out_kl: float  # as above
    held_out_total: float  # as above
    active_units: int  # latent dimensions whose mu varies over the held-out images


class EpochWeights(NamedTuple):
    """An epoch, and the model's state after it on the CPU."""

    row: EpochRow
    weights: dict[str, Tensor]


class Interrupted(Exception):  # noqa: N818  # not an error: the user asked for it
    """Training stopped at the user's request, after its state was saved."""


class VAETraining(LightningModule):
    """The model with its two-stage schedule.

    All randomness comes from (seed, epoch) and (seed, step), and all progress is in
    `schedule` and `history`, so that a resumed run is the uninterrupted one. Where `stop_asked`
    is true on any rank, all of them call `save`, which writes the resume file, and raise
    `Interrupted`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        schedule: Schedule,
        data: DataSet,
        *,
        layout: torch.memory_format,
        stop_asked: Callable[[], bool],
        save: Callable[[], None],
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(schedule.plan.options.seed)
            self.model = MotorVAE(spec)
        self._layout = layout
        self.model.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks it
        self.schedule, self.data, self._options = schedule, data, schedule.plan.options
        self.history: list[EpochRow] = []
        self.best: EpochWeights | None = None
        self.has_begun = False  # whether all that a resume file brings was taken over
        self._stop_asked, self._save = stop_asked, save
        self._clock = time.monotonic()
        self._train_sums = self._new_sums(3)
        self._held_out_sums = self._new_sums(3)
        self._mu_sums = self._new_sums(2, spec.latent_size)

    def train_dataloader(self) -> TrainBatches:
        """Return this rank's training batches."""
        return TrainBatches(self.data, self.schedule, self.trainer.global_rank)

    def val_dataloader(self) -> HeldOutBatches:
        """Return this rank's held-out batches."""
        return HeldOutBatches(self.data, self.schedule.plan, self.trainer.global_rank)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam (Kingma & Ba 2015) at the first stage's rate."""
        return torch.optim.Adam(self.parameters(), lr=self.schedule.learning_rate)

    def on_train_start(self) -> None:
        """Start the clock; a run that was interrupted after its last epoch has nothing left."""
        self._clock = time.monotonic()
        self.has_begun = True
        self.trainer.should_stop = self.schedule.finished

    def on_train_epoch_start(self) -> None:
        """Give the second stage a fresh Adam: no moments, no step count, half the rate."""
        if self.schedule.begin_epoch():
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()
                for group in optimizer.param_groups:
                    group["lr"] = self.schedule.learning_rate
        self._train_sums = self._new_sums(3)

    def training_step(self, images: Tensor, _batch_index: int) -> Tensor:
        """Return the loss of one batch (B, C, H, W)."""
        loss, _ = self._loss(images, _TRAINING_NOISE, self.schedule.at.step)
        # A resume file brings the sums back on the CPU.
        sums = self._train_sums.to(images.device)
        self._train_sums = sums + _weighted(loss, len(images), self._sum_type)
        self.log("reconstruction", loss.reconstruction.detach(), prog_bar=True, logger=False)
        self.log("kl", loss.kl.detach(), prog_bar=True, logger=False)
        return loss.total

    def on_train_batch_end(self, *_: object) -> None:
        """Count the step; all ranks agree on whether time is up or the user wants to stop."""
        self.schedule.count_step()
        self._count_time()
        # After the last batch, the epoch's own file is about to be written.
        if not self.trainer.is_last_batch and self.wants_stop():
            self._save()
            raise Interrupted

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's sums."""
        self._held_out_sums = self._new_sums(3)
        self._mu_sums = self._new_sums(2, self.model.spec.latent_size)

    def validation_step(self, images: Tensor, batch_index: int) -> None:
        """Add one held-out batch (B, C, H, W) to the sums; its noise is the same every time."""
        loss, mu = self._loss(images, _HELD_OUT_NOISE, batch_index)
        self._held_out_sums = self._held_out_sums + _weighted(loss, len(images), self._sum_type)
        mu = mu.to(self._sum_type)
        self._mu_sums = self._mu_sums + torch.stack([mu.sum(0), mu.square().sum(0)])

    def on_train_epoch_end(self) -> None:
        """Add this epoch's row to `history`, over all ranks, and stop after the last epoch.

        Nothing of an epoch is saved after which the loss is no longer a number, a ConfigError.
        """
        at, beta = self.schedule.at, self.schedule.beta
        train, held_out, mu = (
            self.trainer.strategy.reduce(sums, reduce_op="sum")
            for sums in (self._train_sums, self._held_out_sums, self._mu_sums)
        )
        reconstruction, kl = (train[:2] / train[2]).tolist()
        held_reconstruction, held_kl = (held_out[:2] / held_out[2]).tolist()
        mean, mean_square = mu / held_out[2]
        if not all(map(math.isfinite, (reconstruction, kl, held_reconstruction, held_kl))):
            raise ConfigError(
                f"the loss is not a number after epoch {at.epochs_done + 1} with "
                f"--learning-rate={self._options.learning_rate}: start again with a smaller one"
            )
        self._count_time()
        self.schedule.end_epoch()
        row = EpochRow(
            epoch=at.epochs_done,
            stage=at.stage + 1,
            beta=beta,
            learning_rate=self.schedule.learning_rate,
            steps=at.step,
            elapsed_s=round(at.elapsed_s, 3),
            train_reconstruction=reconstruction,
            train_kl=kl,
            train_total=reconstruction + beta * kl,
            held_out_reconstruction=held_reconstruction,
            held_out_kl=held_kl,
            held_out_total=held_reconstruction + beta * held_kl,
            active_units=active_units(mean_square - mean.square()),
        )
        self.history.append(row)
        # Totals of two stages do not compare: each has its own beta.
        best = self.best.row if self.best else row
        if best is row or best.stage != row.stage or row.held_out_total < best.held_out_total:
            self.best = EpochWeights(row, weights_of(self.model))
        self.trainer.should_stop = self.schedule.finished

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add our own progress to Lightning's."""
        checkpoint["motorvae"] = {
            "schedule": asdict(self.schedule.at),
            "history": [asdict(row) for row in self.history],
            "train_sums": self._train_sums.cpu(),
            "best": self.best and {"epoch": self.best.row.epoch, "weights": self.best.weights},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue from the progress that `on_save_checkpoint` wrote."""
        ours = checkpoint["motorvae"]
        self.history = [EpochRow(**row) for row in ours["history"]]
        schedule = ours["schedule"]
        if "stage_step" not in schedule:  # an earlier version wrote it
            before = [row.steps for row in self.history if row.stage <= schedule["stage"]]
            schedule = {**schedule, "stage_step": schedule["step"] - max(before, default=0)}
        self.schedule.restore(Position(**schedule))
        self._train_sums = ours["train_sums"]
        if best := ours.get("best"):
            (row,) = (row for row in self.history if row.epoch == best["epoch"])
            self.best = EpochWeights(row, best["weights"])

    @torch.inference_mode()
    def reconstructed(self, count: int) -> tuple[Pixels, VAEOutput]:
        """Return the first held-out images (N, ...) uint8, and float32 outputs on the CPU."""
        rows, training = self.data.held_out[:count], self.model.training
        self.model.eval()
        parts = []
        for start in range(0, len(rows), _BATCH):
            batch = torch.from_numpy(self.data.batch(rows[start : start + _BATCH]))
            parts.append([part.float().cpu() for part in self.model(batch.to(self.device))])
        self.model.train(training)
        outputs = VAEOutput(*(torch.cat(column) for column in zip(*parts, strict=True)))
        return self.data.images[rows], outputs

    def wants_stop(self) -> bool:
        """Return whether the user asked any rank to stop."""
        return self._agreed(self._stop_asked())

    @property
    def _sum_type(self) -> torch.dtype:
        """Sums over a data set want float64; Apple's GPUs have none."""
        return torch.float32 if self.device.type == "mps" else torch.float64

    def _new_sums(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self._sum_type, device=self.device)

    def _loss(self, images: Tensor, purpose: int, number: int) -> tuple[Loss, Tensor]:
        images = images.to(memory_format=self._layout)
        mu, log_var = self.model.encode(images)
        seed = np.random.SeedSequence(
            (self._options.seed, purpose, number, self.trainer.global_rank)
        )
        generator = torch.Generator(images.device).manual_seed(int(seed.generate_state(1)[0]))
        reconstruction = self.model.decode(sample_latent(mu, log_var, generator))
        return vae_loss(images, reconstruction, mu, log_var, beta=self.schedule.beta), mu

    def _count_time(self) -> None:
        now = time.monotonic()
        self.schedule.at.elapsed_s += now - self._clock
        self._clock = now
        if self._options.minutes is not None:
            self.schedule.at.stage_over = self._agreed(self.schedule.out_of_time())

    def _agreed(self, decision: bool) -> bool:
        """Return whether any rank decided so; ranks that disagreed would wait for ever."""
        return self.trainer.strategy.reduce_boolean_decision(decision, all=False)


def _weighted(loss: Loss, count: int, dtype: torch.dtype) -> Tensor:
    sums = torch.stack([loss.reconstruction, loss.kl, torch.ones_like(loss.kl)])
    return sums.detach().to(dtype) * count


class TrainBatches(Iterable[Tensor]):
    """The training images of one epoch, shuffled by (seed, epoch); every rank takes its own part.

    The iterator ends early once the schedule says that the stage is over. It has no length, as
    Lightning would ask for that only once, and time or steps can end any epoch.
    """

    def __init__(self, data: DataSet, schedule: Schedule, rank: int) -> None:
        self._data, self._schedule, self._rank = data, schedule, rank

    @property
    def left(self) -> int:
        """Batches that are left of the epoch, were no clock to end it; at least one."""
        at, steps = self._schedule.at, self._schedule.steps_left
        # One more closes an epoch under way even where a new goal is behind already.
        rest = max(self._schedule.plan.epoch_steps - at.step_in_epoch, 1)
        return rest if steps is None else min(rest, max(steps, 1))

    def __iter__(self) -> Iterator[Tensor]:
        """Yield (B, C, H, W) float32 batches from the schedule's position in the epoch on."""
        at, left, plan = self._schedule.at, self.left, self._schedule.plan
        generator = np.random.default_rng((plan.options.seed, at.epochs_done))
        order = generator.permutation(self._data.train)
        batches = np.array_split(order, plan.epoch_steps * plan.ranks)[self._rank :: plan.ranks]
        start = min(at.step_in_epoch, plan.epoch_steps - 1)
        for batch in _prefetched(self._data, batches[start : start + left]):
            yield batch
            if self._schedule.at.stage_over:
                return

    def state_dict(self) -> dict[str, int]:
        """Make Lightning resume in mid-epoch: the schedule knows the position."""
        return {"step_in_epoch": self._schedule.at.step_in_epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Do nothing: the schedule has been restored already."""


class HeldOutBatches(Iterable[Tensor]):
    """The held-out images in fixed order; every rank takes its part, in equally many batches."""

    def __init__(self, data: DataSet, plan: Plan, rank: int) -> None:
        self._data = data
        count = -(-len(data.held_out) // (plan.batch_size * plan.ranks))
        self._batches: Sequence[Rows] = np.array_split(data.held_out[rank :: plan.ranks], count)

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield (B, C, H, W) float32 batches."""
        return _prefetched(self._data, self._batches)


def _prefetched(data: DataSet, batches: Sequence[Rows]) -> Iterator[Tensor]:
    """Assemble each batch in a thread while the one before it is computed on."""
    with ThreadPoolExecutor(1) as pool:
        pending = [pool.submit(data.batch, rows) for rows in batches[:1]]
        for rows in batches[1:]:
            ready = pending.pop().result()
            pending.append(pool.submit(data.batch, rows))
            yield torch.from_numpy(ready)
        for last in pending:
            yield torch.from_numpy(last.result())
