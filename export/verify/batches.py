"""Graphs run a few inputs at a time, at several batch sizes in turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...runtime.engines.base import Arrays, Batch
from ...runtime.pixels.convert import batch_of, input_from_pixels
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


class FloatInput:
    """Fitted pictures, (N, H, W) grey or (N, 3, H, W), as float32 (N, C, H, W) a few at a time."""

    def __init__(self, pictures: npt.NDArray[np.uint8]) -> None:
        self._planes = batch_of(pictures)

    def __len__(self) -> int:
        return len(self._planes)

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.float32]:
        return input_from_pixels(self._planes[rows])


def encoder_input(engine: Engine, pictures: npt.NDArray[np.uint8]) -> Images:
    """Return fitted pictures as an encoder takes them, in 8 bits or as floats."""
    return batch_of(pictures) if engine.input_dtype == np.uint8 else FloatInput(pictures)


def batches(
    engine: Engine, inputs: Images, sizes: Sequence[int]
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
    engine: Engine, inputs: Images, *sizes: int
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

    squared_errors: npt.NDArray[np.float64]  # (N,), averaged over the values of an image
    cosines: npt.NDArray[np.float64]  # (N,)
    largest: float  # error of a pixel
    not_finite: int  # values that are no numbers

    @classmethod
    def of(
        cls,
        engine: Engine,
        latents: Images,
        reconstruction: Images,
        sizes: Sequence[int],
        *,
        output: str = "reconstruction",
        within: bool = False,
    ) -> Decoded:
        """Run a graph on (N, ...) inputs, `sizes` of them at a time, and compare each image.

        `within`, what lies outside [0, 1] counts as its nearer end, as on a screen: decoders
        without a last squashing function go far beyond, away from all data.
        """
        errors, alike = np.empty(len(latents)), np.empty(len(latents))
        greatest, not_finite = 0.0, 0
        for rows, outputs in batches(engine, latents, sizes):
            images = outputs[output]
            true = np.asarray(reconstruction[rows], np.float32)
            not_finite += int(np.count_nonzero(~np.isfinite(images)))
            if within:
                images = np.where(np.isfinite(images), np.clip(images, 0, 1), np.nan)
                true = np.clip(true, 0, 1)
            errors[rows] = squared_errors(images, true)
            alike[rows] = cosines(images, true)
            greatest = float(np.fmax(greatest, largest(images.astype(np.float64) - true)))
        return cls(errors, alike, greatest, not_finite)
