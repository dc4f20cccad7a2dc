"""The two-stage schedule: how large a run is, where it stands, and when it is done."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...runtime.core.errors import DataError
from ..options import TrainOptions
from .rates import kl_weight_at, learning_rate_at

CARD_BATCH_SIZE = 64
FEWEST_STEPS = 16
"""Steps that an epoch of a small set is to have; the weights would hardly move otherwise."""
SMALLEST_BATCH = 4
"""Statistics of batch norm over fewer images are mostly noise."""
_VALIDATION_SHARE = 1 / 3
"""Time of a held-out image over that of a training image: a forward pass, and no backward."""


@dataclass(frozen=True)
class Plan:
    """The batches of a run, its steps, and how long they take.

    All images are used in every epoch, in batches that differ by at most one image, so none is a
    small rest whose batch norm statistics are mostly noise. No batch is larger than asked for,
    unless that would leave one below `least`.
    """

    options: TrainOptions  # the goal
    train: int  # number of training images
    held_out: int  # number of held-out images
    ranks: int = 1  # devices that share an epoch
    # fewest images in a batch: two where batch norm has one value a channel and image
    least: int = 1
    step_s: float | None = None  # seconds of a step on this machine; None where it was not measured
    # devices that the run was started on, whose batch in a step it keeps; None for `ranks`
    started_on: int | None = None

    def check(self) -> None:
        """Raise DataError where there are so few images that some device would get no batch."""
        for count, what, least in (
            (self.train, "training", self.least),
            (self.held_out, "held-out", 1),
        ):
            if count < self.ranks * least:
                devices = "1 device needs" if self.ranks == 1 else f"{self.ranks} devices need"
                raise DataError(
                    f"{count} {what} image{'' if count == 1 else 's'}, and {devices} at least "
                    f"{self.ranks * least}{', for batch norm' if least > 1 else ''}: "
                    f"give more images{' or fewer --devices' if self.ranks > 1 else ''}"
                )
        if (fewest := self.train // self.epoch_batches) < self.ranks * self.least:
            raise DataError(
                f"a step of this run has {fewest} image{'' if fewest == 1 else 's'}, as it was "
                f"started on {self._started_on}, and {self.ranks} devices need at least "
                f"{self.ranks * self.least}: resume it with fewer --devices"
            )

    @property
    def batch_size(self) -> int:
        """Most images in a step, on each device.

        Where it is not asked for, the model card's, or for a small set a smaller power of two. Of
        a run that is resumed on another number of devices, on each of those it was started on.
        """
        enough = self.train // (FEWEST_STEPS * self.ranks)
        power = 1 << max(enough.bit_length() - 1, 0)
        return self.options.batch_size or min(max(power, SMALLEST_BATCH), CARD_BATCH_SIZE)

    @property
    def step_size(self) -> int:
        """Most images in a step, on all devices together."""
        return self.batch_size * self._started_on

    @property
    def epoch_steps(self) -> int:
        """Steps in an epoch: one a batch, unless `--limit-steps` are fewer."""
        return min(self.epoch_batches, self.options.limit_steps or self.epoch_batches)

    @property
    def epoch_batches(self) -> int:
        """Batches that all training images are split into, each shared by all devices."""
        return self._epoch_steps(self.batch_size)

    @property
    def held_out_batches(self) -> int:
        """Batches that the held-out images are split into, each shared by all devices."""
        return max(1, min(-(-self.held_out // self.step_size), self.held_out // self.ranks))

    @property
    def steps(self) -> int:
        """Steps in all, unless `--minutes` are over before."""
        return self.options.steps or sum(self.options.epochs) * self.epoch_steps

    def seconds(self) -> float | None:
        """Return about how long all steps take, with the held-out images after each epoch."""
        if self.step_s is None:
            return None
        epochs = self.steps / self.epoch_steps
        validation = self.held_out / self.step_size * _VALIDATION_SHARE
        return (self.steps + epochs * validation) * self.step_s

    def announcement(self, *, asked: int | None, done: int, resumed: bool) -> str:
        """Return the steps, the batch size and the time that a run begins with, for the user.

        `asked` is the batch size that the user gave; of a resumed run it is that of its start, and
        `done` steps were made before.
        """
        first, second = self.options.epochs
        what = (
            f"{self.steps} steps, {self.epoch_steps} in an epoch"
            if self.options.steps
            else f"{self.steps} steps in {first} + {second} epochs of {self.epoch_steps}"
        )
        if self.epoch_steps < self.epoch_batches:
            what += f", instead of {self.epoch_batches} for all images (--limit-steps)"
        made = f", {done} made already" if done else ""
        reason = "as the run was started" if resumed else self._reason_of_batch_size(asked)
        return f"{what}{made}; batch size {self._sizes()}, {reason}{self._time(done)}"

    @property
    def _started_on(self) -> int:
        return self.started_on or self.ranks

    def _sizes(self) -> str:
        """Return how many images each device has, and how many a step, for the user."""
        if self.ranks == self._started_on == 1:
            return f"{self.batch_size}"
        if self.ranks == self._started_on:
            return f"{self.batch_size} on each of {self.ranks} devices, {self.step_size} in a step"
        return f"{self.step_size} in a step, shared by {self.ranks} (it began on {self.started_on})"

    def _epoch_steps(self, batch_size: int) -> int:
        per_step, least = batch_size * self._started_on, self.least * self._started_on
        return max(1, min(-(-self.train // per_step), self.train // least))

    def _reason_of_batch_size(self, asked: int | None) -> str:
        if asked is not None:
            return "as asked for"
        if self.batch_size == CARD_BATCH_SIZE:
            return "as in the model card"
        card = self._epoch_steps(CARD_BATCH_SIZE)
        if card == self.epoch_steps:
            return "as there are so few images"
        return (
            f"as the model card's {CARD_BATCH_SIZE} would make only {card} "
            f"step{'s' if card > 1 else ''} an epoch of so few images"
        )

    def _time(self, done: int) -> str:
        minutes, seconds = self.options.minutes, self.seconds()
        if seconds is None:
            return f"; at most {duration(minutes * 60)} in all (--minutes)" if minutes else ""
        if minutes and seconds > minutes * 60:
            reached = round(self.steps * minutes * 60 / seconds)
            return (
                f"; --minutes {minutes:g} will end it after about {reached} steps on this machine"
            )
        left_s = seconds * max(1 - done / self.steps, 0)
        most = f", {minutes:g} min at most" if minutes else ""
        return f"; about {duration(left_s)} on this machine{most}"


@dataclass
class Position:
    """Where in its schedule a run is; saved in the resume file, numbers only."""

    stage: int = 0  # 0 or 1
    epoch: int = 0  # epochs finished within the stage
    epochs_done: int = 0  # epochs finished since the start; decides the order of the images
    step: int = 0  # optimizer steps since the start; decides the noise
    step_in_epoch: int = 0  # optimizer steps within the epoch under way
    stage_step: int = 0  # optimizer steps within the stage
    elapsed_s: float = 0.0  # seconds of training, over all sittings
    # the stage's time or steps have run out; its epoch under way is the last
    stage_over: bool = False
    epochs_since_best: int = 0  # epochs of the stage since that of the smallest held-out loss


def steps_of_stages(steps: int, epochs: tuple[int, ...]) -> tuple[int, int]:
    """Split a budget of optimizer steps in proportion to the stages' epochs, one each at least."""
    first = min(max(round(steps * epochs[0] / sum(epochs)), 1), steps - 1)
    return first, steps - first


