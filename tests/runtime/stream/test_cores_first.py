"""Threads of a stream that run before others, and no longer than they may."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from motorvae.runtime.core.system.other_core import other_core
from motorvae.runtime.stream import cores as module
from motorvae.runtime.stream.cores import Cores

from .test_cores import in_a_thread, placed, several_cores, workers

Runs = Callable[..., Any]


def _may_run_first() -> bool:
    allowed: list[bool] = []

    def try_it() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except OSError:
            allowed.append(False)
        else:
            allowed.append(True)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return allowed[0]


first = pytest.mark.skipif(not _may_run_first(), reason="SCHED_FIFO is not allowed here")
FIFO = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK


@several_cores
@first
def test_threads_run_first_and_the_callers_only_while_it_is_bound() -> None:
    def work() -> None:
        with placed(1, first=True) as (cores, (worker,)):
            assert os.sched_getscheduler(worker) == FIFO
            cores.bind()
            assert os.sched_getscheduler(0) == FIFO
            with workers(1) as (begun,):  # it inherits nothing
                assert os.sched_getscheduler(begun) == os.SCHED_OTHER
            cores.release()
            assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER

    in_a_thread(work)


@several_cores
@first
def test_what_works_for_a_thread_that_ran_first_is_ordinary_with_it() -> None:
    def work() -> None:
        beside = other_core()
        assert beside is not None
        cores = Cores(first=True)
        cores.begin_capture()
        begun = beside.submit(threading.get_native_id)
        assert begun is not None
        thread = begun.result()
        assert os.sched_getscheduler(thread) == FIFO
        cores.close()
        assert os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER

    in_a_thread(work)


BUSY = """
import ctypes, hashlib, os, sys, threading
from motorvae.runtime.stream import cores as module
module._LOOK_S = 0.1
cores = module.Cores(first=True)
with cores.placing():
    over = threading.Event()
    worker = threading.Thread(target=over.wait)
    worker.start()
ids = worker.native_id, threading.get_native_id()
cores.bind()
def policies():
    return [os.sched_getscheduler(one) & ~os.SCHED_RESET_ON_FORK for one in ids]
found = [policies()]
def look():
    while not over.wait(0.02):
        if policies() not in found:
            found.append(policies())
threading.Thread(target=look).start()
if sys.argv[1] == "hangs":  # far from Python, as an engine would, with Python's lock let go
    hashlib.pbkdf2_hmac("sha256", b"", b"", 3_000_000)
else:
    threading.Event().wait(0.6)
over.set()
cores.close()
print(found, [one.name for one in threading.enumerate() if one.name == "watch cores"])
"""


@several_cores
@first
@pytest.mark.parametrize("what", ["hangs", "rests"])
def test_a_thread_that_hangs_in_an_engine_runs_first_no_longer(what: str) -> None:
    """Nor do the others: what is not Python would keep a core from everybody, for ever."""
    command = [sys.executable, "-c", BUSY, what]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    first, ordinary = [os.SCHED_FIFO] * 2, [os.SCHED_OTHER] * 2
    assert done.stdout.strip() == f"{[first, ordinary] if what == 'hangs' else [first]} []"


CALLER = """
import os, threading, time
from motorvae.runtime.stream import cores as module
module._LOOK_S = 0.1
with module.Cores(first=True) as cores:
    for _ in range(2):
        cores.bind()
        threading.Event().wait(0.35)  # it is seen
        cores.release()
        until = time.thread_time() + 0.8
        while time.thread_time() < until:
            sum(range(1000))
    cores.bind()
    threading.Event().wait(0.35)
    print(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO, cores.note)
"""


@several_cores
@first
def test_what_the_caller_computes_between_its_rows_is_not_held_against_it() -> None:
    command = [sys.executable, "-c", CALLER]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "True None"


@several_cores
@first
@pytest.mark.parametrize("what", ["computes", "reads"])
def test_a_thread_that_hangs_runs_first_no_longer_once_all_is_closed(what: str) -> None:
    """The thread of a camera may outlive the stream, as whoever closes it waits so long only."""
    answered, answer = os.pipe()
    began = threading.Event()
    cores = Cores(first=True)

    def hang() -> None:
        cores.begin_capture()
        began.set()
        if what == "computes":  # without Python's lock
            hashlib.pbkdf2_hmac("sha256", b"", b"", 1_500_000)
        os.read(answered, 1)

    thread = threading.Thread(target=hang)
    thread.start()
    try:
        began.wait()
        assert os.sched_getscheduler(thread.native_id or 0) == FIFO
        cores.close()
        assert _policy(thread.native_id or 0) == os.SCHED_OTHER
        assert cores.note is None
    finally:
        os.write(answer, b"e")
        thread.join()
        os.close(answer)
        os.close(answered)

    def late() -> None:
        cores.begin_capture()
        assert _policy(0) == os.SCHED_OTHER

    in_a_thread(late)


def _policy(thread: int) -> int:
    return os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK


@several_cores
@first
def test_threads_are_made_ordinary_once_and_those_that_are_no_longer_ours_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.02)
    monkeypatch.setattr(module, "_MOST_SHARE", 2.0)
    made: list[int] = []
    make = module.make_ordinary
    monkeypatch.setattr(module, "make_ordinary", lambda one: (made.append(one), make(one)))

    def work() -> None:
        own, over = threading.get_native_id(), threading.Event()
        with placed(1, first=True) as (cores, (worker,)), workers(1):
            with workers(1) as (ended,):
                cores._raise("one that ends", ended)
            cores.bind()
            cores.release()
            assert own not in cores._raised
            while ended in cores._raised and not over.wait(0.01):
                pass  # the time limit of all tests ends it
            os.sched_setscheduler(0, FIFO, os.sched_param(1))  # by the caller itself
            monkeypatch.setattr(module, "_MOST_SHARE", -1.0)
            assert cores._watching is not None
            watching = cores._watching.native_id
            cores._watching.join()
            assert _policy(worker) == os.SCHED_OTHER
            assert _policy(0) == os.SCHED_FIFO
            os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
            assert made == [worker, watching]  # who looks after them is the last
            assert cores.note is not None
            assert "a worker of the encoder took more than" in cores.note
        assert len(made) == 2

    in_a_thread(work)


@several_cores
@first
def test_where_no_thread_can_look_after_them_threads_stay_ordinary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def work() -> None:
        with Cores(first=True) as cores:
            with monkeypatch.context() as patched:
                patched.setattr(module.threading.Thread, "start", refused)
                cores.begin_capture()
            assert _policy(0) == os.SCHED_OTHER
            expected = "threads run among all others, as none can look after them"
            assert cores.note == f"{expected} (can't start new thread)"

    in_a_thread(work)


@several_cores
@first
def test_a_stream_says_once_that_its_threads_run_first_no_longer(
    monkeypatch: pytest.MonkeyPatch, stream: Runs
) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.2)
    monkeypatch.setattr(module, "_MOST_SHARE", 0.001)
    camera = ("--camera", "synthetic?fps=60", "--max-frames", 90)
    done = stream(*camera, "--latency", "lowest", "--backend", "onnx", "--threads", 1)
    assert done.code == 0
    said = " ".join(done.stderr.split())
    assert said.count("threads run among all others by now, as ") == 1
    assert said.count("of a core") == 1
