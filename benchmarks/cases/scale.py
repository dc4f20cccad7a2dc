"""python -m motorvae.benchmarks.cases.scale BUNDLE -- OPTION ...: a latent's cost by cameras.

Cameras send MJPEG of 640x480 over the loopback at an even pace. One motorvae-stream takes all of
them in batches, or two processes take half of them each, in turns, `--rounds` times. Of each round:
latents per second, frames that were dropped, the age at the latent, and processor time for a
latent, all threads of all processes. Printed is the median of each over the rounds, and between
which bounds the median ages of rounds lie: where these overlap, neither way wins in age. What
follows `--` are options of motorvae-stream. `--plot FILE` draws it as .svg or .png, `--json FILE`
keeps all rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from ..under_test.scenes import frame_of, jpeg_of
from ..under_test.stream_process import MjpegCamera, StreamProcess, divided, parsed

_FRAME = (640, 480)
_PICTURES = 4
_SKIPPED = 10  # rows of each camera that do not count
_COUNTS = (1, 2, 4, 6, 8, 12, 16)
_PANELS = {
    "processor_ms": "processor ms for a latent",
    "age_p50_ms": "age p50, ms",
    "latents_per_s": "latents per second",
}


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    words, options = divided(words)
    given = parser.parse_args(words)
    if given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: at least 1")
    args = ("--model", str(given.bundle), *options)
    plan = Given(args, given.seconds, given.fps)
    pictures = [jpeg_of(frame_of(*_FRAME, seed)).tobytes() for seed in range(_PICTURES)]
    found: list[Found] = []
    print(" ".join(f"{name:>13}" for name in (*Found._fields, "p50_least", "p50_most")))
    with MjpegCamera(pictures, given.fps) as camera:
        for cameras in given.cameras:
            ways = (1, 2) if cameras > 1 else (1,)
            found += [
                _measured(camera, cameras, processes, plan)
                for _ in range(given.rounds)
                for processes in ways
            ]
            for processes in ways:
                ages = [one.age_p50_ms for one in rounds_of(found, cameras, processes)]
                row = (*medians_of(found, cameras, processes), min(ages), max(ages))
                print(" ".join(f"{value:13.5g}" for value in row), flush=True)
    if given.json:
        given.json.write_text(json.dumps([one._asdict() for one in found], indent=1) + "\n")
    if given.plot:
        save_plot(given.plot, found)
    return 0


def rounds_of(found: Sequence[Found], cameras: int, processes: int) -> list[Found]:
    """Return the rounds of so many cameras in so many processes."""
    return [one for one in found if (one.cameras, one.processes) == (cameras, processes)]


def medians_of(found: Sequence[Found], cameras: int, processes: int) -> Found:
    """Return the medians over rounds, by each figure; dropped frames are those of all rounds."""
    rounds = rounds_of(found, cameras, processes)
    medians = Found(*(statistics.median(column) for column in zip(*rounds, strict=True)))
    return medians._replace(dropped=sum(one.dropped for one in rounds))


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


def save_plot(path: Path, found: Sequence[Found]) -> None:
    """Draw processor time for a latent, age and latents per second against cameras."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = figure.subplots(1, len(_PANELS), squeeze=False)[0]
    for axes, (name, title) in zip(panels, _PANELS.items(), strict=True):
        for processes, label in ((1, "one process"), (2, "two processes")):
            counts = sorted({one.cameras for one in found if one.processes == processes})
            own = [medians_of(found, cameras, processes) for cameras in counts]
            values = [getattr(one, name) for one in own]
            axes.plot([one.cameras for one in own], values, "o-", label=label)
        axes.set(title=title, xlabel="cameras", xticks=sorted({one.cameras for one in found}))
        axes.set_ylim(bottom=0)
    panels[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
