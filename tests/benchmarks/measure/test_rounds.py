from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Callable

import pytest

from motorvae.benchmarks.measure.rounds import Laps, RoundPlan, interleaved, stopwatch
from motorvae.runtime.core.errors import ConfigError


def counting() -> Laps:
    """A subject whose n-th call says n, counting from 0."""
    calls = itertools.count()
    return lambda: {"run": next(calls)}


def recording(name: str, calls: list[str]) -> Laps:
    return stopwatch(lambda: calls.append(name), "run")


def test_subjects_take_turns() -> None:
    calls: list[str] = []
    subjects = {name: recording(name, calls) for name in "ABC"}
    interleaved(subjects, RoundPlan(samples=4, warmup=0, settle=0, turn=1))
    assert "".join(calls) == "ABC" * 4


def test_a_turn_settles_before_it_times_and_the_last_may_be_short() -> None:
    calls: list[str] = []
    subjects = {name: recording(name, calls) for name in "AB"}
    taken = interleaved(subjects, RoundPlan(samples=5, warmup=2, settle=1, turn=3))
    assert "".join(calls) == "AABB" + "AAAA" + "BBBB" + "AAA" + "BBB"
    assert [len(samples["run"]) for samples in taken.values()] == [5, 5]


def test_warmup_and_settling_calls_are_not_samples() -> None:
    taken = interleaved({"A": counting()}, RoundPlan(samples=4, warmup=3, settle=1, turn=2))
    assert taken == {"A": {"run": [4, 5, 7, 8]}}


def test_every_sample_is_kept_as_it_came() -> None:
    durations = iter([5, 5, 5, 10**12, 5, 5])
    taken = interleaved(
        {"A": lambda: {"run": next(durations)}}, RoundPlan(samples=6, warmup=0, settle=0)
    )
    assert taken["A"]["run"] == [5, 5, 5, 10**12, 5, 5]


def test_a_turn_settles_for_its_time() -> None:
    begin_s = time.perf_counter()
    taken = interleaved(
        {"A": counting()}, RoundPlan(samples=2, warmup=0, settle=0, settle_ms=20, turn=1)
    )
    assert time.perf_counter() - begin_s >= 0.04
    first, second = taken["A"]["run"]
    assert first > 0
    assert second > first + 1


def test_a_turn_waits_for_threads_that_still_work() -> None:
    """A thread that spins as an engine's do is done before the next subject is called."""
    spinning = threading.Event()
    seen: list[bool] = []

    def spin() -> None:
        give_up_s = time.perf_counter() + 0.1
        while time.perf_counter() < give_up_s:
            pass
        spinning.clear()

    def start() -> None:
        spinning.set()
        threading.Thread(target=spin).start()

    interleaved(
        {
            "A": stopwatch(start, "run"),
            "B": stopwatch(lambda: seen.append(spinning.is_set()), "run"),
        },
        RoundPlan(samples=2, warmup=0, settle=0, turn=1),
    )
    assert seen == [False, False]


def test_stages_are_kept_apart() -> None:
    def lap() -> dict[str, int]:
        return {"total": 3, "encode": 2}

    taken = interleaved({"A": lap}, RoundPlan(samples=2, warmup=1))
    assert taken == {"A": {"total": [3, 3], "encode": [2, 2]}}


def test_stopwatch_times_the_work_and_nothing_else() -> None:
    done: list[int] = []
    laps = stopwatch(lambda: done.append(sum(range(20_000))), "run")()
    assert len(done) == 1
    assert list(laps) == ["run"]
    assert laps["run"] > 0


def test_no_garbage_is_collected_while_timing() -> None:
    seen: list[bool] = []
    collecting: Callable[[], object] = lambda: seen.append(gc.isenabled())  # noqa: E731
    assert gc.isenabled()
    interleaved(
        {"A": stopwatch(collecting, "run")}, RoundPlan(samples=3, warmup=0, settle=0, turn=2)
    )
    assert seen == [False, False, False]
    assert gc.isenabled()


def test_a_failure_turns_the_collector_back_on() -> None:
    def fail() -> dict[str, int]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interleaved({"A": fail}, RoundPlan(samples=1, warmup=0, settle=0))
    assert gc.isenabled()


@pytest.mark.parametrize("schedule", [RoundPlan(samples=0), RoundPlan(samples=1, turn=0)])
def test_no_samples_or_endless_turns_are_refused(schedule: RoundPlan) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        interleaved({"A": counting()}, schedule)
