"""Stop and continue a reader of live cameras, and count the frames that it then calls too young.

    python -m tests.attacks.pauses --count 20 --seed 0 --pause 3

Each camera is a process of its own whose pictures show when they were made, so that the true age of
a frame is known without any of our clocks. The reader is stopped (SIGSTOP) at random moments. One
line of JSON per camera says how many frames were claimed younger than they are by more than 50 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..runtime.sources.video.live_server import FPS, HEIGHT, WIDTH, row
from .processes import ROOT, command_of

SERVER = ROOT / "tests/runtime/sources/video/live_server.py"
TOO_YOUNG_S = 0.05
CAMERAS = ("http-mjpeg", "http-ts", "udp-ts", "pipe-mjpeg", "pipe-ts", "rtsp", "opencv")


def read(kind: str, address: str) -> None:
    """In the process that is stopped: print claimed and true age of every frame, in seconds."""
    from motorvae.runtime.core.frame import Frame
    from motorvae.runtime.sources.base import CaptureRequest
    from motorvae.runtime.sources.opencv import DeviceSource
    from motorvae.runtime.sources.spec import SourceSpec
    from motorvae.runtime.sources.video.source import VideoSource

    request: Any = CaptureRequest(timeout_s=30)
    if kind == "opencv":
        spec = SourceSpec("device", address, "camera")
        source: Any = DeviceSource(spec, request, api=cv2.CAP_FFMPEG)
    else:
        source = VideoSource(SourceSpec("pipe" if kind[0] == "p" else "url", address, "c"), request)
    while True:
        item = source.read()
        if not isinstance(item, Frame):
            continue
        now_s = time.monotonic()
        levels = item.image[HEIGHT // 2]
        levels = levels[:, 0] if levels.ndim > 1 else levels
        fields = levels.reshape(16, -1)[:, WIDTH // 32] > 128
        made_ms = int(np.packbits(fields, bitorder="little").view("<u2")[0])
        true_s = (int(now_s * 1000) - made_ms) % (1 << 16) / 1000
        print(f"{now_s - item.grabbed_ns / 1e9:.4f} {true_s:.4f}", flush=True)


def pictures() -> Iterator[bytes]:
    """Grey pictures of now, by the clock; what is overdue is skipped, as by a camera."""
    start_s, number = time.monotonic(), 0
    while True:
        number = max(number + 1, int((time.monotonic() - start_s) * FPS))
        time.sleep(max(0.0, start_s + number / FPS - time.monotonic()))
        yield row() * HEIGHT


def jpegs() -> Iterator[bytes]:
    for picture in pictures():
        image = np.frombuffer(picture, np.uint8).reshape(HEIGHT, WIDTH)
        yield cv2.imencode(".jpg", image)[1].tobytes()


def send(kind: str, address: str) -> None:
    """In a process of its own: send pictures of now until it is killed."""
    if kind == "pipe-mjpeg":
        with Path(address).open("wb", buffering=0) as pipe:
            pipe.writelines(jpegs())
    if kind in {"http-mjpeg", "opencv"}:
        from motorvae.benchmarks.under_test.stream_process import MjpegCamera

        class Now:
            def __init__(self) -> None:
                self._jpegs = jpegs()

            def __len__(self) -> int:
                return 1

            def __getitem__(self, _: Any) -> bytes:
                return next(self._jpegs)

        camera = MjpegCamera(Now(), 1e6)  # type: ignore[arg-type]
        print(camera.url, flush=True)
        threading.Event().wait()
    command = (
        f"ffmpeg -v error -use_wallclock_as_timestamps 1 -f rawvideo -pix_fmt gray -s {WIDTH}x"
        f"{HEIGHT} -r {FPS} -i - -fps_mode passthrough -pix_fmt yuv420p -c:v libx264 -preset "
        "ultrafast -tune zerolatency -g 25 -f mpegts"
    ).split()
    if kind == "http-ts":
        command += ["-listen", "1"]
    with subprocess.Popen([*command, "-y", address], stdin=subprocess.PIPE) as process:
        assert process.stdin
        for picture in pictures():
            process.stdin.write(picture)


@contextlib.contextmanager
def running(kind: str, folder: Path) -> Iterator[str]:
    """Start a camera; give its address."""
    if kind == "rtsp":
        command = ["/usr/bin/python3", str(SERVER)]
    else:
        address = str(folder / kind)
        if kind.startswith("pipe"):
            os.mkfifo(address)
        elif kind == "udp-ts":
            address = "udp://127.0.0.1:28731"
        elif kind == "http-ts":
            address = "http://127.0.0.1:28732/x"
        command = [*command_of("pauses"), "--send", kind, "--address", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        try:
            if kind == "rtsp":
                address = f"rtsp://127.0.0.1:{int(process.stdout.readline())}/camera"
            elif kind in {"http-mjpeg", "opencv"}:
                address = process.stdout.readline().strip()
            else:
                time.sleep(2)  # ffmpeg says nowhere that it listens or sends
            yield address
        finally:
            process.kill()
            subprocess.run(["pkill", "-KILL", "-P", str(process.pid)], check=False)


def attacked(kind: str, count: int, pause_s: float, rng: random.Random) -> dict[str, Any]:
    """Stop a reader so many times; return what its frames claimed."""
    with tempfile.TemporaryDirectory() as folder, running(kind, Path(folder)) as address:
        command = [*command_of("pauses"), "--read", kind, "--address", address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as reader:
            assert reader.stdout
            ages: list[tuple[float, float]] = []

            def collect() -> None:
                for line in reader.stdout or ():
                    claimed, true = line.split()
                    ages.append((float(claimed), float(true)))

            thread = threading.Thread(target=collect, daemon=True)
            thread.start()
            started_s = time.monotonic()
            while len(ages) < 50 and time.monotonic() < started_s + 60:
                time.sleep(0.05)
            for _ in range(count):
                os.kill(reader.pid, signal.SIGSTOP)
                time.sleep(pause_s)
                os.kill(reader.pid, signal.SIGCONT)
                time.sleep(1 + rng.random())
            reader.kill()
            thread.join(10)
    # What a sender held before anybody connected is older than any arrival can tell.
    ages = ages[FPS:]
    errors = [claimed - true for claimed, true in ages]
    usual = sorted(claimed - true for claimed, true in ages if true < 4 / FPS)
    young = [error for error in errors if error < -TOO_YOUNG_S]
    return {
        "camera": kind,
        "pauses": count,
        "pause_s": pause_s,
        "frames": len(ages),
        "older than half a pause": sum(true > pause_s / 2 for _, true in ages),
        "too young": len(young),
        "worst_ms": round(1000 * min(errors, default=0.0), 1),
        "median_ms of others": round(1000 * usual[len(usual) // 2], 1) if usual else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=3.0)
    parser.add_argument("--cameras", default=",".join(CAMERAS))
    for role in ("send", "read", "address"):
        parser.add_argument(f"--{role}", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.send:
        send(given.send, given.address)
    elif given.read:
        read(given.read, given.address)
    failed = False
    for kind in given.cameras.split(","):
        rng = random.Random(given.seed)
        result = attacked(kind, given.count, given.pause, rng)
        print(json.dumps(result), flush=True)
        failed |= result["too young"] > 0 or result["frames"] < 50
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
