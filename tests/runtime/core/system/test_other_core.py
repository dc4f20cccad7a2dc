from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from motorvae.runtime.core.system import other_core as module
from motorvae.runtime.core.system.other_core import OtherCore, core_of, other_core

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


def test_with_a_single_core_there_is_none() -> None:
    program = """
import os
from motorvae.runtime.core.system.other_core import other_core
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
assert other_core() is None
"""
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
