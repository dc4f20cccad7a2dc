"""The engines that are compared, each as one function from array to arrays, and their agreement."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..runtime.backend import Arrays, open_onnx
from ..runtime.errors import MeasurementError
from .results import COMPILED, EAGER, ONNX, Agreement

Array = npt.NDArray[np.float32]
Run = Callable[[Array], Arrays]

SPREAD_TOLERANCE = 1e-3
"""Largest difference of two float32 engines over the standard deviation of the output."""
ROUNDING_TOLERANCE = 1e-6
"""What is allowed on top, over the largest value: some float32 roundings, for constant outputs."""

_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@dataclass(frozen=True)
class Engine:
    """One opened engine.

    Attributes:
        name: For reports.
        run: (N, ...) float32 to the graph's outputs by name.
        prepare_s: Seconds from the file or module to the first result.
    """

    name: str
    run: Run
    prepare_s: float


def eager_engine(half: nn.Module, outputs: Sequence[str], sample: Array) -> Engine:
    """Return the torch module as it is."""
    return _prepared(EAGER, lambda: _torch_run(half, outputs), sample)


def compiled_engine(half: nn.Module, outputs: Sequence[str], sample: Array) -> Engine:
    """Compile the torch module for exactly this batch, from an empty compiler cache.

    Raises:
        MeasurementError: The compiler failed; the message holds its reason.
    """
    torch.compiler.reset()  # a second batch size would otherwise share guards with the first
    try:
        with _empty_compiler_cache(), warnings.catch_warnings():
            # torch's own use of its own deprecated decorator while it loads the compiler.
            warnings.filterwarnings(
                "ignore", category=DeprecationWarning, message=".*torch.jit.script_method.*"
            )
            return _prepared(
                COMPILED, lambda: _torch_run(torch.compile(half, dynamic=False), outputs), sample
            )
    except (RuntimeError, OSError, ImportError) as error:
        # The roots of all that Dynamo, Inductor and the C++ compiler raise.
        raise MeasurementError(f"{COMPILED} failed: {_reason(error)}") from error


@contextlib.contextmanager
def onnx_engine(path: Path, sample: Array, threads: int) -> Iterator[Engine]:
    """Open an ONNX graph on the production backend.

    Raises:
        BackendError: ONNX Runtime refused the graph.
    """
    begin = time.perf_counter()
    with open_onnx(path, threads=threads) as backend:
        backend.run(sample)
        yield Engine(ONNX, backend.run, time.perf_counter() - begin)


@contextlib.contextmanager
def thread_limit(threads: int | None) -> Iterator[int]:
    """Hold torch and OpenCV to a number of threads; by default to torch's own choice.

    ONNX Runtime takes the number when a graph is opened.
    """
    before = torch.get_num_threads(), cv2.getNumThreads()
    wanted = before[0] if threads is None else threads
    try:
        torch.set_num_threads(wanted)
        cv2.setNumThreads(wanted)
        got = torch.get_num_threads(), cv2.getNumThreads()
        if got != (wanted, wanted):
            raise MeasurementError(
                f"asked torch and OpenCV for {wanted} threads and got {got[0]} and {got[1]}: "
                "choose another --threads"
            )
        yield wanted
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def agreement_with(reference: Arrays, found: Arrays, engine: str) -> tuple[Agreement, ...]:
    """Compare an engine's outputs with torch eager's on the same input.

    Raises:
        MeasurementError: They differ by more than the tolerance, or in shape: timing a wrong
            result is worthless.
    """
    compared = []
    for output, expected in reference.items():
        values = found[output]
        if values.shape != expected.shape:
            raise MeasurementError(
                f"{engine} gives {output} of shape {values.shape} and {EAGER} {expected.shape}: "
                "export the bundle again"
            )
        limit = SPREAD_TOLERANCE * float(expected.std())
        limit += ROUNDING_TOLERANCE * float(np.abs(expected).max())
        difference = float(np.abs(values - expected).max())
        if not difference <= limit:  # catches NaN too
            raise MeasurementError(
                f"{engine} and {EAGER} disagree on {output}: largest difference "
                f"{difference:.3g}, limit {limit:.3g}; a benchmark of a wrong result is "
                "worthless: export the bundle again, and report this if it stays"
            )
        compared.append(
            Agreement(output=output, reference=EAGER, max_difference=difference, limit=limit)
        )
    return tuple(compared)


def _prepared(name: str, make: Callable[[], Run], sample: Array) -> Engine:
    begin = time.perf_counter()
    run = make()
    run(sample)
    return Engine(name, run, time.perf_counter() - begin)


def _torch_run(half: Callable[..., object], outputs: Sequence[str]) -> Run:
    """Give a module the same signature as a backend: arrays in, arrays out, no gradients."""

    def run(batch: Array) -> Arrays:
        with torch.inference_mode():
            found = half(torch.from_numpy(batch))
            tensors = found if isinstance(found, tuple) else (found,)
            return {name: t.numpy() for name, t in zip(outputs, tensors, strict=True)}

    return run


@contextlib.contextmanager
def _empty_compiler_cache() -> Iterator[None]:
    """Let Inductor start from nothing, so that a compile time is never that of a cache hit."""
    before = os.environ.get(_CACHE_VARIABLE)
    with tempfile.TemporaryDirectory(prefix="motorvae-inductor-") as folder:
        os.environ[_CACHE_VARIABLE] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[_CACHE_VARIABLE]
            else:
                os.environ[_CACHE_VARIABLE] = before


def _reason(error: Exception) -> str:
    """Return the first line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
