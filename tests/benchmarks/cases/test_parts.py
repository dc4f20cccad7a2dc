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


def test_a_thread_is_woken_on_another_core_not_on_another_thread_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hardware threads of one core share it; where there is no other core nothing is bound."""
    bound: list[set[int]] = []
    monkeypatch.setattr(parts.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(
        parts.os, "sched_setaffinity", lambda _, cpus: bound.append(set(cpus)), raising=False
    )
    monkeypatch.setattr(parts, "core_of", lambda cpu: f"core {cpu // 2}")
    with parts._Sleeper(lambda: None) as sleeper:
        sleeper.lap()
    assert sorted(map(sorted, bound)) == [[0], [0, 1, 2, 3], [2, 3]]
    bound.clear()
    monkeypatch.setattr(parts, "core_of", lambda _: "the only one")
    with parts._Sleeper(lambda: None) as sleeper:
        sleeper.lap()
    assert not bound


def test_turns_add_up_and_a_turn_is_short(tested: ModelUnderTest) -> None:
    """A paced call takes a frame, and a run of the whole benchmark is to stay within minutes."""
    many = RoundPlan(samples=500, turn=100, settle=0)
    with parts.Parts(tested, [], [], seed=0) as alone:
        alone.measure(many)
        alone.measure(many)
        (case,) = alone.cases()
    assert (case.variant, case.turn) == ("waking a thread, paced at 60 fps", 20)
    assert case.whole is not None
    assert len(case.whole.samples) == 40
