"""Engines timed in turns: which clock counts, and who begins."""

from __future__ import annotations

from typing import Any

import numpy as np

from motorvae.export.tensorrt.timing import RUNS, TURNS, WARMUP, paired_times

ORDER: list[str] = []


class Scripted:
    """An engine whose GPU takes so long, whatever the host's clock says."""

    def __init__(self, name: str, device_ms: float, enqueue_ms: float) -> None:
        self.name = name
        self.found = {"device": device_ms, "enqueue": enqueue_ms, "compute": enqueue_ms}
        self.batches: set[int] = set()

    def run(self, batch: Any, /) -> dict[str, Any]:
        ORDER.append(self.name)
        self.batches.add(len(batch))
        return {"mu": batch}

    def repeat_timed(self) -> dict[str, float]:
        ORDER.append(self.name)
        return self.found


def test_times_are_those_of_the_gpus_clock() -> None:
    """The slower one of two on the GPU has the shorter call on the host."""
    one, other = Scripted("one", 2.0, 0.1), Scripted("other", 1.0, 0.9)
    times = paired_times(one, other, (np.zeros((3, 8), np.float32), np.zeros((3, 1), np.uint8)))
    assert times.medians == (2.0, 1.0)
    assert times.batch == 3
    assert not times.is_faster
    assert len(times.ms) == len(times.against_ms) == TURNS
    assert one.batches == other.batches == {3}


def test_each_engine_begins_half_of_the_turns() -> None:
    ORDER.clear()
    one, other = Scripted("one", 1.0, 1.0), Scripted("other", 1.0, 1.0)
    batch = np.zeros((1, 8), np.float32)
    paired_times(one, other, (batch, batch))
    timed = ORDER[2 * 2 * WARMUP :]
    turn = 2 * (RUNS + 1)
    assert len(timed) == TURNS * turn
    begins = timed[::turn]
    assert begins.count("one") == begins.count("other") == TURNS // 2
    assert begins[0] != begins[1]
