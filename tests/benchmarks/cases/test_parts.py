"""Parts of a stream alone: an encoder opened as a stream opens it, and a thread that is woken."""

from __future__ import annotations

import os
import threading
import time

import pytest

from motorvae.benchmarks.cases import parts
from motorvae.benchmarks.measure.rounds import RoundPlan
from motorvae.benchmarks.under_test.model_under_test import ModelUnderTest
from motorvae.runtime.bundle.graph_key import GraphKey

ORT = GraphKey("encoder", target="onnx")


def test_an_encoder_is_what_a_stream_runs_where_a_stream_runs_it(tested: ModelUnderTest) -> None:
    """It gives mu alone, and its thread is bound while it waits and works, and free after."""
    with parts._encoder(tested, ORT, "synthetic", seed=0) as (run, cores):
        found = run()
        assert set(found) == {"mu"}  # type: ignore[call-overload]
        if not hasattr(os, "sched_getaffinity"):
            pytest.skip("this system places no threads")
        before = os.sched_getaffinity(0)
        cores._own = {min(before)}
        where: list[set[int]] = []

        def lap() -> dict[str, int]:
            where.append(os.sched_getaffinity(0))
            return {"encode": 1}

        assert parts._bound(cores, lap)() == {"encode": 1}
        assert where == [{min(before)}]
        assert os.sched_getaffinity(0) == before
    assert all(thread.name != "open encoder" for thread in threading.enumerate())


def test_a_thread_is_woken_from_sleep_and_ends() -> None:
    waited = []
    with parts._Sleeper(lambda: waited.append(time.sleep(0.005))) as sleeper:
        taken_ns = [sleeper.lap()["wake"] for _ in range(5)]
        (thread,) = (one for one in threading.enumerate() if one.name == "sleeper")
        if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1:
            own = os.sched_getaffinity(thread.native_id or 0)
            assert len(own) == 1 < len(os.sched_getaffinity(0))
    assert len(waited) == 5
    assert all(1 < one < 1e9 for one in taken_ns)
    assert not thread.is_alive()
    sleeper.close()  # once more does nothing


def test_fewer_paced_calls_are_made_than_of_others(tested: ModelUnderTest) -> None:
    """They take a frame each: a run of the whole benchmark is to stay within minutes."""
    many = RoundPlan(samples=500, turn=100, warmup=0, settle=0)
    cases = parts.part_cases(tested, [], [], many, seed=0)
    assert [case.variant for case in cases] == ["waking a thread, paced at 60 fps"]
    assert [case.whole and len(case.whole.samples) for case in cases] == [60]
    assert [case.turn for case in cases] == [15]
