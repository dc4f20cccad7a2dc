"""An MJPEG camera in a process of its own, which fails in the ways that it is told on stdin.

Each line on stdin is a command, and each is acknowledged by a line on stdout, `command count`, once
it holds; `count` is how many frames were due so far. `cut`, `close` and `reset` hold once the
connection is down, so they wait for one that is up.

Arguments: a folder of JPEGs (`a*.jpg` at first, `b*.jpg` after `resize`), frames per second, and a
port, or 0 for any that is free. The first line on stdout is the port.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path

from motorvae.benchmarks.under_test.stream_process import CONTENT_TYPE, part_of

ENDINGS = {"cut", "close", "reset"}
GARBAGE = b"this is no picture " * 40


class Camera:
    """What all connections show: each shows pictures in order, beginning where others are."""

    def __init__(self, folder: Path, fps: float) -> None:
        self.changed = threading.Condition()
        self.period_s = 1 / fps
        self.count = 0
        self.mute = self.refusing = False
        self._frozen_at: int | None = None
        self._stalled = False
        self._spoilt = ("", 0)  # what is sent instead of a picture, and how often
        self._ending: str | None = None
        self._skipped = 0
        self._series = "a"
        self._pictures: dict[str, list[bytes]] = {"garbage": [GARBAGE]}
        for path in sorted(folder.glob("*.jpg")):
            series = path.stem.rstrip("0123456789")
            self._pictures.setdefault(series, []).append(path.read_bytes())

    def next(self, number: int, due_s: float) -> tuple[str | None, bytes]:
        """Wait for a connection's next frame; return how it ends, if it does, and the bytes."""
        with self.changed:
            while not self._ending and (self._stalled or time.monotonic() < due_s):
                self.changed.wait(None if self._stalled else max(0.0, due_s - time.monotonic()))
            ending, self._ending = self._ending, None
            series, (spoilt, times) = self._series, self._spoilt
            if times and not ending:
                series, self._spoilt = spoilt, (spoilt, times - 1)
            shown = number + self._skipped if self._frozen_at is None else self._frozen_at
            if not ending:
                self.count = max(self.count, number + 1)
                self.changed.notify_all()
            pictures = self._pictures[series]
            return ending, pictures[shown % len(pictures)]

    def obey(self, command: str, value: str) -> None:
        """Do as told; returns once it holds."""
        with self.changed:
            if command in ENDINGS:
                self._ending = command
            elif command in {"damage", "headless", "garbage"}:
                self._spoilt = (command, int(value))
            elif command in {"freeze", "thaw"}:
                self._frozen_at = self.count + self._skipped if command == "freeze" else None
            elif command in {"refuse", "accept"}:
                self.refusing = command == "refuse"
            elif command in {"stall", "go"}:
                self._stalled = command == "stall"
            elif command == "mute":
                self.mute = True
            elif command == "fps":
                self.period_s = 1 / float(value)
            elif command == "skip":
                self._skipped += int(value)
            elif command == "resize":
                self._series = "b" if self._series == "a" else "a"
            elif command == "reach":
                self.changed.wait_for(lambda: self.count >= int(value))
            else:
                raise ValueError(command)
            self.changed.notify_all()

    def acknowledge(self, command: str) -> None:
        sys.stdout.write(f"{command} {self.count}\n")
        sys.stdout.flush()


class Connection(http.server.BaseHTTPRequestHandler):
    """One client that watches."""

    camera: Camera

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        with self.camera.changed:
            self.camera.changed.wait_for(lambda: not self.camera.mute)
        if self.camera.refusing:
            self.send_error(503)
            return
        ending: str | None = None
        with contextlib.suppress(OSError):
            ending = self._show()
        if ending == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # now, with no farewell before it
        elif ending:
            self.connection.shutdown(socket.SHUT_RDWR)
        if ending:
            self.camera.acknowledge(ending)

    def _show(self) -> str | None:
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.end_headers()
        number, due_s = self.camera.count, time.monotonic()
        while True:
            ending, body = self.camera.next(number, due_s)
            part = part_of(body)
            if ending:
                self.wfile.write(part[: -len(body) // 2] if ending == "cut" else b"")
                return ending
            self.wfile.write(part)
            number += 1
            due_s = max(due_s + self.camera.period_s, time.monotonic())


def main() -> None:
    """Serve until `quit`, the end of stdin, or a kill."""
    folder, fps, port = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    Connection.camera = camera = Camera(folder, fps)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Connection) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        for line in sys.stdin:
            command, _, value = line.strip().partition(" ")
            if command == "quit":
                break
            camera.obey(command, value)
            if command not in ENDINGS:
                camera.acknowledge(command)
        os._exit(0)


if __name__ == "__main__":
    main()
