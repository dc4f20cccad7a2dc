"""The trial's verdict follows the clock: backends here are as slow as a test makes them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.closing import Closing
from motorvae.runtime.engines.autotune_threads import autotuned_engine
from motorvae.runtime.engines.base import Arrays, Batch
from motorvae.runtime.engines.open import open_engine
from motorvae.runtime.engines.request import EngineRequest
from motorvae.runtime.engines.select import SelectedEngine


class Timed(Closing):
    """An engine whose run takes so many seconds."""

    input_dtype = np.dtype(np.uint8)
    outputs = ("mu",)

    def __init__(self, threads: int | None, run_s: float) -> None:
        self.name, self.notes, self.threads = "timed", (), threads
        self.run_s, self.closed, self.runs = run_s, False, 0

    def run(self, batch: Batch) -> Arrays:
        assert batch.shape == (1, 1, 32, 32)
        assert batch.dtype == np.uint8
        self.runs += 1
        until = time.monotonic() + self.run_s
        while time.monotonic() < until:
            pass
        return {}

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("one_is_faster", [True, False])
def test_the_faster_one_stays_open_and_says_why(*, one_is_faster: bool) -> None:
    slow_s, fast_s = 0.03, 0.002
    opened = {
        None: Timed(4, slow_s if one_is_faster else fast_s),
        1: Timed(1, fast_s if one_is_faster else slow_s),
    }
    kept = autotuned_engine(lambda n: SelectedEngine(opened[n], "fp32"), (1, 1, 32, 32))  # type: ignore[arg-type]
    faster, slower = (opened[1], opened[None]) if one_is_faster else (opened[None], opened[1])
    assert kept.backend is faster
    assert (faster.closed, slower.closed) == (False, True)
    assert faster.runs == slower.runs > 4
    assert kept.backend.notes[-1].startswith("1 thread, as" if one_is_faster else "4 threads, as")


@pytest.mark.parametrize("threads", [None, 1])
def test_without_a_choice_nothing_is_tried(threads: int | None) -> None:
    only = Timed(threads, 0.0)
    kept = autotuned_engine(lambda _: SelectedEngine(only, "fp32"), (1, 1, 32, 32))  # type: ignore[arg-type]
    assert kept.backend is only
    assert (only.runs, only.closed, only.notes) == (0, False, ())


def test_a_real_engine_still_gives_its_latents(small_bundle: Path) -> None:
    bundle = load_bundle(small_bundle)

    def open_with(threads: int | None) -> SelectedEngine:
        request = EngineRequest(backend="onnx", threads=threads or 2)
        return SelectedEngine(open_engine(bundle, GraphKey("encoder"), request), "fp32")

    with autotuned_engine(open_with, (1, 1, 32, 32)).backend as backend:
        assert backend.run(np.zeros((1, 1, 32, 32), np.float32))["mu"].shape == (1, 8)
        assert len(backend.notes) == 1
