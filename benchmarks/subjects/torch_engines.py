"""Rivals from torch as functions from array to arrays, thread limits, and how engines agree."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import nn

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.errors import MeasurementError
from ...runtime.engines.base import Arrays, Batch
from ...runtime.engines.cpu_threads import default_threads
from ..measure.case import COMPILED, EAGER, Agreement

Run = Callable[[Batch], Arrays]

SPREAD_TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.1, "bf16": 1, "int8": 1}
"""Largest difference from torch over the standard deviation of the output. Below float32 it only
catches what is plainly wrong: drift is the gate's business."""
ROUNDING_TOLERANCE = 1e-6
"""What is allowed on top, over the largest value: some float32 roundings, for constant outputs."""

_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def eager_run(half: Callable[..., object], outputs: Sequence[str]) -> Run:
    """Give a module the signature of a backend: arrays in, arrays out, no gradients."""

    def run(batch: Batch) -> Arrays:
        with torch.inference_mode():
            found = half(torch.from_numpy(batch))
            tensors = found if isinstance(found, tuple) else (found,)
            return {name: t.numpy() for name, t in zip(outputs, tensors, strict=True)}

    return run


def compiled_run(half: nn.Module, outputs: Sequence[str], sample: Batch) -> Run:
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
            run = eager_run(torch.compile(half, dynamic=False), outputs)
            run(sample)
    except (RuntimeError, OSError, ImportError) as error:
        # The roots of all that Dynamo, Inductor and the C++ compiler raise.
        raise MeasurementError(f"{COMPILED} failed: {_reason(error)}") from error
    return run


@contextlib.contextmanager
def thread_limit(threads: int | None) -> Iterator[dict[str, int]]:
    """Hold torch and OpenCV to a number of threads, or leave each at its own choice.

    Backends take the number when a graph is opened.

    Returns:
        What each is set to; of ONNX Runtime and OpenVINO, as motorVAE opens them.

    Raises:
        MeasurementError: One of them did not take it.
    """
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)
        got = torch.get_num_threads(), cv2.getNumThreads()
        if threads is not None and got != (threads, threads):
            raise MeasurementError(
                f"asked torch and OpenCV for {threads} threads and got {got[0]} and {got[1]}: "
                "choose another --threads"
            )
        ours = threads or default_threads()
        yield {"torch": got[0], "ONNX Runtime": ours, "OpenVINO": ours, "OpenCV": got[1]}
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def agreement_with(
    reference: Arrays, found: Arrays, engine: str, precision: Precision = "fp32"
) -> tuple[Agreement, ...]:
    """Compare an engine's outputs, all that it gives, with torch eager's on the same input.

    Args:
        reference: What torch eager gives.
        found: What the engine gives.
        engine: For the message.
        precision: Of the engine; chooses the tolerance.

    Raises:
        MeasurementError: They differ by more than the tolerance, or in shape: timing a wrong
            result is worthless.
    """
    compared = []
    for output, values in found.items():
        expected = reference[output]
        if values.shape != expected.shape:
            raise MeasurementError(
                f"{engine} gives {output} of shape {values.shape} and {EAGER} {expected.shape}: "
                "export the bundle again"
            )
        limit = SPREAD_TOLERANCE[precision] * float(expected.std())
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
