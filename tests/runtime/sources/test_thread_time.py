from __future__ import annotations

import hashlib
import os
import threading
import time

import pytest

from motorvae.runtime.sources import thread_time
from motorvae.runtime.sources.thread_time import awake_ns


def work() -> None:
    """Compute for some milliseconds without the interpreter's lock."""
    hashlib.pbkdf2_hmac("sha256", b"x", b"x", 20_000)


def test_a_thread_is_not_awake_while_it_waits() -> None:
    (before_ns, preempted), began_ns = awake_ns(), time.monotonic_ns()
    threading.Event().wait(0.1)
    after_ns, again = awake_ns()
    assert after_ns - before_ns < 0.5 * (time.monotonic_ns() - began_ns)
    assert preempted == again == 0


def test_a_thread_is_awake_while_another_has_its_core() -> None:
    """It was taken for one that never waits, and a frame that it waited for for one that lay
    there: a camera's rows then were older than they were, by the whole time between two frames."""
    found: list[tuple[int, int, int]] = []
    core, others, over = min(os.sched_getaffinity(0)), threading.Barrier(3), threading.Event()

    def beside() -> None:
        os.sched_setaffinity(0, {core})
        others.wait()
        while not over.is_set():
            work()

    def measured() -> None:
        os.sched_setaffinity(0, {core})
        others.wait()
        (before_ns, _), worked_ns, began_ns = awake_ns(), time.thread_time_ns(), time.monotonic_ns()
        while time.monotonic_ns() - began_ns < 300_000_000:
            work()
        awake = awake_ns()[0] - before_ns
        found.append((awake, time.thread_time_ns() - worked_ns, time.monotonic_ns() - began_ns))
        over.set()

    threads = [threading.Thread(target=each) for each in (beside, beside, measured)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((awake, worked, passed),) = found
    assert worked < 0.75 * passed  # the others had their share
    assert awake > 0.85 * passed


def test_without_the_kernels_count_a_core_that_was_taken_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thread_time, "_OF_THREAD", threading.local())
    monkeypatch.setattr(thread_time, "_SCHEDSTAT", "/nowhere")
    worked_ns, preempted = awake_ns()
    assert worked_ns > 0
    assert preempted > 0  # a process that runs tests was preempted before
