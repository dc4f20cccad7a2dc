"""Hostile cameras: servers on loopback against real motorvae-stream processes.

    python -m tests.attacks.cameras BUNDLE --count 80 --seed 1

Each script is a server that sends what a camera should not: bytes without an end, announced sizes,
silence, trickles, addresses of others, damaged pictures and protocols that are none. What comes
after the named scripts is an MJPEG stream damaged at random. Of each run it is held that it ends
by itself or within 20 s of a SIGTERM, in at most one error line, without a traceback, with less
than 1 GB at its peak, without a connection to the other server beside it or an open UDP port, and
that whole frames which came before are rows. One line of JSON counts; the exit code is 1 where any
of that does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .camera_scripts import PICTURES, SCRIPTS, UDP_PORT, Attack, Script, http, mutated, once
from .limits import LIMIT_S, MOST_BYTES, peak_bytes

RUN_S = 9.0


class Server:
    """One script on a port; every connection gets it."""

    def __init__(self, run: Script, attack: Attack) -> None:
        self._run, self._attack = run, attack
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._attack.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if hasattr(self._run, "rtsp"):
                self._answer_rtsp(connection, *self._run.rtsp)
                return
            connection.recv(1 << 16)
            for piece in self._run(self._attack):
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1 << 16)

    def _answer_rtsp(
        self, connection: socket.socket, media: tuple[bytes, ...], sdp: str, say: bytes, more: bool
    ) -> None:
        away = say.replace(b"127.0.0.1:@", b"127.0.0.1:%d" % self._attack.other)
        buffer = b""
        while data := connection.recv(1 << 16):
            buffer += data
            while b"\r\n\r\n" in buffer:
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                number = re.search(rb"CSeq: *(\d+)", head)
                answer = b"RTSP/1.0 200 OK\r\nCSeq: %b\r\n" % (number[1] if number else b"1")
                verb = head.split(b" ")[0]
                if verb == b"DESCRIBE" and say:
                    connection.sendall(away)
                    while more and not self._attack.closing.is_set():
                        connection.sendall(away[-100_000:])
                elif verb == b"DESCRIBE":
                    text = sdp.encode()
                    connection.sendall(
                        answer
                        + b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n" % len(text)
                        + text
                    )
                elif verb == b"SETUP":
                    over = b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n"
                    connection.sendall(answer + over)
                else:
                    connection.sendall(
                        answer + b"Public: DESCRIBE, SETUP, PLAY\r\nSession: 1\r\n\r\n"
                    )
                if verb == b"PLAY":
                    for piece in media:
                        connection.sendall(piece)
                    while more and not self._attack.closing.is_set():
                        connection.sendall(media[-1])


@dataclass
class Result:
    """What one run did."""

    name: str
    faults: list[str] = field(default_factory=list)
    ok: int = 0
    lost: int = 0
    seconds: float = 0.0
    peak_mb: int = 0
    said: str = ""


def attacked(
    command: list[str], bundle: Path, name: str, seed: int, run_s: float = RUN_S
) -> Result:
    """Run one script against one process."""
    path, run = SCRIPTS.get(name, ("http:/", mutated))
    rng, result = random.Random(f"{name} {seed}"), Result(name)
    other = Server(once(http(b"x")), Attack(0, threading.Event(), rng))
    server = Server(run, Attack(other.port, threading.Event(), rng))
    scheme, _, rest = path.partition(":")
    options = ["--timeout", "2", "--give-up-after", "3", "--policy", "every", "--freeze-after", "0"]
    url = f"{scheme}://127.0.0.1:{server.port}{rest}"
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [*command, url, "--model", str(bundle), "--output", "-", *options],
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        started_s, told_s, udp, peak = time.monotonic(), 0.0, False, 0
        while True:
            peak = max(peak, peak_bytes(process.pid))
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            now_s = time.monotonic()
            if pid:
                break
            udp |= f":{UDP_PORT:04X} " in Path("/proc/net/udp").read_text()
            if not told_s and now_s - started_s > run_s:
                process.send_signal(signal.SIGTERM)
                told_s = now_s
            if told_s and now_s - told_s > LIMIT_S:
                process.kill()
                result.faults.append("hang")
                _, status = os.waitpid(process.pid, 0)
                break
            time.sleep(0.05)
        process.returncode = os.waitstatus_to_exitcode(status)
        server.close()
        other.close()
        out.seek(0)
        err.seek(0)
        stderr = err.read().decode("utf-8", "replace")
        rows = [json.loads(line) for line in out.read().splitlines() if line]
    result.seconds, result.peak_mb = round(now_s - started_s, 1), peak >> 20
    statuses = Counter(row["status"] for row in rows)
    result.ok, result.lost = statuses["ok"], statuses["lost"]
    errors = [line for line in stderr.splitlines() if line.startswith("motorvae-stream: ")]
    result.said = (errors or [""])[-1]
    dropped = sum(row["dropped"] for row in rows)
    found = {
        "traceback": "Traceback" in stderr,
        "crash": process.returncode not in ({0, 1, 130, 143, -15} if told_s else {0, 1}),
        "error lines": len(errors) > 1 or (not told_s and len(errors) != process.returncode),
        "memory": peak > MOST_BYTES,
        "reached another port": other.connections > 0,
        "open UDP port": udp,
        "terminal": "\x1b" in stderr,
        "lost frames": getattr(run, "good", False) and result.ok + dropped < len(PICTURES),
    }
    result.faults += [fault for fault, is_so in found.items() if is_so]
    return result


def names_of(count: int) -> list[str]:
    names = list(SCRIPTS)
    return [*names, *(f"mutated {n}" for n in range(count - len(names)))][: max(count, 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=90)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="scripts whose names hold this text")
    parser.add_argument("--stream", default=str(Path(sys.executable).with_name("motorvae-stream")))
    arguments = parser.parse_args()
    command = [shutil.which(arguments.stream) or arguments.stream]
    counts: Counter[str] = Counter()
    bad: dict[str, list[str]] = {}
    peak = longest = 0.0
    for name in names_of(arguments.count):
        if arguments.only not in name:
            continue
        result = attacked(command, arguments.bundle, name, arguments.seed)
        print(result, file=sys.stderr, flush=True)
        counts.update({"scripts": 1, "ok rows": result.ok, "lost rows": result.lost})
        counts.update(result.faults)
        if result.faults:
            bad[name] = result.faults
        peak, longest = max(peak, result.peak_mb), max(longest, result.seconds)
    print(json.dumps({**counts, "peak_mb": peak, "longest_s": longest, "bad": bad}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
