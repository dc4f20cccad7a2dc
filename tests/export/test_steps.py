from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from motorvae.export import steps
from motorvae.export.steps import steps_shown


class Pipe(io.StringIO):
    """No terminal; says when a text has come through."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.came = threading.Event()
        self._text = text

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._text in self.getvalue():
            self.came.set()
        return written


def test_a_long_step_is_not_silent_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steps, "LINE_EVERY_S", 0.01)
    pipe = Pipe("encoder fp16 ...\n")
    before = threading.active_count()
    with steps_shown(Console(file=pipe), "loading torch") as show:
        show("encoder fp16")
        assert pipe.came.wait(30)
    assert threading.active_count() == before


def test_a_step_that_fails_at_once_is_not_named() -> None:
    pipe = Pipe("loading torch")
    with pytest.raises(ValueError, match="one line"), steps_shown(Console(file=pipe), "loading"):
        raise ValueError("one line")
    assert pipe.getvalue() == ""


RUN = """
import signal, sys
from motorvae.export.steps import run_process
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test may run with it ignored
run_process(["sh", "-c", sys.argv[1]])
"""


@pytest.fixture
def running(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a shell's script as `run_process` does."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN, request.param],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield process
        process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("running", ["echo $$; exec sleep 1000"], indirect=True)
def test_ctrl_z_stops_the_step_as_well(running: subprocess.Popen[str]) -> None:
    step = int(line_of(running))
    running.send_signal(signal.SIGTSTP)
    assert os.WIFSTOPPED(os.waitpid(running.pid, os.WUNTRACED)[1])
    while Path(f"/proc/{step}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        os.sched_yield()
    running.send_signal(signal.SIGCONT)
    running.send_signal(signal.SIGINT)
    running.wait(60)  # one that is still stopped would not end
    with pytest.raises(ProcessLookupError):
        os.kill(step, 0)


@pytest.mark.timeout(60)
def test_ctrl_c_just_as_popen_has_taken_its_lock_ends_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait, begun = subprocess.Popen.wait, []

    def interrupted(self: Any, timeout: float | None = None) -> int:
        if not begun:
            begun.append(self)
            self._waitpid_lock.acquire()
            raise KeyboardInterrupt
        return wait(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        steps.run_process(["sleep", "1000"])
    assert begun[0].returncode == -signal.SIGTERM


@pytest.mark.parametrize("running", ["echo $$; exec sleep 1000"], indirect=True)
def test_ctrl_backslash_ends_the_step_as_well(running: subprocess.Popen[str]) -> None:
    step = int(line_of(running))
    running.send_signal(signal.SIGQUIT)
    assert running.wait(60) == -signal.SIGQUIT
    assert line_of(running) == ""  # its end of the pipe is closed
    assert not Path(f"/proc/{step}/exe").exists()  # ended, and maybe not yet reaped


WHOLE = "trap 'echo asked' TERM; echo ready; until read line; do :; done; echo whole"


@pytest.mark.parametrize("running", [WHOLE], indirect=True)
def test_a_second_ctrl_c_leaves_a_step_the_time_it_takes(running: subprocess.Popen[str]) -> None:
    assert line_of(running) == "ready"
    running.send_signal(signal.SIGINT)
    assert line_of(running) == "asked"
    running.send_signal(signal.SIGINT)
    running.communicate("go\n", timeout=60)
    assert running.returncode == -signal.SIGINT
