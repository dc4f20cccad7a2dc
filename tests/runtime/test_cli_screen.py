from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motorvae.runtime.cli import StatusLine
from motorvae.runtime.stream.stats import StreamStats


class Streaming:
    """What a status line reads of a stream."""

    def __init__(self, expected: int | None = None) -> None:
        self.stats = StreamStats(["0"])
        self.expected = expected


def test_the_line_waits_and_then_says_rate_age_drops_and_losses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    stream = Streaming(expected=100)
    line = StatusLine(stream)  # type: ignore[arg-type]
    now_s[0] += 4
    assert line.__rich__().plain == "4 s: waiting for the first frame; Ctrl-C ends it"
    stream.stats.total.frames, stream.stats.age_ms = 30, 4.25
    now_s[0] += 1
    said = line.__rich__().plain
    assert said == "5 s: 30 of 100 (2 s left) latents, 30.0 fps, age 4.2 ms, 0 dropped, 0 lost"
    for _ in range(10):  # a camera that has fallen silent
        now_s[0] += 0.5
        said = line.__rich__().plain
    assert said == "10 s: 30 of 100 latents, 0.0 fps, age 4.2 ms, 0 dropped, 0 lost"
    assert len(said) < 80


def test_the_line_counts_frames_that_are_too_old() -> None:
    stream = Streaming()
    stream.stats.total.stale = 7
    said = StatusLine(stream).__rich__().plain  # type: ignore[arg-type]
    assert said.endswith("0 latents, 0.0 fps, 0 dropped, 0 lost, 7 stale")


def read_until(terminal: int, pattern: bytes, *, within_s: float = 60) -> bytes:
    """What a terminal shows until a pattern appears in it."""
    shown, deadline = b"", time.monotonic() + within_s
    while not re.search(pattern, shown):
        left_s = deadline - time.monotonic()
        assert left_s > 0, shown
        if select.select([terminal], [], [], left_s)[0]:
            shown += os.read(terminal, 65536)
    return shown


@pytest.mark.parametrize("output", ["rows.jsonl", "-"])
def test_a_terminal_shows_the_line_unless_rows_go_there(
    small_bundle: Path, script: Callable[[str], str], tmp_path: Path, output: str
) -> None:
    terminal, theirs = pty.openpty()
    command = [script("motorvae-stream"), "synthetic?fps=20", "--model", str(small_bundle)]
    with subprocess.Popen(
        [*command, "--output", output], cwd=tmp_path, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        if output == "-":
            shown = read_until(terminal, rb'"index":2\d')
        else:
            shown = read_until(terminal, rb"\d+ latents, \d+\.\d fps, age \d+\.\d ms, \d+ dropped")
        process.send_signal(signal.SIGINT)
        shown += read_until(terminal, rb"unexplained")
        assert process.wait(60) == 0
    os.close(terminal)
    assert (b"fps, age" in shown) == (output != "-")


HAS_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(2, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
"""Makes standard error the terminal that sends SIGHUP when it is closed."""


@pytest.mark.parametrize("is_hung_up", [False, True])
def test_a_terminal_that_is_closed_fails_no_stream_whose_rows_are_whole(
    small_bundle: Path,
    script: Callable[[str], str],
    tmp_path: Path,
    read_rows: Callable[[Path], list[dict[str, Any]]],
    is_hung_up: bool,
) -> None:
    terminal, theirs = pty.openpty()
    command = [script("motorvae-stream"), "synthetic?fps=20", "--model", str(small_bundle)]
    if is_hung_up:
        command = [sys.executable, "-c", HAS_TERMINAL, *command]
    else:
        command += ["--max-frames", "40"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        read_until(terminal, rb"latents, \d+\.\d fps, age \d+\.\d ms, \d+ dropped")
        os.close(terminal)
        assert process.wait(60) == 0
    rows = read_rows(tmp_path / "latents.jsonl")
    assert {row["status"] for row in rows[:-1]} == {"ok"}
    assert rows[-1]["status"] == "end"
    assert is_hung_up or len(rows) == 41
