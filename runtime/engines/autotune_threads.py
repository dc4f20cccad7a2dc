"""Whether one thread encodes a camera's frames sooner than all of them, tried on this machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import numpy as np

from ..core.latency import NS_PER_MS
from .base import Backend
from .select import SelectedEngine

_RUNS = 6
_UNTIMED = 1
_PAUSE_S = 0.003
"""Between two frames of a camera the threads of an engine fall asleep, and so they must here."""


def autotuned_engine(
    open_with: Callable[[int | None], SelectedEngine], batch_shape: tuple[int, ...]
) -> SelectedEngine:
    """Open an encoder, and open it again with one thread where that is the faster way.

    Runs that follow each other at once say nothing of a camera: between its frames threads fall
    asleep, and to wake them can take longer than the work that they take over.

    Args:
        open_with: Opens the encoder with a number of threads, by default all that there are.
        batch_shape: (N, 1, S, S), a frame of each camera.

    Returns:
        The faster one, with a note of what was measured. The other is closed.
    """
    every = open_with(None)
    threads = every.backend.threads
    if threads is None or threads == 1:
        return every
    with contextlib.ExitStack() as stack:
        stack.enter_context(every.backend)
        one = open_with(1)
        stack.enter_context(one.backend)
        batch = np.zeros(batch_shape, every.backend.input_dtype)
        every_ms, one_ms = _paced_ms([every.backend, one.backend], batch)
        kept, other = (one, every) if one_ms < every_ms else (every, one)
        stack.pop_all()
        other.backend.close()
    kept.backend.notes += (
        f"{kept.backend.threads} thread{'s' if kept is every else ''}, as frames with pauses "
        f"between them took {one_ms:.1f} ms with 1 and {every_ms:.1f} ms with {threads}",
    )
    return kept


def _paced_ms(backends: list[Backend], batch: np.ndarray) -> list[float]:
    """Return the median time of a run after a pause, of each backend in turns."""
    samples: list[list[int]] = [[] for _ in backends]
    for _ in range(_UNTIMED + _RUNS):
        for backend, taken in zip(backends, samples, strict=True):
            time.sleep(_PAUSE_S)
            began_ns = time.monotonic_ns()
            backend.run(batch)
            taken.append(time.monotonic_ns() - began_ns)
    return [float(np.median(taken[_UNTIMED:])) / NS_PER_MS for taken in samples]
