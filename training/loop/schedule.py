"""The two-stage schedule: which beta and learning rate hold now, and when a stage is over."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import TrainOptions


@dataclass
class Position:
    """Where in its schedule a run is; saved in the resume file, numbers only.

    Attributes:
        stage: 0 or 1.
        epoch: Epochs finished within the stage.
        epochs_done: Epochs finished since the start; decides the order of the images.
        step: Optimizer steps since the start; decides the noise.
        step_in_epoch: Optimizer steps within the epoch under way.
        stage_step: Optimizer steps within the stage.
        elapsed_s: Seconds of training, over all sittings.
        stage_over: The stage's time or steps have run out; its epoch under way is the last.
    """

    stage: int = 0
    epoch: int = 0
    epochs_done: int = 0
    step: int = 0
    step_in_epoch: int = 0
    stage_step: int = 0
    elapsed_s: float = 0.0
    stage_over: bool = False


def steps_of_stages(steps: int, epochs: tuple[int, ...]) -> tuple[int, int]:
    """Split a budget of optimizer steps in proportion to the stages' epochs, one each at least."""
    first = min(max(round(steps * epochs[0] / sum(epochs)), 1), steps - 1)
    return first, steps - first


class Schedule:
    """Stage 1 learns to reconstruct (beta about zero), stage 2 regularises at half the rate.

    A stage ends after its share of `--steps`, or without them after its epochs, or when its
    share of `--minutes` has passed, whichever comes first. The shares are in proportion to the
    epochs.

    Args:
        options: The goal.
        finish: Train no further: only an epoch under way is brought to its end, by one step.
    """

    def __init__(self, options: TrainOptions, *, finish: bool = False) -> None:
        self._options, self.finish = options, finish
        self._steps = options.steps and steps_of_stages(options.steps, options.epochs)
        self.at = Position()

    @property
    def beta(self) -> float:
        """Weight of the KL term in this stage."""
        return self._options.betas[self.at.stage]

    @property
    def learning_rate(self) -> float:
        """Adam's learning rate in this stage; halved in the second."""
        return self._options.learning_rate * (0.5 if self.at.stage else 1.0)

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
    def stage_finished(self) -> bool:
        """Whether no further epoch belongs to this stage."""
        return self.at.stage_over or self._goal_reached()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train, nor to be measured of an epoch under way."""
        if self.at.step_in_epoch:
            return False
        return self.finish or (self.at.stage == 1 and self.stage_finished)

    def begin_epoch(self) -> bool:
        """Move to stage 2 when the first is over; return True there: the optimizer starts afresh."""
        if self.at.stage == 1 or not self.stage_finished:
            return False
        self.at.stage, self.at.epoch, self.at.stage_step, self.at.stage_over = 1, 0, 0, False
        return True

    def count_step(self) -> None:
        """Count one optimizer step."""
        self.at.step += 1
        self.at.step_in_epoch += 1
        self.at.stage_step += 1
        if self.steps_left == 0:
            self.at.stage_over = True

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
        self.at.stage_over = self.finish or self._goal_reached() or self.out_of_time()

    def _goal_reached(self) -> bool:
        """Return whether this stage's steps are made, or without such a goal its epochs."""
        if self._steps:
            return self.steps_left == 0
        return self.at.epoch >= self._options.epochs[self.at.stage]
