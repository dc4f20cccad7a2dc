"""Graphs run a few inputs at a time, at several batch sizes in turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...runtime.engines.base import Arrays, Batch
from .metrics import cosines, largest, squared_errors

BATCH_SIZE = 16
BATCH_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, BATCH_SIZE)
"""Images per run, in turn: a graph may be right at one batch size and wrong at another. So many
cameras share a run, and so many images of a data set."""


def probe_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return at which of these sizes all probes are run: the first, the middle and the last."""
    return tuple(dict.fromkeys((sizes[0], sizes[len(sizes) // 2], sizes[-1])))


class Engine(Protocol):
    """Whatever runs a graph; a `Backend` does."""

    name: str  # engine, version and device, for reports
    input_dtype: np.dtype[Any]

    def run(self, batch: Batch, /) -> Arrays:
        """Run the graph once; see `Backend.run`."""


class Images(Protocol):
    """An array, or what computes rows of one when asked by a slice or an array of indices."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


def batches(
    engine: Engine, inputs: Batch, sizes: Sequence[int]
) -> Iterator[tuple[npt.NDArray[np.intp], Arrays]]:
    """Run a graph on (N, ...) inputs, its batch sizes taken in turn; yield rows and outputs.

    Every run has one of these sizes: the last takes rows again that were run before, as an engine
    may take no fewer.
    """
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(inputs):
            return
        first = max(min(start, len(inputs) - size), 0)
        rows = np.arange(first, first + size) % len(inputs)
        yield rows, engine.run(np.require(inputs[rows], requirements="C"))
        start += size


def run_in_batches(
    engine: Engine, inputs: Batch, *sizes: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Run a graph on (N, ...) inputs, `sizes` (16) of them at a time; name to (N, ...) float32."""
    found: dict[str, npt.NDArray[np.float32]] = {}
    for rows, outputs in batches(engine, inputs, sizes or (min(BATCH_SIZE, len(inputs)),)):
        for name, values in outputs.items():
            if name not in found:
                found[name] = np.empty((len(inputs), *values.shape[1:]), np.float32)
            found[name][rows] = values
    return found


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder's N images differ by from the reference's; none is kept."""

    squared_errors: npt.NDArray[np.float64]  # (N,), averaged over the pixels of an image
    cosines: npt.NDArray[np.float64]  # (N,)
    largest: float  # error of a pixel
    not_finite: int  # values that are no numbers

    @classmethod
    def of(
        cls,
        engine: Engine,
        latents: Batch,
        reconstruction: Images,
        sizes: Sequence[int],
        *,
        output: str = "reconstruction",
    ) -> Decoded:
        """Run a graph on (N, ...) inputs, `sizes` of them at a time, and compare each image."""
        errors, alike = np.empty(len(latents)), np.empty(len(latents))
        greatest, not_finite = 0.0, 0
        for rows, outputs in batches(engine, latents, sizes):
            images = outputs[output]
            true = np.asarray(reconstruction[rows], np.float32)
            errors[rows] = squared_errors(images, true)
            alike[rows] = cosines(images, true)
            greatest = float(np.fmax(greatest, largest(images.astype(np.float64) - true)))
            not_finite += int(np.count_nonzero(~np.isfinite(images)))
        return cls(errors, alike, greatest, not_finite)
