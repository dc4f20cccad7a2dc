"""The two ends of every test: a camera's server, and motorvae-stream that watches it."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

Row = dict[str, Any]

PATIENCE_S = 60.0  # for whatever must come; a neighbour may keep this machine busy


def _lines_of(pipe: IO[str]) -> queue.Queue[str | None]:
    """Read a pipe in a thread, so that nobody who writes to it waits; None is its end."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        with pipe:
            for line in pipe:
                lines.put(line.rstrip("\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


class Server:
    """A server process that obeys commands, and comes back on the same port after a kill.

    Args:
        command: What starts it; the port is appended.
        url: Where it serves, with `{port}` in it.
    """

    def __init__(self, command: Sequence[str], url: str) -> None:
        self._command = [*command]
        self._process: subprocess.Popen[str] | None = None
        self._port = 0
        self.start()
        self.url = url.format(port=self._port)

    def start(self) -> None:
        """Start it, on the earlier port where there is one, and wait until it listens."""
        self._process = subprocess.Popen(
            [*self._command, str(self._port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self._lines = _lines_of(self._process.stdout)
        self._port = int(self._answer())

    def kill(self) -> None:
        """End it as a pulled plug would: nothing is said to those who watch."""
        assert self._process
        assert self._process.stdin
        self._process.kill()
        self._process.wait(PATIENCE_S)
        self._process.stdin.close()

    def tell(self, command: str) -> int:
        """Give a command; wait until it holds. Returns how many frames were due by then."""
        assert self._process
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        done, count = self._answer().split()
        assert done == command.split(maxsplit=1)[0]
        return int(count)

    def close(self) -> None:
        """End it if it still runs."""
        if self._process and self._process.poll() is None:
            self.kill()

    def _answer(self) -> str:
        line = self._lines.get(timeout=PATIENCE_S)
        assert line is not None, "the server ended"
        return line


class StreamRun:
    """A motorvae-stream process whose rows are read as they come.

    Args:
        bundle: The model.
        cameras: What `--camera` names, once each.
        options: Further options.
        reading: Whether rows are read from the start; else `read` begins it.
    """

    def __init__(
        self, bundle: Path, cameras: Sequence[object], *options: object, reading: bool = True
    ) -> None:
        command = [str(Path(sys.executable).with_name("motorvae-stream")), "--model", str(bundle)]
        for camera in cameras:
            command += ["--camera", str(camera)]
        command += ["--output", "-", *map(str, options)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        assert self._process.stderr
        self._stderr_lines = _lines_of(self._process.stderr)
        self._lines: queue.Queue[str | None] | None = None
        self.rows: list[Row] = []
        self.code: int | None = None
        self.stderr = ""
        self._seen: dict[str | None, int] = {}
        if reading:
            self.read()

    def read(self) -> None:
        """Begin to read rows."""
        assert self._process.stdout
        self._lines = _lines_of(self._process.stdout)

    def next(self, status: str, *, gap: bool = False, reason: str = "", camera: str = "") -> Row:
        """Wait for the next row of a status, after the last that was waited for.

        Args:
            status: What the row says.
            gap: Only a row with `gap_ms`.
            reason: Only a row whose reason holds this.
            camera: Only rows of this camera, which are waited for apart from those of others.
        """

        def fits(row: Row) -> bool:
            return (
                row["status"] == status
                and (not gap or "gap_ms" in row)
                and reason in row.get("reason", "")
            )

        return self._next(fits, f"row {status} {reason}", camera)

    def ok(self, count: int = 5, *, camera: str = "") -> Row:
        """Wait for so many more rows that hold a latent; returns the last."""
        for _ in range(count):
            row = self.next("ok", camera=camera)
        return row

    def wait_for_exit(self) -> None:
        """Wait until the process has ended and all that it wrote is read."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self._take(deadline_s, "the end of the rows"):
            pass
        said = []
        while (line := self._stderr_lines.get(timeout=PATIENCE_S)) is not None:
            said.append(line)
        self.stderr = "\n".join(said)
        self.code = self._process.wait(PATIENCE_S)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def insist(self, number: signal.Signals) -> None:
        """Send a signal again and again until the process has ended; its rows are not read."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self.code is None:
            assert time.monotonic() < deadline_s, "no signal ended it"
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.code = self._process.wait(0.5)
            self._process.send_signal(number)

    def wait_for_stderr(self, words: str) -> None:
        """Wait until a line with these words was said on standard error; it is taken away."""
        while words not in (line := self._stderr_lines.get(timeout=PATIENCE_S) or "\n"):
            assert line != "\n", f"{words!r} was never said"

    def close(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
        if self._lines is None:
            assert self._process.stdout
            self._process.stdout.close()

    def _next(self, fits: Callable[[Row], bool], what: str, camera: str) -> Row:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            for place in range(self._seen.get(camera, 0), len(self.rows)):
                row = self.rows[place]
                if fits(row) and (not camera or row.get("camera") == camera):
                    self._seen[camera] = place + 1
                    return row
            self._seen[camera] = len(self.rows)
            assert self._take(deadline_s, what), self._told(f"it ended before a {what}")

    def _take(self, deadline_s: float, what: str) -> bool:
        """Wait for one more row; False after the last."""
        assert self._lines, "nobody reads"
        try:
            line = self._lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            raise AssertionError(self._told(f"no {what} for {PATIENCE_S:g} s")) from None
        if line is not None:
            self.rows.append(json.loads(line))
        return line is not None

    def _told(self, problem: str) -> str:
        self.close()
        said = []
        with contextlib.suppress(queue.Empty):
            while (line := self._stderr_lines.get(timeout=PATIENCE_S)) is not None:
                said.append(line)
        last = [{key: value for key, value in row.items() if key != "mu"} for row in self.rows[-8:]]
        rows = "\n".join(map(str, last))
        return "\n".join([problem, f"last of {len(self.rows)} rows:", rows, "it said:", *said])
