"""Whether one thread makes a training step sooner than all of them, tried on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from ..runtime.spec import ModelSpec
from ..runtime.threads import default_threads
from .hardware import TrainingStep, prefers_channels_last

_ROUNDS = 4
_MOST_IMAGES = 16
"""A trial of larger batches would take a minute; the time of a step is in proportion to them."""


@dataclass(frozen=True)
class StepTime:
    """How training steps are made here.

    Attributes:
        threads: Threads that compute.
        step_s: Seconds that a step took, scaled to the batch size of the run.
        note: Number of threads and what was measured, a clause for the user.
    """

    threads: int
    step_s: float
    note: str


def threads_by_trial(
    spec: ModelSpec, *, precision: str, batch_size: int, asked: int | None
) -> StepTime:
    """Set the number of threads that torch computes with on the CPU, the faster of one and all.

    On a machine that is busy otherwise, threads that share a step wait for each other, and one
    that works alone can be several times faster. Steps of both take turns, so that a change of
    the load hits them alike; the first of each warms up and is not counted. Nothing is compared
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
    step = TrainingStep(
        spec,
        precision=precision,
        channels_last=prefers_channels_last(precision),
        batch_size=images,
    )
    counts = (every,) if asked or every == 1 else (1, every)
    taken = dict.fromkeys(counts, 0.0)
    for number in range(1 + _ROUNDS):
        for threads in counts:
            torch.set_num_threads(threads)
            seconds = step.seconds()
            if number:
                taken[threads] += seconds / _ROUNDS * batch_size / images
    threads = min(taken, key=lambda count: taken[count])
    torch.set_num_threads(threads)
    note = f"{threads} thread{'' if threads == 1 else 's'}"
    if len(counts) > 1:
        note += (
            f", as a step of training took {_shown(taken[1])} with 1 and {_shown(taken[every])} "
            f"with {every}"
        )
    return StepTime(threads, taken[threads], note)


def _shown(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
