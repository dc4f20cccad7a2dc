"""What a run is about to do, told before its first step: batch size, steps in all, and time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .data.batches import batch_count
from .loop.schedule import Position
from .options import CARD_BATCH_SIZE, TrainOptions

FEWEST_STEPS = 16
"""Steps that an epoch of a small set is to have; the weights would hardly move otherwise."""
SMALLEST_BATCH = 4
"""Statistics of batch norm over fewer images are mostly noise."""
_VALIDATION_SHARE = 1 / 3
"""Time of a held-out image over that of a training image: a forward pass, and no backward."""


def batch_size_for(images: int, ranks: int) -> int:
    """Return the model card's batch size, or for a small set a smaller power of two.

    Args:
        images: Number of training images.
        ranks: Devices that share an epoch.
    """
    enough = images // (FEWEST_STEPS * ranks)
    power = 1 << max(enough.bit_length() - 1, 0)
    return min(max(power, SMALLEST_BATCH), CARD_BATCH_SIZE)


@dataclass(frozen=True)
class Plan:
    """Steps of a run.

    Attributes:
        options: The goal, and the batch size that was decided.
        train: Number of training images.
        held_out: Number of held-out images.
        ranks: Devices that share an epoch.
        least: Fewest images in a batch; see `batches.least_batch`.
    """

    options: TrainOptions
    train: int
    held_out: int
    ranks: int = 1
    least: int = 1

    @property
    def batch_size(self) -> int:
        """Most images in a step, on each device."""
        return self.options.batch_size or CARD_BATCH_SIZE

    def reason_of_batch_size(self, *, given: bool) -> str:
        """Return why a batch has this size, as a clause."""
        if given:
            return "as asked for"
        if self.batch_size == CARD_BATCH_SIZE:
            return "as in the model card"
        card = batch_count(
            self.train, batch_size=CARD_BATCH_SIZE, ranks=self.ranks, least=self.least
        )
        if card == self.epoch_steps:
            return "as there are so few images"
        return (
            f"as the model card's {CARD_BATCH_SIZE} would make only {card} "
            f"step{'s' if card > 1 else ''} an epoch of so few images"
        )

    @property
    def epoch_steps(self) -> int:
        """Steps in a whole epoch."""
        return batch_count(
            self.train, batch_size=self.batch_size, ranks=self.ranks, least=self.least
        )

    @property
    def steps(self) -> int:
        """Steps in all, unless `--minutes` are over before."""
        return self.options.steps or sum(self.options.epochs) * self.epoch_steps

    def seconds(self, step_s: float) -> float:
        """Return about how long all steps take, with the held-out images after each epoch."""
        epochs = self.steps / self.epoch_steps
        validation = self.held_out / self.batch_size * step_s * _VALIDATION_SHARE
        return self.steps * step_s + epochs * validation

    def line(self, *, reason: str, step_s: float | None, done: int = 0) -> str:
        """Return what is about to happen, for the user.

        Args:
            reason: Why the batch has its size.
            step_s: Seconds of a step on this machine; None where it was not measured.
            done: Steps that were made in earlier sittings.
        """
        first, second = self.options.epochs
        what = (
            f"{self.steps} steps, {self.epoch_steps} in an epoch"
            if self.options.steps
            else f"{self.steps} steps in {first} + {second} epochs of {self.epoch_steps}"
        )
        made = f", {done} made already" if done else ""
        return f"{what}{made}; batch size {self.batch_size}, {reason}{self._time(step_s, done)}"

    def goal(self, at: Position) -> str:
        """Return how many epochs there will be, and when the last one is over, as far as is known.

        Args:
            at: Where the run is.
        """
        epochs = self.steps / self.epoch_steps
        about = "about " if self.options.steps else ""
        if not at.step:
            return f"of {about}{math.ceil(epochs)}"
        step_s = at.elapsed_s / at.step  # with its share of the held-out images
        left_s = max(self.steps - at.step, 0) * step_s
        minutes = self.options.minutes
        if minutes is not None and at.elapsed_s + left_s > minutes * 60:
            left_s = max(minutes * 60 - at.elapsed_s, 0)
            epochs, about = (at.step + left_s / step_s) / self.epoch_steps, "about "
        return f"of {about}{math.ceil(epochs)}, {duration(left_s)} left"

    def _time(self, step_s: float | None, done: int) -> str:
        minutes = self.options.minutes
        if step_s is None:
            return f"; at most {duration(minutes * 60)} in all (--minutes)" if minutes else ""
        left_s = self.seconds(step_s) * max(1 - done / self.steps, 0)
        if minutes and self.seconds(step_s) > minutes * 60:
            reached = round(self.steps * minutes * 60 / self.seconds(step_s))
            return (
                f"; --minutes {minutes:g} will end it after about {reached} steps on this machine"
            )
        most = f", {minutes:g} min at most" if minutes else ""
        return f"; about {duration(left_s)} on this machine{most}"


def duration(seconds: float) -> str:
    """Return a time to about two figures, in the unit that suits it."""
    for unit, length_s in (("hours", 3600), ("min", 60)):
        if seconds >= 1.5 * length_s:
            amount = seconds / length_s
            return f"{round(amount, 1 if amount < 10 else None):g} {unit}"
    return f"{max(round(seconds), 1)} s"
