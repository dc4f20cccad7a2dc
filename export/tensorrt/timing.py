"""Two engines timed in turns on one GPU, by its own clock."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Protocol, cast

import numpy as np

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.engines.base import Arrays, Backend, Batch
from ...runtime.engines.tensorrt.build_record import PairedTimes
from ..verify.batches import encoder_input
from ..verify.reference import Reference

WARMUP = 50
"""Untimed runs of each engine: kernels are loaded, a graph is recorded, and the clocks go up."""
TURNS = 16
RUNS = 25
"""Of each engine in each turn; 10 ms for both where a run takes 0.2 ms."""


class Timed(Protocol):
    """An engine that can be run and timed; `TensorRTBackend` is one."""

    def run(self, batch: Batch, /) -> Arrays:
        """Run it once; see `Backend.run`."""

    def repeat_timed(self) -> Mapping[str, float]:
        """Run the same again and return milliseconds; see `TensorRTBackend.repeat_timed`."""


def paired_times(one: Timed, other: Timed, batches: tuple[Batch, Batch]) -> PairedTimes:
    """Time two engines in turns, each on its own input, (N, ...) of one number of images.

    In every second turn the other one begins: what the first of a turn finds, such as a lower
    clock, is shared out.
    """
    engines = ((one, batches[0]), (other, batches[1]))
    for engine, batch in engines:
        for _ in range(WARMUP):
            engine.run(batch)
            engine.repeat_timed()
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(TURNS):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            engine, batch = engines[which]
            engine.run(batch)
            # By events on the GPU's stream: the host's clock would count Python's share, too.
            runs = [engine.repeat_timed()["device"] for _ in range(RUNS)]
            found[which].append(statistics.median(runs))
    return PairedTimes(batch=len(batches[0]), ms=tuple(found[0]), against_ms=tuple(found[1]))


def batch_for(backend: Backend, key: GraphKey, reference: Reference, count: int) -> Batch:
    """Return so many inputs as an engine takes them, the reference's own over and over."""
    rows = np.arange(count) % len(reference.images)
    inputs = encoder_input(backend, reference.images) if key.part == "encoder" else reference.mu
    return np.require(inputs[rows], requirements="C")


def times_of(
    one: Backend, other: Backend, keys: tuple[GraphKey, GraphKey], reference: Reference, count: int
) -> PairedTimes:
    """Time two opened TensorRT engines in turns, `count` of the reference's images a run."""
    batches = (
        batch_for(one, keys[0], reference, count),
        batch_for(other, keys[1], reference, count),
    )
    return paired_times(cast("Timed", one), cast("Timed", other), batches)
