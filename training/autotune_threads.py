"""Whether one thread makes a training step sooner than all of them, tried on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning.pytorch.callbacks import Callback

from ..runtime.core.spec import ModelSpec
from ..runtime.engines.cpu_threads import default_threads
from .hardware import timed_steps

_ROUNDS = 4
_CLEAR_ROUNDS, _CLEAR = 2, 1.5
"""Rounds that are enough where one number of threads is so many times faster."""
_PAUSE, _LEAST_PAUSE_S = 50, 30.0
"""Trials while training take at most one part in so many of its time."""
_GAIN = 1.2
"""A choice that was made is changed only for a number so many times faster; less is noise."""
_MOST_IMAGES = 16
"""A trial of larger batches would take a minute; the time of a step is in proportion to them."""


@dataclass(frozen=True)
class StepTime:
    """How training steps are made here.

    Attributes:
        threads: Threads that compute.
        step_s: Seconds that a step took, scaled to the batch size of the run.
        note: Number of threads and what was measured, a clause for the user.
        gain: How many times longer a step took with the other number; None without a choice.
    """

    threads: int
    step_s: float
    note: str
    gain: float | None


def threads_by_trial(
    spec: ModelSpec, *, precision: str, batch_size: int, asked: int | None
) -> StepTime:
    """Set the number of threads that torch computes with on the CPU, the faster of one and all.

    On a machine that is busy otherwise, threads that share a step wait for each other, and one
    that works alone can be several times faster. Steps of both take turns, so that a change of
    the load hits them alike; the first of all warms up and is not counted. Nothing is compared
    where the number was asked for, by `asked` or `OMP_NUM_THREADS`, or is one anyway.

    Args:
        spec: Sizes of the model.
        precision: "32-true" or "bf16-mixed".
        batch_size: Images in a step.
        asked: Number of threads that the user wants.
    """
    if asked is None and os.environ.get("OMP_NUM_THREADS"):
        asked = torch.get_num_threads()
    every = asked or default_threads()
    images = min(batch_size, _MOST_IMAGES)
    steps = timed_steps(spec, precision=precision, batch_size=images)
    torch.set_num_threads(every)
    next(steps)
    taken: dict[int, float] = dict.fromkeys([every] if asked or every == 1 else [1, every], 0.0)
    for number in range(1, _ROUNDS + 1):
        for threads, mean in taken.items():
            torch.set_num_threads(threads)
            seconds = next(steps) * batch_size / images
            taken[threads] = mean + (seconds - mean) / number
        if number >= _CLEAR_ROUNDS and max(taken.values()) > _CLEAR * min(taken.values()):
            break
    threads = min(taken, key=lambda count: taken[count])
    torch.set_num_threads(threads)
    note, gain = f"{threads} thread{'' if threads == 1 else 's'}", None
    if len(taken) > 1:
        gain = max(taken.values()) / taken[threads]
        times = [f"{_shown(seconds)} with {count}" for count, seconds in taken.items()]
        note += f", as a step of training took {' and '.join(times)}"
    return StepTime(threads, taken[threads], note, gain)


class ThreadTrials(Callback):
    """Chooses before the first step, and again now and then, as a load may begin or end.

    Args:
        trial: Sets the number of threads; see `threads_by_trial`.
        say: Prints a line for the user, where a later choice differs.
    """

    def __init__(self, trial: Callable[[], StepTime], say: Callable[[str], None]) -> None:
        self._trial, self._say = trial, say
        self._next_s = float("inf")

    def choose(self) -> StepTime:
        """Try, and let torch compute with the faster number of threads from now on."""
        start = time.monotonic()
        found = self._trial()
        end = time.monotonic()
        if found.gain is not None:
            self._next_s = end + max(_PAUSE * (end - start), _LEAST_PAUSE_S)
        return found

    def on_train_batch_start(self, *_: object) -> None:
        """Try again where the last trial is long enough ago."""
        if time.monotonic() < self._next_s:
            return
        before = torch.get_num_threads()
        found = self.choose()
        if found.threads == before:
            return
        if (found.gain or 0) < _GAIN:
            torch.set_num_threads(before)
        else:
            self._say(f"from this step on {found.note}")


def _shown(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
