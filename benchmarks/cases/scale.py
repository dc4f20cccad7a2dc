"""python -m motorvae.benchmarks.cases.scale BUNDLE -- OPTION ...: a latent's cost by cameras.

Cameras send MJPEG of 640x480 over the loopback at an even pace. One motorvae-stream takes all of
them in batches, or two processes take half of them each, in turns. Of each: latents per second,
frames that were dropped, the age at the latent, and processor time for a latent, all threads of all
processes. What follows `--` are options of motorvae-stream. `--svg FILE` draws it, `--json FILE`
keeps it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..under_test.scenes import frame_of, jpeg_of
from ..under_test.stream_process import MjpegCamera, StreamProcess, divided, parsed

_FRAME = (640, 480)
_PICTURES = 4
_SKIPPED = 10  # rows of each camera that do not count
_COUNTS = (1, 2, 4, 6, 8, 12, 16)


class Given(NamedTuple):
    """How it is measured."""

    args: Sequence[str]  # of every process
    seconds: float
    fps: float


class Found(NamedTuple):
    """What so many cameras gave in so many processes."""

    cameras: int
    processes: int
    latents_per_s: float
    offered_per_s: float
    dropped: int
    age_p50_ms: float
    age_p99_ms: float
    processor_ms: float  # for a latent
    cores: float  # busy on average


def main(words: Sequence[str]) -> int:
    """Measure; see the module."""
    parser = argparse.ArgumentParser(prog="python -m motorvae.benchmarks.cases.scale")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--cameras", type=int, nargs="+", default=_COUNTS)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    words, options = divided(words)
    given = parser.parse_args(words)
    args = ("--model", str(given.bundle), *options)
    plan = Given(args, given.seconds, given.fps)
    pictures = [jpeg_of(frame_of(*_FRAME, seed)).tobytes() for seed in range(_PICTURES)]
    found = []
    print(" ".join(f"{name:>14}" for name in Found._fields))
    with MjpegCamera(pictures, given.fps) as camera:
        for cameras in given.cameras:
            for processes in (1, 2) if cameras > 1 else (1,):
                one = _measured(camera, cameras, processes, plan)
                found.append(one)
                print(" ".join(f"{value:14.5g}" for value in one), flush=True)
    if given.json:
        given.json.write_text(json.dumps([one._asdict() for one in found], indent=1) + "\n")
    if given.svg:
        given.svg.write_text(svg_of(found))
    return 0


def _measured(camera: MjpegCamera, cameras: int, processes: int, given: Given) -> Found:
    shares = [cameras // processes + (n < cameras % processes) for n in range(processes)]
    with contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(StreamProcess(("--camera", *[camera.url] * share, *given.args)))
            for share in shares
        ]
        for stream, share in zip(streams, shares, strict=True):
            stream.rows(_SKIPPED * share)
        lines: list[list[bytes]] = [[] for _ in streams]
        over = threading.Event()

        def read(stream: StreamProcess, into: list[bytes]) -> None:
            while not over.is_set():
                into += stream.rows(1)

        readers = [
            threading.Thread(target=read, args=pair) for pair in zip(streams, lines, strict=True)
        ]
        for reader in readers:
            reader.start()
        used_s, began_s = sum(stream.processor_s() for stream in streams), time.monotonic()
        for seen in lines:
            seen.clear()
        time.sleep(given.seconds)
        passed_s = time.monotonic() - began_s
        used_s = sum(stream.processor_s() for stream in streams) - used_s
        over.set()
        for reader in readers:
            reader.join()
        rows: list[dict[str, Any]] = [row for seen in lines for row in parsed(seen)]
    ages = sorted(row["age_ms"] for row in rows)
    return Found(
        cameras,
        processes,
        latents_per_s=len(rows) / passed_s,
        offered_per_s=cameras * given.fps,
        dropped=sum(row["dropped"] for row in rows),
        age_p50_ms=statistics.median(ages),
        age_p99_ms=ages[int(0.99 * (len(ages) - 1))],
        processor_ms=1e3 * used_s / len(rows),
        cores=used_s / passed_s,
    )


_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 300, 200, 50, 30, 70
_COLOURS = {1: "#1f6fb4", 2: "#d9731a"}


def svg_of(found: Sequence[Found]) -> str:
    """Draw processor time for a latent, age and latents per second against cameras."""
    panels: tuple[tuple[str, Callable[[Found], float]], ...] = (
        ("processor ms for a latent", lambda one: one.processor_ms),
        ("age p50, ms", lambda one: one.age_p50_ms),
        ("latents per second", lambda one: one.latents_per_s),
    )
    across = _LEFT + len(panels) * (_WIDTH + _GAP)
    most = max(one.cameras for one in found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {_HEIGHT + 90}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for place, (title, value_of) in enumerate(panels):
        left = _LEFT + place * (_WIDTH + _GAP)
        top_value = 1.1 * max(value_of(one) for one in found)
        base = _TOP + _HEIGHT
        parts.append(f'<text x="{left}" y="{_TOP - 10}" font-weight="bold">{title}</text>')
        parts.append(f'<path d="M{left} {_TOP}V{base}H{left + _WIDTH}" stroke="#444" fill="none"/>')
        for share in (0, 0.5, 1):
            y = base - share * _HEIGHT
            parts.append(
                f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">'
                f"{share * top_value:.3g}</text>"
            )
        for cameras in sorted({one.cameras for one in found}):
            x = left + _WIDTH * cameras / most
            parts.append(f'<text x="{x:.0f}" y="{base + 16}" text-anchor="middle">{cameras}</text>')
        parts.append(f'<text x="{left}" y="{base + 34}">cameras</text>')
        for processes, colour in _COLOURS.items():
            points = " ".join(
                f"{left + _WIDTH * one.cameras / most:.1f},"
                f"{base - _HEIGHT * value_of(one) / top_value:.1f}"
                for one in found
                if one.processes == processes
            )
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
            )
    for processes, colour in _COLOURS.items():
        label = "one process" if processes == 1 else "two processes"
        x, y = _LEFT + (processes - 1) * 160, _TOP + _HEIGHT + 54
        parts.append(f'<rect x="{x}" y="{y - 9}" width="24" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{x + 30}" y="{y}">{label}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
