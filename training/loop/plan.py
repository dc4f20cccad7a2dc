"""How large a run is: images in a batch, steps in an epoch and in all, and the time left."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...runtime.core.errors import DataError
from ..options import TrainOptions
from .schedule import Position, steps_of_stages

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

    Attributes:
        options: The goal.
        train: Number of training images.
        held_out: Number of held-out images.
        ranks: Devices that share an epoch.
        least: Fewest images in a batch: two where batch norm has one value a channel and image.
        step_s: Seconds of a step on this machine; None where it was not measured.
    """

    options: TrainOptions
    train: int
    held_out: int
    ranks: int = 1
    least: int = 1
    step_s: float | None = None

    def check(self) -> None:
        """Refuse to train where some device would get no batch.

        Raises:
            DataError: There are too few images.
        """
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

    @property
    def batch_size(self) -> int:
        """Most images in a step, on each device.

        Where it is not asked for, the model card's, or for a small set a smaller power of two.
        """
        enough = self.train // (FEWEST_STEPS * self.ranks)
        power = 1 << max(enough.bit_length() - 1, 0)
        return self.options.batch_size or min(max(power, SMALLEST_BATCH), CARD_BATCH_SIZE)

    @property
    def epoch_steps(self) -> int:
        """Steps in a whole epoch."""
        return self._epoch_steps(self.batch_size)

    @property
    def steps(self) -> int:
        """Steps in all, unless `--minutes` are over before."""
        return self.options.steps or sum(self.options.epochs) * self.epoch_steps

    def seconds(self, step_s: float) -> float:
        """Return about how long all steps take, with the held-out images after each epoch."""
        epochs = self.steps / self.epoch_steps
        validation = self.held_out / self.batch_size * step_s * _VALIDATION_SHARE
        return self.steps * step_s + epochs * validation

    def announcement(self, *, asked: int | None, done: int, resumed: bool) -> str:
        """Return the steps, the batch size and the time that a run begins with, for the user.

        Args:
            asked: The batch size that the user asked for.
            done: Steps that were made before the run was resumed.
            resumed: The batch size is that of the run's start.
        """
        first, second = self.options.epochs
        what = (
            f"{self.steps} steps, {self.epoch_steps} in an epoch"
            if self.options.steps
            else f"{self.steps} steps in {first} + {second} epochs of {self.epoch_steps}"
        )
        made = f", {done} made already" if done else ""
        reason = "as the run was started" if resumed else self._reason_of_batch_size(asked)
        return f"{what}{made}; batch size {self.batch_size}, {reason}{self._time(done)}"

    def progress(self, at: Position) -> str:
        """Return which epoch is under way, of how many, and the time that is left."""
        _, is_cut = self._left_s(at)
        of = "" if is_cut else f" of {max(self._epochs, at.epochs_done + 1)}"
        return ", ".join(filter(None, [f"epoch {at.epochs_done + 1}{of}", self.time_left(at)]))

    def time_left(self, at: Position) -> str:
        """Return how long training still takes, as far as is known; empty where nothing is."""
        left_s, is_cut = self._left_s(at)
        left = "" if left_s is None else f"{duration(left_s)} left"
        return f"{left} (--minutes)" if is_cut else left

    @property
    def _epochs(self) -> int:
        """Epochs in all; the last of a stage may be cut short."""
        if not self.options.steps:
            return sum(self.options.epochs)
        stages = steps_of_stages(self.options.steps, self.options.epochs)
        return sum(math.ceil(steps / self.epoch_steps) for steps in stages)

    def _left_s(self, at: Position) -> tuple[float | None, bool]:
        """Return the seconds that are left, and whether `--minutes` end it before the last step.

        How many epochs there will be is not known then.
        """
        left_s = None
        if at.step:
            step_s = at.elapsed_s / at.step  # with its share of the held-out images
            left_s = max(self.steps - at.step, 0) * step_s
        elif self.step_s is not None:
            left_s = self.seconds(self.step_s)
        if self.options.minutes is not None:
            allowed_s = max(self.options.minutes * 60 - at.elapsed_s, 0)
            if left_s is None or left_s > allowed_s:
                return allowed_s, True
        return left_s, False

    def _epoch_steps(self, batch_size: int) -> int:
        per_step = batch_size * self.ranks
        return max(1, min(-(-self.train // per_step), self.train // (self.least * self.ranks)))

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
        minutes = self.options.minutes
        if self.step_s is None:
            return f"; at most {duration(minutes * 60)} in all (--minutes)" if minutes else ""
        seconds = self.seconds(self.step_s)
        if minutes and seconds > minutes * 60:
            reached = round(self.steps * minutes * 60 / seconds)
            return (
                f"; --minutes {minutes:g} will end it after about {reached} steps on this machine"
            )
        left_s = seconds * max(1 - done / self.steps, 0)
        most = f", {minutes:g} min at most" if minutes else ""
        return f"; about {duration(left_s)} on this machine{most}"


def duration(seconds: float) -> str:
    """Return a time to about two figures, in the unit that suits it."""
    for unit, length_s in (("hours", 3600), ("min", 60)):
        if seconds >= 1.5 * length_s:
            amount = seconds / length_s
            return f"{round(amount, 1 if amount < 10 else None):g} {unit}"
    return f"{max(round(seconds), 1)} s"
