"""A step's process, with real ones: hanging, forking, flooding, and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from motorvae.benchmarks.proof.process import HEAD_BYTES, TAIL_BYTES, Ended, run_within

# Starts a process in a session and a group of its own that ignores what can be ignored.
FORKING = """
import os, signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
one = subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
print("grandchild", one.pid, flush=True)
"""


def run(code: str, tmp_path: Path, limit_s: float = 60) -> Ended:
    command = [sys.executable, "-u", "-c", code]
    return run_within(command, limit_s=limit_s, log=tmp_path / "log", folder=tmp_path)


def is_running(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] != "Z"


def grandchild_of(log: Path) -> int:
    return int(log.read_text(encoding="utf-8").split()[1])


def test_what_hangs_is_killed_at_its_limit_with_a_grandchild_in_another_session(
    tmp_path: Path,
) -> None:
    begin_s = time.monotonic()
    found = run(f"{FORKING}\ntime.sleep(600)", tmp_path, limit_s=3)
    assert time.monotonic() - begin_s < 60
    assert (found.exit_code, found.at_limit) == (None, True)
    assert found.words == "killed at its time limit, after 3 s"
    assert not is_running(grandchild_of(tmp_path / "log"))


def test_an_interrupt_while_it_is_started_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        """As if Ctrl-C had come just then."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("import time; time.sleep(600)", tmp_path)
    assert not is_running(started[0].pid)


def test_what_ends_and_leaves_a_process_behind_is_not_waited_for(tmp_path: Path) -> None:
    """That holds the pipe of the output, so that reading to its end would wait for ever."""
    begin_s = time.monotonic()
    found = run(FORKING, tmp_path)
    assert time.monotonic() - begin_s < 50
    assert (found.exit_code, found.at_limit, found.left_behind) == (0, False, 1)
    assert not is_running(grandchild_of(tmp_path / "log"))


def test_a_hundred_megabytes_of_output_keep_head_and_tail(tmp_path: Path) -> None:
    code = (
        "import sys\nprint('first line')\nfor _ in range(100): sys.stdout.write('x' * (1 << 20))\n"
        "print('\\nlast line')"
    )
    found = run(code, tmp_path)
    log = (tmp_path / "log").read_bytes()
    assert (found.exit_code, found.last_line) == (0, "last line")
    assert log.startswith(b"first line\n")
    assert log.endswith(b"\nlast line\n")
    assert HEAD_BYTES + TAIL_BYTES < len(log) < HEAD_BYTES + TAIL_BYTES + 200
    assert f"{100 * (1 << 20) - HEAD_BYTES - TAIL_BYTES + 22} bytes were left out".encode() in log


def test_one_killed_as_for_memory_is_named(tmp_path: Path) -> None:
    found = run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    assert found.exit_code == -9
    assert found.words.startswith("ended by SIGKILL (the system kills so what takes too much")


def test_a_crash_is_named_by_its_signal(tmp_path: Path) -> None:
    found = run("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", tmp_path)
    assert found.words == "ended by SIGSEGV"


def test_what_cannot_be_started_says_so(tmp_path: Path) -> None:
    found = run_within([str(tmp_path / "none")], limit_s=5, log=tmp_path / "log")
    assert (found.exit_code, found.words) == (None, "cannot be started: No such file or directory")


def test_the_last_line_that_says_something_counts_without_colours(tmp_path: Path) -> None:
    code = "print('begin')\nprint('\\x1b[31mthe reason\\x1b[0m')\nprint('=====')\nprint()"
    assert run(code, tmp_path).last_line == "the reason"


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('x' * (1 << 20))\nprint('the end')"]
    found = run_within(command, limit_s=60, log=tmp_path / "no" / "folder" / "log")
    assert (found.exit_code, found.last_line) == (0, "the end")


def test_nothing_of_it_is_in_this_process(tmp_path: Path) -> None:
    before = dict(os.environ)
    run("pass", tmp_path)
    assert dict(os.environ) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # nothing is left to be waited for