class Schedule:
    """Stage 1 learns to reconstruct (beta about zero), stage 2 regularises at half the rate.

    Other options of the learning rate and the KL weight go by the share of the whole run.

    A stage ends after its share of `--steps`, or without them after its epochs, or when its
    share of `--minutes` has passed, whichever comes first. The shares are in proportion to the
    epochs. With `finish` only an epoch under way is brought to its end, by one step.
    """

    def __init__(self, plan: Plan, *, finish: bool = False) -> None:
        self.plan, self._options, self._finish = plan, plan.options, finish
        self._steps = self._options.steps and steps_of_stages(
            self._options.steps, self._options.epochs
        )
        self.at = Position()

    @property
    def beta(self) -> float:
        """This stage's own of the two betas, with which its epochs are compared."""
        return self._options.betas[self.at.stage]

    @property
    def kl_weight(self) -> float:
        """Weight of the KL term in the next step; the stage's beta unless `--kl-schedule` moves."""
        return kl_weight_at(self._options, self.share, stage=self.at.stage)

    @property
    def stage_rate(self) -> float:
        """Learning rate that the options give to this stage, before any schedule moves it."""
        halved = self.at.stage and self._options.lr_schedule == "stages"
        return self._options.learning_rate * (0.5 if halved else 1.0)

    @property
    def learning_rate(self) -> float:
        """Adam's learning rate in the next step."""
        first = 1 / self.plan.steps
        return learning_rate_at(self._options, self.share, stage=self.at.stage, first=first)

    @property
    def share(self) -> float:
        """How much of the whole run is done, from 0 to 1: the larger of its steps' and its time's.

        Whichever of `--steps` (or the epochs) and `--minutes` ends the run, it ends at 1.
        """
        share = self.at.step / self.plan.steps
        if self._options.minutes is not None:
            share = max(share, self.at.elapsed_s / (self._options.minutes * 60))
        return min(share, 1.0)

    @property
    def out_of_patience(self) -> bool:
        """Whether the last stage has gone on for `--patience` epochs without a better one."""
        patience = self._options.patience
        return patience is not None and self.at.stage == 1 and self.at.epochs_since_best >= patience

    @property
    def deadline_s(self) -> float | None:
        """Elapsed seconds at which this stage is over, or None without a time limit."""
        minutes, epochs = self._options.minutes, self._options.epochs
        return minutes and minutes * 60 * sum(epochs[: self.at.stage + 1]) / sum(epochs)

    @property
    def steps_left(self) -> int | None:
        """Steps that are left of this stage, or None where its epochs or the time end it."""
        return self._steps and max(self._steps[self.at.stage] - self.at.stage_step, 0)

    @property
    def next_batch(self) -> int:
        """Index, among the epoch's batches, of that of the next step."""
        return min(self.at.step_in_epoch, self.plan.epoch_steps - 1)

    @property
    def stage_finished(self) -> bool:
        """Whether no further epoch belongs to this stage."""
        return self.at.stage_over or self._goal_reached()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train, nor to be measured of an epoch under way."""
        if self.at.step_in_epoch:
            return False
        return self._finish or (self.at.stage == 1 and self.stage_finished) or self.out_of_patience

    def begin_epoch(self) -> bool:
        """Move to stage 2 when the first is over; True there."""
        if self.at.stage == 1 or not self.stage_finished:
            return False
        self.at.stage, self.at.epoch, self.at.stage_step, self.at.stage_over = 1, 0, 0, False
        self.at.epochs_since_best = 0
        return True

    def count_step(self) -> None:
        """Count one optimizer step."""
        self.at.step += 1
        self.at.step_in_epoch += 1
        self.at.stage_step += 1
        self.at.stage_over |= self.steps_left == 0

    def out_of_time(self) -> bool:
        """Return whether this stage's share of the time has passed."""
        return self.deadline_s is not None and self.at.elapsed_s >= self.deadline_s

    def end_epoch(self) -> None:
        """Count one epoch; its own validation may have used up the rest of the time."""
        self.at.epoch += 1
        self.at.epochs_done += 1
        self.at.step_in_epoch = 0

    def restore(self, at: Position) -> None:
        """Continue from the position of a resume file; the goal may have changed since.

        Where the new one is behind already, an epoch under way ends with its next step.
        """
        self.at = at
        self.at.stage_over = self._finish or self._goal_reached() or self.out_of_time()

    def _goal_reached(self) -> bool:
        """Return whether this stage's steps are made, or without such a goal its epochs."""
        if self._steps:
            return self.steps_left == 0
        return self.at.epoch >= self._options.epochs[self.at.stage]

    def progress(self) -> str:
        """Return which epoch is under way, of how many, and the time that is left."""
        epoch = self.at.epochs_done + 1
        if self._finish:
            return f"epoch {epoch}"
        _, is_cut = self._left_s()
        epochs = sum(self._options.epochs)
        if self._steps:  # the last epoch of a stage may be cut short
            epochs = sum(math.ceil(steps / self.plan.epoch_steps) for steps in self._steps)
        of = "" if is_cut else f" of {max(epochs, epoch)}"  # unknown where the time ends it
        return ", ".join(filter(None, [f"epoch {epoch}{of}", self.time_left()]))

    def time_left(self) -> str:
        """Return how long training still takes, as far as is known; empty where nothing is."""
        left_s, is_cut = self._left_s()
        left = "" if left_s is None else f"{duration(left_s)} left"
        return f"{left} (--minutes)" if is_cut else left

    def _left_s(self) -> tuple[float | None, bool]:
        """Return the seconds that are left, and whether `--minutes` end it before the last step."""
        left_s = self.plan.seconds()
        if self.at.step:
            step_s = self.at.elapsed_s / self.at.step  # with its share of the held-out images
            left_s = max(self.plan.steps - self.at.step, 0) * step_s
        if self._options.minutes is not None:
            allowed_s = max(self._options.minutes * 60 - self.at.elapsed_s, 0)
            if left_s is None or left_s > allowed_s:
                return allowed_s, True
        return left_s, False


def duration(seconds: float) -> str:
    """Return a time to about two figures, in the unit that suits it."""
    for unit, length_s in (("hours", 3600), ("min", 60)):
        if seconds >= 1.5 * length_s:
            amount = seconds / length_s
            return f"{round(amount, 1 if amount < 10 else None):g} {unit}"
    return f"{max(round(seconds), 1)} s"
