"""Processes watched from outside: motorvae-stream, imports, and a camera on the loopback."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import psutil  # type: ignore[import-untyped]

from ...runtime.core.errors import MeasurementError
from ...runtime.core.lifecycle import Closing
from ...runtime.core.system.children import python_code

_STREAM = "import sys; from motorvae.startup import stream_main; sys.exit(stream_main())"
_STOP_S = 20


class StreamProcess(Closing):
    """One motorvae-stream with `args` that writes rows to a pipe; it is ended with the block.

    `change` is Python that it runs first: what no option changes, to be measured against.
    """

    def __init__(self, args: Sequence[str], change: str = "") -> None:
        self._args = args
        # Its messages go to a file: a full pipe that nobody reads would stop it.
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the block
        self.spawned_ns = time.perf_counter_ns()
        self._process = subprocess.Popen(
            python_code(f"{change}\n{_STREAM}", *self._args, "--output", "-"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._messages,
        )

    def close(self) -> None:
        """End the process: cleanly, or after a while by force."""
        if self._messages.closed:
            return
        self._process.terminate()
        try:
            # Rows that are still in the pipe would keep it from ending.
            self._process.communicate(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._messages.close()

    def rows(self, count: int) -> list[bytes]:
        """Wait for so many rows, not yet parsed; a MeasurementError holds its last words."""
        stdout = self._process.stdout
        lines = [stdout.readline() for _ in range(count)] if stdout else []
        if not lines or not lines[-1]:
            self._process.wait()
            self._messages.seek(0)
            text = self._messages.read().decode(errors="replace").strip()
            last = text.splitlines()[-1] if text else "nothing"
            raise MeasurementError(
                f"motorvae-stream {' '.join(self._args)} ended before row {count}: it said "
                f"{last!r}; run it by hand"
            )
        return lines

    def processor_s(self) -> float:
        """Return the seconds of processor time that all its threads took so far."""
        try:
            used = psutil.Process(self._process.pid).cpu_times()
        except psutil.Error as error:
            raise MeasurementError(f"motorvae-stream has ended: {error}; run it by hand") from error
        return float(used.user + used.system)

    def memory(self) -> dict[str, int]:
        """Return its resident memory in bytes, "rss" now and at its "peak", by Linux."""
        pid = self._process.pid
        try:
            rss = int(psutil.Process(pid).memory_info().rss)
            lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        except (OSError, psutil.Error) as error:
            raise MeasurementError(f"motorvae-stream has ended: {error}; run it by hand") from error
        peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
        return {"rss": rss, "peak": max([rss, *peaks])}


def import_ns(module: str) -> int:
    """Return how long the import of a module takes in a fresh interpreter, by its clock."""
    source = (
        f"import time; begin = time.perf_counter_ns(); import {module}; "
        "print(time.perf_counter_ns() - begin)"
    )
    done = subprocess.run(python_code(source), capture_output=True, check=True, timeout=_STOP_S)
    return int(done.stdout)


def divided(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return a script's own words, and the options of motorvae-stream after `--`."""
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def parsed(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return rows as objects, the lines of status `ok` only."""
    rows = map(orjson.loads, lines)
    return [row for row in rows if row["status"] == "ok"]


_BOUNDARY = "frame"
CONTENT_TYPE = f"multipart/x-mixed-replace;boundary={_BOUNDARY}"


def part_of(picture: bytes) -> bytes:
    """Return a JPEG as one part of a stream of `CONTENT_TYPE`."""
    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}"
    return head.encode() + b"\r\n\r\n" + picture + b"\r\n"


class MjpegCamera(Closing):
    """Serves JPEGs in turns as `multipart/x-mixed-replace` at `url`, to any number of readers.

    It compresses nothing, so that it takes next to nothing from what is measured.
    """

    def __init__(self, pictures: Sequence[bytes], fps: float) -> None:
        closed = self._closed = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.end_headers()
                start_s = time.monotonic()
                with contextlib.suppress(OSError):  # the reader has gone
                    for number in itertools.count():
                        if closed.wait(start_s + number / fps - time.monotonic()):
                            return
                        self.wfile.write(part_of(pictures[number % len(pictures)]))

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
