from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from motorvae.runtime.sources.pauses import PAUSE_NS, Heartbeat, Pause, PauseWatch, suspended_ns

from ...attacks.processes import short_form

STANDS_STILL = """
import sys, time
from motorvae.runtime.sources.pauses import HEARTBEAT, PauseWatch
with PauseWatch():
    started_ns = time.monotonic_ns()
    print("ready", flush=True)
    sys.stdin.readline()
    now_ns = time.monotonic_ns()
    print(HEARTBEAT.stood_ns(started_ns, now_ns) / 1e9, (now_ns - started_ns) / 1e9, flush=True)
"""


def test_a_stopped_process_knows_for_how_long() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", STANDS_STILL], **pipes) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        stopped_s = time.monotonic()
        threading.Event().wait(0.5)
        process.stdin.write("\n")
        process.stdin.flush()
        stood_s = time.monotonic() - stopped_s
        os.kill(process.pid, signal.SIGCONT)
        found_s, lasted_s = map(float, process.stdout.readline().split())
    assert stood_s <= found_s <= lasted_s


def test_a_pause_is_found_before_and_after_the_next_beat() -> None:
    heart = Heartbeat()
    heart.acquire()
    heart._ended.set()  # it stands still
    last_ns = heart._last_ns
    threading.Event().wait(3 * PAUSE_NS / 1e9)
    now_ns = time.monotonic_ns()
    found = heart.between(0, now_ns)
    assert found is not None
    assert found.end_ns == now_ns
    assert found.start_ns >= last_ns
    heart.beat()
    noted = heart.between(0, time.monotonic_ns())
    assert noted is not None
    assert noted.start_ns == found.start_ns
    assert heart.between(noted.end_ns, time.monotonic_ns()) is None
    assert heart.stood_ns(0, noted.end_ns) == noted.end_ns - noted.start_ns
    half_ns = (noted.start_ns + noted.end_ns) // 2
    assert heart.between(half_ns, noted.end_ns) == Pause(half_ns, noted.end_ns)
    heart.release()


def test_nobody_listens_and_no_thread_beats() -> None:
    before = threading.active_count()
    watches = [PauseWatch(), PauseWatch()]
    assert [one.name for one in threading.enumerate()].count("heartbeat") == 1
    for watch in watches:
        watch.close()
        watch.close()
    for thread in threading.enumerate():
        if thread.name == "heartbeat":
            thread.join(60)
    assert threading.active_count() <= before


def test_time_in_which_a_machine_is_suspended_is_known_where_the_clock_is() -> None:
    assert suspended_ns() >= -1_000_000


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals that stop a process")
def test_no_frame_of_a_stopped_reader_is_claimed_younger_than_it_is() -> None:
    """The short form of the attack: an MJPEG camera, two pauses."""
    options = ["--cameras", "http-mjpeg", "--count", "2", "--pause", "0.7"]
    assert json.loads(short_form("pauses", *options, limit_s=60))["frames"] > 50
