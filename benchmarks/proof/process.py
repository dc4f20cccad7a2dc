"""One step's process: ended at its time limit with all that it started, its output kept short."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...runtime.core.lifecycle import interrupts_deferred
from ...runtime.core.text import printable

HEAD_BYTES = TAIL_BYTES = 1 << 20
"""What is kept of an output: its first and its last MiB."""
_READ_BYTES = 1 << 16
_GONE_WITHIN_S = 10.0
"""A process that was killed may have to leave a driver call first."""
_PAUSE_S = 0.05
_LONGEST_LINE = 300
_PROC = Path("/proc")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    `exit_code` is None where it was killed at its limit or could not be started; a negative one is
    the signal that ended it, as in `subprocess`.
    """

    exit_code: int | None
    seconds: float
    last_line: str  # the last one with a letter in it, of both outputs
    at_limit: bool = False
    left_behind: int = 0  # processes that were still there after the first one had ended
    problem: str | None = None  # why it could not be started

    @property
    def words(self) -> str:
        """Say it in a clause."""
        if self.problem:
            return self.problem
        if self.at_limit:
            return f"killed at its time limit, after {self.seconds:.0f} s"
        if self.exit_code is not None and self.exit_code < 0:
            return _signal_words(-self.exit_code)
        return f"exit code {self.exit_code}"


class _Output:
    """The head and the tail of what a pipe gives, the head in a file at once."""

    def __init__(self, pipe: int, log: Path) -> None:
        self._pipe, self._log = pipe, log
        self._kept, self._left_out = 0, 0
        self._head, self._tail = bytearray(), bytearray()
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def finish(self) -> str:
        """Write the tail, and return the last line that says something."""
        self._thread.join(_GONE_WITHIN_S)  # ends when the last holder of the pipe has ended
        tail = bytes(self._tail)
        if tail:
            gap = f"\n... {self._left_out} bytes were left out ...\n" if self._left_out else ""
            self._append(gap.encode() + tail)
        text = (bytes(self._head[-TAIL_BYTES:]) + tail).decode(errors="replace")
        lines = (line.strip() for line in re.split(r"[\r\n]+", _COLOURS.sub("", text)))
        last = next((line for line in reversed([*lines]) if re.search(r"[A-Za-z]", line)), "")
        return printable(last)[:_LONGEST_LINE]

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._pipe, _READ_BYTES):
                self._take(data)

    def _take(self, data: bytes) -> None:
        room = HEAD_BYTES - len(self._head)
        if room > 0:
            self._head += data[:room]
            self._append(data[:room])
            data = data[room:]
        self._tail += data
        if (excess := len(self._tail) - TAIL_BYTES) > 0:
            del self._tail[:excess]
            self._left_out += excess

    def _append(self, data: bytes) -> None:
        # A log that cannot be written must not stop the reading: the step would wait for ever.
        with contextlib.suppress(OSError), self._log.open("ab") as file:
            file.write(data)


def run_within(
    command: Sequence[str],
    *,
    limit_s: float,
    log: Path,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a command for `limit_s` seconds at most, both its outputs into `log`.

    Afterwards nothing of it is left, whatever it started, in whichever session or group: each
    process inherits a mark in its environment, by which it is found in /proc. The same happens
    where this process is interrupted. Of the output the first and the last MiB are kept.
    """
    mark = f"MOTORVAE_PROOF_{uuid.uuid4().hex}"
    begin_s = time.monotonic()
    with contextlib.suppress(OSError):
        log.unlink(missing_ok=True)
    reading, writing = os.pipe()
    process: subprocess.Popen[bytes] | None = None
    at_limit, left_behind = False, 0
    try:
        # An interrupt that comes meanwhile is acted on as this block ends, with the process known.
        with interrupts_deferred():
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=writing,
                    stderr=writing,
                    cwd=folder,
                    env={**os.environ, **(environment or {}), mark: "1"},
                    start_new_session=True,
                )
            except OSError as error:
                os.close(reading)
                problem = f"cannot be started: {error.strerror or error}"
                return Ended(None, time.monotonic() - begin_s, "", problem=problem)
            finally:
                os.close(writing)
        output = _Output(reading, log)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            at_limit = True
        seconds = time.monotonic() - begin_s
    finally:
        if process is not None:
            with interrupts_deferred():  # a second Ctrl-C must not leave half of them
                left_behind = _end_all(process, mark)
                process.poll()
    last_line = output.finish()
    with contextlib.suppress(OSError):
        os.close(reading)
    return Ended(
        None if at_limit else process.returncode,
        seconds,
        last_line,
        at_limit=at_limit,
        left_behind=0 if at_limit else left_behind,
    )


def _end_all(process: subprocess.Popen[bytes], mark: str) -> int:
    """Kill a process, its group, and all that carry its mark; return how many others there were."""
    found: set[int] = set()
    until_s = time.monotonic() + _GONE_WITHIN_S
    while True:
        if process.poll() is None:  # else its number may be another's by now
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        marked = set(_marked(mark)) - {process.pid}
        found |= marked
        for number in marked:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        if (not marked and process.poll() is not None) or time.monotonic() > until_s:
            return len(found)
        time.sleep(_PAUSE_S)  # what was killed ends soon, and what it had just started is found


def _marked(mark: str) -> list[int]:
    """Return the processes that inherited a mark and live; none where there is no /proc."""
    sought = f"{mark}=1".encode()
    found = []
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            # Of a zombie the environment is empty.
            if sought in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def _signal_words(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    why = " (the system kills so what takes too much memory)" if name == "SIGKILL" else ""
    return f"ended by {name}{why}"
