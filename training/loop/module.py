"""One step, one epoch: what Lightning's Trainer computes and reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from ...runtime.core.errors import ConfigError
from ...runtime.core.spec import ModelSpec
from ..dataset import DataSet, Pixels
from ..model import (
    Loss,
    MotorVAE,
    VAEOutput,
    active_units,
    sample_latent,
    start_heads_at,
    start_image_at,
    weights_of,
)
from .augmentation import augmented
from .averaging import average_of, optimizer_of, set_rate
from .batches import HeldOutBatches, Share, TrainBatches, input_of_batch, share_of
from .losses import loss_of_batch
from .resume_file import row_of_this_version
from .schedule import Position, Schedule

_TRAINING_NOISE, _HELD_OUT_NOISE, _AUGMENTATION = 0, 1, 2
_BATCH = 32
_PARTS = 4  # of the sums over an epoch: squared error, KL, loss, number of images


@dataclass(frozen=True)
class EpochRow:
    """One row of `metrics.csv`."""

    epoch: int  # counting from 1 over both stages
    stage: int  # 1 or 2
    beta: float  # the stage's own weight of the KL term, with which the totals are made
    learning_rate: float  # the optimizer's in this stage, before any schedule moves it
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
    # what was minimised, averaged over the epoch's images; by default the same as the total
    train_loss: float
    held_out_loss: float  # the same with the stage's beta, over the held-out images
    kl_weight: float  # weight of the KL term at the epoch's end, moved by its schedule
    end_learning_rate: float  # the optimizer's at the epoch's end, moved by its schedule
    replaced: int = 0  # images that could not be read any more, and others took their place


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
    `Interrupted`; `requeue`, which they call before, says whether it has saved as well.
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
        requeue: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(schedule.plan.options.seed)
            self.model = MotorVAE(spec)
        self._layout = layout
        self.model.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks it
        self.schedule, self.data, self._options = schedule, data, schedule.plan.options
        if self._options.start_log_var is not None:
            start_heads_at(self.model, self._options.start_log_var)
        if self._options.start_at_mean:
            start_image_at(self.model, torch.from_numpy(data.mean_level()))
        decay = self._options.ema
        self.average = average_of(self.model, decay) if decay is not None else None
        self.history: list[EpochRow] = []
        self.best: EpochWeights | None = None
        self.has_begun = False  # whether all that a resume file brings was taken over
        self._stop_asked, self._save, self._requeue = stop_asked, save, requeue
        self._clock = time.monotonic()
        self._train_sums = self._new_sums(_PARTS)
        self._held_out_sums = self._new_sums(_PARTS)
        self._mu_sums = self._new_sums(2, spec.latent_size)
        self._replaced_before = 0  # of `data.replaced`, what was before this epoch

    @property
    def kept_model(self) -> MotorVAE:
        """The model that is validated and kept: the moving average where there is one."""
        kept = self.average.module if self.average is not None else self.model
        assert isinstance(kept, MotorVAE)  # noqa: S101  # for the type checker
        return kept

    def train_dataloader(self) -> TrainBatches:
        """Return this rank's training batches."""
        return TrainBatches(self.data, self.schedule, self.trainer.global_rank, self.device)

    def val_dataloader(self) -> HeldOutBatches:
        """Return this rank's held-out batches."""
        rank = self.trainer.global_rank
        return HeldOutBatches(self.data, self.schedule.plan, rank, self.device)

    def on_after_batch_transfer(self, batch: Tensor, _loader_index: int) -> Tensor:
        """Make float32 of what may have been sent as bytes."""
        return input_of_batch(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer; each step gives it its rate."""
        return optimizer_of(
            self.model,
            self.device,
            name=self._options.optimizer,
            heads_rate=self._options.heads_rate,
            weight_decay=self._options.weight_decay,
            precision=str(self.trainer.precision),
        )

    def on_train_start(self) -> None:
        """Start the clock; a run that was interrupted after its last epoch has nothing left."""
        self._clock = time.monotonic()
        self.has_begun = True
        self.trainer.should_stop = self.schedule.finished

    def on_train_epoch_start(self) -> None:
        """Give the second stage a fresh Adam, as the card's: no moments, no step count."""
        if self.schedule.begin_epoch() and self._options.lr_schedule == "stages":
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()
        self._train_sums = self._new_sums(_PARTS)
        self._replaced_before = self.data.replaced

    def on_train_batch_start(self, *_: object) -> None:
        """Give the step its learning rate."""
        for optimizer in self.trainer.optimizers:
            set_rate(optimizer, self.schedule.learning_rate)

    def training_step(self, images: Tensor, _batch_index: int) -> Tensor:
        """Return the loss of one batch (B, C, H, W)."""
        step, seen, plan = self.schedule.at.step, images, self.schedule.plan
        part = self._share(plan.train, plan.epoch_batches, self.schedule.next_batch, len(images))
        if self._options.augment:
            generator = self._generator(torch.device("cpu"), _AUGMENTATION, step)
            images, seen = augmented(
                images, self._options.augment, generator, begin=part.begin, whole=part.whole
            )
        noise, beta = (_TRAINING_NOISE, step), self.schedule.kl_weight
        loss, _ = self._loss(self.model, images, seen, noise=noise, beta=beta, part=part)
        # A resume file brings the sums back on the CPU.
        sums = self._train_sums.to(images.device)
        self._train_sums = sums + _weighted(loss, len(images), self._sum_type)
        self.log("reconstruction", loss.reconstruction.detach(), prog_bar=True, logger=False)
        self.log("kl", loss.kl.detach(), prog_bar=True, logger=False)
        if part.whole == part.size * plan.ranks:
            return loss.total
        # DDP averages the gradients of all ranks, each of which counts as much as it has images.
        return loss.total * (part.size * plan.ranks / part.whole)

    def configure_gradient_clipping(self, *_: object, **__: object) -> None:
        """Clip the gradient's norm (Pascanu et al. 2013, algorithm 1), where that is asked for.

        Lightning calls it before each step, and would itself refuse a fused Adam in 16 bits.
        """
        if self._options.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._options.clip_norm)

    def on_train_batch_end(self, *_: object) -> None:
        """Count the step; all ranks agree on whether time is up or the user wants to stop."""
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.schedule.count_step()
        self._count_time()
        # After the last batch, the epoch's own file is about to be written.
        if not self.trainer.is_last_batch:
            self.stop_if_asked()

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's sums."""
        self._held_out_sums = self._new_sums(_PARTS)
        self._mu_sums = self._new_sums(2, self.model.spec.latent_size)

    def validation_step(self, images: Tensor, batch_index: int) -> None:
        """Add one held-out batch (B, C, H, W) to the sums; its noise is the same every time."""
        noise, beta, plan = (_HELD_OUT_NOISE, batch_index), self.schedule.beta, self.schedule.plan
        part = self._share(plan.held_out, plan.held_out_batches, batch_index, len(images))
        loss, mu = self._loss(self.kept_model, images, images, noise=noise, beta=beta, part=part)
        self._held_out_sums = self._held_out_sums + _weighted(loss, len(images), self._sum_type)
        mu = mu.to(self._sum_type)
        self._mu_sums = self._mu_sums + torch.stack([mu.sum(0), mu.square().sum(0)])

    def on_train_epoch_end(self) -> None:
        """Add this epoch's row to `history`, over all ranks, and stop after the last epoch.

        Nothing of an epoch is saved after which the loss is no longer a number, a ConfigError.
        """
        at, beta = self.schedule.at, self.schedule.beta
        train, held_out, mu = map(
            self._over_ranks, (self._train_sums, self._held_out_sums, self._mu_sums)
        )
        reconstruction, kl, loss = (train[:-1] / train[-1]).tolist()
        held_reconstruction, held_kl, held_loss = (held_out[:-1] / held_out[-1]).tolist()
        mean, mean_square = mu / held_out[-1]
        parts = reconstruction, kl, loss, held_reconstruction, held_kl, held_loss
        if not all(map(math.isfinite, parts)):
            raise ConfigError(
                f"the loss is not a number after epoch {at.epochs_done + 1} with "
                f"--learning-rate={self._options.learning_rate}: start again with a smaller one"
            )
        self._count_time()
        end_rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        kl_weight = self.schedule.kl_weight
        self.schedule.end_epoch()
        row = EpochRow(
            epoch=at.epochs_done,
            stage=at.stage + 1,
            beta=beta,
            learning_rate=self.schedule.stage_rate,
            steps=at.step,
            elapsed_s=round(at.elapsed_s, 3),
            train_reconstruction=reconstruction,
            train_kl=kl,
            train_total=reconstruction + beta * kl,
            held_out_reconstruction=held_reconstruction,
            held_out_kl=held_kl,
            held_out_total=held_reconstruction + beta * held_kl,
            active_units=active_units(mean_square - mean.square()),
            train_loss=loss,
            held_out_loss=held_loss,
            kl_weight=kl_weight,
            end_learning_rate=end_rate,
            replaced=self._replaced(),
        )
        self.history.append(row)
        # Losses of two stages do not compare: each has its own beta.
        best = self.best.row if self.best else row
        if best is row or best.stage != row.stage or row.held_out_loss < best.held_out_loss:
            self.best = EpochWeights(row, weights_of(self.kept_model))
            best = row
        at.epochs_since_best = row.epoch - best.epoch
        self.trainer.should_stop = self.schedule.finished

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add our own progress to Lightning's; all ranks take part, and the first one writes."""
        checkpoint["motorvae"] = {
            "schedule": asdict(self.schedule.at),
            "history": [asdict(row) for row in self.history],
            "train_sums": self._over_ranks(self._train_sums.to(self.device)).cpu(),
            "replaced": self._replaced(),
            "best": self.best and {"epoch": self.best.row.epoch, "weights": self.best.weights},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue from the progress that `on_save_checkpoint` wrote."""
        ours = checkpoint["motorvae"]
        self.history = [EpochRow(**row_of_this_version(row)) for row in ours["history"]]
        schedule = ours["schedule"]
        if "stage_step" not in schedule:  # an earlier version wrote it
            before = [row.steps for row in self.history if row.stage <= schedule["stage"]]
            schedule = {**schedule, "stage_step": schedule["step"] - max(before, default=0)}
        self.schedule.restore(Position(**schedule))
        sums = ours["train_sums"]
        if len(sums) < _PARTS:  # as above: the loss was the total
            total = sums[0] + self.schedule.beta * sums[1]
            sums = torch.stack([*sums[:2], total, sums[2]])
        # They are of all ranks, however many there were.
        is_first = self.trainer.global_rank == 0
        self._train_sums = sums if is_first else torch.zeros_like(sums)
        self._replaced_before = self.data.replaced - is_first * ours.get("replaced", 0)
        if best := ours.get("best"):
            (row,) = (row for row in self.history if row.epoch == best["epoch"])
            self.best = EpochWeights(row, best["weights"])

    @torch.inference_mode()
    def reconstructed(self, count: int) -> tuple[Pixels, VAEOutput]:
        """Return the first held-out images (N, ...) uint8, and float32 outputs on the CPU."""
        rows, model = self.data.held_out[:count], self.kept_model
        training = model.training
        model.eval()
        parts = []
        for start in range(0, len(rows), _BATCH):
            batch = torch.from_numpy(self.data.batch(rows[start : start + _BATCH]))
            parts.append([part.float().cpu() for part in model(batch.to(self.device))])
        model.train(training)
        outputs = VAEOutput(*(torch.cat(column) for column in zip(*parts, strict=True)))
        return self.data.images[rows], outputs

    def stop_if_asked(self, *, is_saved: bool = False) -> None:
        """Save, unless that is done, and raise Interrupted where any rank was asked to stop."""
        if not self._agreed(self._stop_asked()):
            return
        if not self._requeue() and not is_saved:
            self._save()
        raise Interrupted

    @property
    def _sum_type(self) -> torch.dtype:
        """Sums over a data set want float64; Apple's GPUs have none."""
        return torch.float32 if self.device.type == "mps" else torch.float64

    def _new_sums(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self._sum_type, device=self.device)

    def _loss(
        self,
        model: MotorVAE,
        images: Tensor,
        seen: Tensor,
        *,
        noise: tuple[int, int],
        beta: float,
        part: Share,
    ) -> tuple[Loss, Tensor]:
        """Return the loss of reconstructing `images` from what the encoder has `seen`, and mu."""
        images, seen = (one.to(memory_format=self._layout) for one in (images, seen))
        mu, log_var = model.encode(seen)
        generator = self._generator(images.device, *noise)
        z = sample_latent(mu, log_var, generator, begin=part.begin, whole=part.whole)
        kind, free_bits = self._options.reconstruction_loss, self._options.free_bits
        logits = model.decoder.logits(z)
        loss = loss_of_batch(images, logits, mu, log_var, beta=beta, kind=kind, free_bits=free_bits)
        return loss, mu

    def _generator(self, device: torch.device, purpose: int, number: int) -> torch.Generator:
        """Return a generator that depends on the run's seed and what it is for alone.

        Ranks draw alike, each for the whole batch, and take what is of their own images.
        """
        seed = np.random.SeedSequence((self._options.seed, purpose, number, 0))
        return torch.Generator(device).manual_seed(int(seed.generate_state(1)[0]))

    def _share(self, images: int, batches: int, index: int, count: int) -> Share:
        """Return which of a batch are this rank's; of a single one, all."""
        ranks = self.schedule.plan.ranks
        if ranks == 1:
            return Share(0, count, count)
        return share_of(images, batches, index, ranks=ranks, rank=self.trainer.global_rank)

    def _over_ranks(self, sums: Tensor) -> Tensor:
        """Return the sums of all ranks; Lightning's own adds them up in place."""
        total: Tensor = self.trainer.strategy.reduce(sums.clone(), reduce_op="sum")
        return total

    def _replaced(self) -> int:
        """Return how many images of this epoch were replaced, over all ranks."""
        own = self._new_sums(1) + (self.data.replaced - self._replaced_before)
        return round(self._over_ranks(own).item())

    def _count_time(self) -> None:
        now = time.monotonic()
        self.schedule.at.elapsed_s += now - self._clock
        self._clock = now
        if self._options.minutes is not None:
            # One clock for all ranks, since learning rates that differ would part their weights.
            at = self.schedule.at
            at.elapsed_s = self.trainer.strategy.broadcast(at.elapsed_s)
            self.schedule.at.stage_over = self._agreed(self.schedule.out_of_time())

    def _agreed(self, decision: bool) -> bool:
        """Return whether any rank decided so; ranks that disagreed would wait for ever."""
        return self.trainer.strategy.reduce_boolean_decision(decision, all=False)


def _weighted(loss: Loss, count: int, dtype: torch.dtype) -> Tensor:
    sums = torch.stack([loss.reconstruction, loss.kl, loss.total, torch.ones_like(loss.kl)])
    return sums.detach().to(dtype) * count
