from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from motorvae.runtime.core.system import other_core as module
from motorvae.runtime.core.system.other_core import OtherCore, core_of, other_core, runs_first


def may_run_first() -> bool:
    """Whether this user may ask for it, tried in a thread that ends."""
    found = []

    def ask() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
        except OSError:
            return
        found.append(True)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return bool(found)


NEEDS_TWO = pytest.mark.skipif(other_core() is None, reason="this needs two cores")


@NEEDS_TWO
@pytest.mark.parametrize("place", [0, -1])
def test_work_is_done_on_any_core_but_the_callers(place: int) -> None:
    before = os.sched_getaffinity(0)
    beside = other_core()
    assert beside is not None
    own = sorted(before)[place]
    try:
        os.sched_setaffinity(0, {own})
        started = beside.submit(lambda: (threading.get_native_id(), os.sched_getaffinity(0)))
    finally:
        os.sched_setaffinity(0, before)
    assert started is not None
    thread, cpus = started.result()
    assert thread != threading.get_native_id()
    assert cpus == {cpu for cpu in before if core_of(cpu) != core_of(own)}
    assert os.sched_getaffinity(thread) == before


@NEEDS_TWO
def test_two_hardware_threads_of_one_core_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cpu in os.sched_getaffinity(0):
        (tmp_path / str(cpu)).write_text("0-99\n")
    monkeypatch.setattr(module, "_SIBLINGS", str(tmp_path / "{number}"))
    assert OtherCore().submit(int) is None


@NEEDS_TWO
def test_cores_that_are_there_no_more_are_not_taken() -> None:
    beside = OtherCore()
    beside._cpus = frozenset({*beside._cpus, 10_000}) - os.sched_getaffinity(0)
    assert beside.submit(int) is None


@NEEDS_TWO
def test_a_busy_thread_takes_nothing_else_and_stays_where_it_is() -> None:
    beside, may_go = OtherCore(), threading.Event()

    def work() -> set[int]:
        may_go.wait()
        return os.sched_getaffinity(0)

    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        started = beside.submit(work)
        os.sched_setaffinity(0, {max(before)})
        assert beside.submit(int) is None
    finally:
        os.sched_setaffinity(0, before)
        may_go.set()
    assert started is not None
    assert min(before) not in started.result()
    again = beside.submit(int)
    assert again is not None
    assert again.result() == 0


@NEEDS_TWO
@pytest.mark.skipif(not may_run_first(), reason="SCHED_FIFO is not allowed here")
def test_work_runs_first_where_its_caller_does_and_else_not() -> None:
    beside, looked, may_go = OtherCore(), threading.Event(), threading.Event()

    def work() -> list[tuple[int, int]]:
        first = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
        looked.set()
        may_go.wait()
        return [first, (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)]

    def call(takes_long: bool) -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(2))
        assert runs_first()
        started = beside.submit(work)
        assert started is not None
        looked.wait()
        if takes_long:
            beside.calm()
        may_go.set()
        found.extend(started.result())

    found: list[tuple[int, int]] = []
    for takes_long in (True, False):
        looked.clear()
        may_go.clear()
        caller = threading.Thread(target=call, args=(takes_long,))
        caller.start()
        caller.join()
    fifo, other = (policy | os.SCHED_RESET_ON_FORK for policy in (os.SCHED_FIFO, os.SCHED_OTHER))
    assert found == [(fifo, 2), (other, 0), (fifo, 2), (fifo, 2)]
    assert not runs_first()
    ordinary = beside.submit(os.sched_getscheduler, 0)
    assert ordinary is not None
    assert ordinary.result() & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER


@NEEDS_TWO
def test_where_python_starts_no_work_nothing_is_taken_and_nothing_kept() -> None:
    beside = OtherCore()
    beside._pool.shutdown(wait=False)
    assert beside.submit(int) is None
    assert not beside._free.locked()


@pytest.mark.skipif(sys.platform != "linux", reason="this is about limits of Linux")
def test_where_no_thread_can_be_started_there_is_none() -> None:
    program = """
import codecs, os, resource, sys
from motorvae.runtime.core.system.other_core import other_core
codecs.lookup("ascii")  # read now, as nobody may not
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
if os.getuid() == 0:
    os.setresuid(65534, 65534, 65534)  # root may have any number
import threading
try:
    threading.Thread(target=int).start()
except RuntimeError:
    assert other_core() is None
else:
    sys.exit(5)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, timeout=60, check=False)
    if done.returncode == 5:
        pytest.skip("threads are not counted here")
    assert done.returncode == 0


def test_with_a_single_core_there_is_none() -> None:
    program = """
import os
from motorvae.runtime.core.system.other_core import other_core
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
assert other_core() is None
"""
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
