"""Interleaved rounds: what is called when, and the raw durations that come of it."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from pydantic import Field

from ...runtime.core.errors import ConfigError
from ...runtime.core.spec import StrictModel
from .case import Case

Key = TypeVar("Key", bound=Hashable)
Laps = Callable[[], Mapping[str, int]]
"""Does the work once and returns nanoseconds per stage."""
Timings = dict[str, list[int]]
"""Nanoseconds of every timed call, per stage, in the order in which they were taken."""

Span = tuple[int, int]
"""Begin and end of a turn by the monotonic clock, in nanoseconds; calls that settle are in it."""

_LOOK_S, _MOST_WAIT_S = 0.002, 1.0
_QUIET_SHARE = 0.1
"""Of one core: what this process may use while it counts as quiet."""


class RoundPlan(StrictModel):
    """How often each piece of work is called.

    They take turns, A B C A B C. A turn begins once this process does nothing any more: ONNX
    Runtime's threads, for one, spin on for 40 ms after a run. Then come calls that are not timed.
    The caches still hold the data of the one before, and a system's scheduler takes tens of
    milliseconds to spread the threads of another engine over the cores again.
    """

    samples: int  # Timed calls of each
    warmup: int = 10  # Calls of each before the first round, never timed
    settle: int = 2  # Calls at the start of each turn, never timed
    settle_ms: float = Field(default=0, ge=0, le=10_000)  # How long these go on at least
    turn: int = 10  # Timed calls in one turn; the last turn may be shorter


class TimedCase(NamedTuple):
    """A case with its samples, what does its work once more, and when it was timed."""

    case: Case
    lap: Laps
    spans: Sequence[Span]


class CaseMeter(Protocol):
    """Adds what is measured beside time."""

    def measured(self, timed: Sequence[TimedCase]) -> list[Case]:
        """Return the cases with what it found; it may do their work again."""
        ...


def stopwatch(
    work: Callable[[], object], stage: str, *, first: Callable[[], object] | None = None
) -> Laps:
    """Return `work` as one that is timed in one stage; `first` is called before, not timed."""

    def lap() -> dict[str, int]:
        if first is not None:
            first()
        begin = time.perf_counter_ns()
        work()
        return {stage: time.perf_counter_ns() - begin}

    return lap


def pacer(fps: float) -> Callable[[], None]:
    """Return what waits until the next tick of a camera's clock."""
    return lambda: time.sleep(-time.monotonic() % (1 / fps))


def awake_pacer(fps: float) -> Callable[[], None]:
    """Return what does the same without sleep: it looks at the clock all the time."""

    def wait() -> None:
        due_s = time.monotonic() + -time.monotonic() % (1 / fps)
        while time.monotonic() < due_s:
            pass

    return wait


def timed_cases(
    planned: Sequence[tuple[Case, Laps]], schedule: RoundPlan, meter: CaseMeter | None = None
) -> list[Case]:
    """Return cases with their samples, taken in turns, and with what `meter` adds."""
    spans: dict[int, list[Span]] = {}
    samples = interleaved(dict(enumerate(laps for _, laps in planned)), schedule, spans=spans)
    timed = [
        TimedCase(case.timed(samples[place], turn=schedule.turn), laps, spans[place])
        for place, (case, laps) in enumerate(planned)
    ]
    return [one.case for one in timed] if meter is None else meter.measured(timed)


def interleaved(
    timed: Mapping[Key, Laps],
    schedule: RoundPlan,
    *,
    spans: dict[Key, list[Span]] | None = None,
) -> dict[Key, Timings]:
    """Time pieces of work in turns, so that whatever drifts hits all alike.

    Every sample is kept: nothing is trimmed, clipped or averaged. `spans` is filled with when each
    had its turns.
    """
    if schedule.samples < 1 or schedule.turn < 1:
        raise ConfigError(
            f"samples={schedule.samples}, turn={schedule.turn}: each must be at least 1"
        )
    for lap in timed.values():
        for _ in range(schedule.warmup):
            lap()
    samples: dict[Key, Timings] = {name: {} for name in timed}
    with _no_collector():
        for start in range(0, schedule.samples, schedule.turn):
            for name, lap in timed.items():
                gc.collect()
                wait_until_quiet()
                begin_ns = time.monotonic_ns()
                calls, until_s = 0, time.perf_counter() + schedule.settle_ms / 1e3
                while calls < schedule.settle or time.perf_counter() < until_s:
                    lap()
                    calls += 1
                turn = range(min(schedule.turn, schedule.samples - start))
                laps = [lap() for _ in turn]
                if spans is not None:
                    spans.setdefault(name, []).append((begin_ns, time.monotonic_ns()))
                for stages in laps:
                    for stage, duration_ns in stages.items():
                        samples[name].setdefault(stage, []).append(duration_ns)
    return samples


def wait_until_quiet() -> None:
    """Wait until no thread of this process works any more, but not for ever."""
    give_up_s = time.perf_counter() + _MOST_WAIT_S
    while time.perf_counter() < give_up_s:
        begin_s, used_s = time.perf_counter(), time.process_time()
        time.sleep(_LOOK_S)
        share = (time.process_time() - used_s) / (time.perf_counter() - begin_s)
        if share < _QUIET_SHARE and not _another_thread_runs():
            return


def _another_thread_runs() -> bool:
    """Whether a thread but this one wants a core; on a busy machine it may get hardly any time."""
    own = str(threading.get_native_id())
    for task in Path("/proc/self/task").glob("*"):  # nothing, where the system is not Linux
        with contextlib.suppress(OSError):  # it ended just now
            stat = (task / "stat").read_text(encoding="ascii", errors="replace")
            if task.name != own and stat.rpartition(") ")[2].startswith("R"):
                return True
    return False


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Collect garbage on demand only, and quickly: what exists now is left alone."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
