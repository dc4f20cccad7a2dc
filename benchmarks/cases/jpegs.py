"""python -m motorvae.benchmarks.cases.jpegs BUNDLE -- OPTION ...: what restart markers save.

The same picture with and without them, a marker at the end of each row of blocks: its Huffman codes
alone, and luma for the model on one core and on two, in turns in a hot loop. Then a camera sends
either over the loopback at 60 frames a second, and real motorvae-stream processes read them in
turns: the age at the latent, its stages, and processor time for a latent. Pictures with markers are
read twice: by a process that decodes on one core only, and by one as it is. What follows `--` are
options of motorvae-stream.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.load import load_bundle
from ...runtime.core.spec import ModelSpec
from ...runtime.pixels.camera_formats import fitted_from_jpeg
from ..measure.case import FPS
from ..measure.rounds import RoundPlan, interleaved, stopwatch
from ..under_test.scenes import frame_of, huffman_alone, jpeg_of
from ..under_test.stream_process import MjpegCamera, StreamProcess, divided, parsed

SIZES = ((1920, 1080), (1280, 720))
PLAIN, MARKED = "without markers", "with markers"
_ONE_CORE = """
from motorvae.runtime.stream.options import StreamOptions
StreamOptions.cores_for_decoding = 1
"""
_STREAMS = {
    PLAIN: (PLAIN, ""),
    f"{MARKED}, one core": (MARKED, _ONE_CORE),
    MARKED: (MARKED, ""),
}
_PICTURES = 8
_SKIPPED = 25
_STAGES = ("capture", "convert", "wait", "encode")


def main(words: Sequence[str]) -> int:
    """Measure; see the module."""
    parser = argparse.ArgumentParser(prog="python -m motorvae.benchmarks.cases.jpegs")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--samples", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--frames", type=int, default=100)
    words, options = divided(words)
    given = parser.parse_args(words)
    spec = load_bundle(given.bundle, hash_all=False).spec
    print("| hot loop | p50 ms | fastest | p90 |\n| --- | ---: | ---: | ---: |")
    for size in SIZES:
        for name, times in _hot(size, spec, given.samples).items():
            p50, p90 = np.percentile(times, [50, 90])
            title = f"{size[0]}x{size[1]} {name}"
            print(f"| {title} | {p50:.2f} | {min(times):.2f} | {p90:.2f} |", flush=True)
    if given.rounds:
        print(f"\n| {FPS} fps | age p50 | p99 | {' | '.join(_STAGES)} | processor |")
        print(f"| --- |{' ---: |' * (3 + len(_STAGES))}")
    for size in SIZES if given.rounds else ():
        for name, row in _streams(size, given, options).items():
            print(f"| {size[0]}x{size[1]} {name} | {row} |", flush=True)
    return 0


def _pictures(size: tuple[int, int], count: int) -> dict[str, list[bytes]]:
    """Return the same pictures in both forms."""
    frames = [frame_of(*size, seed) for seed in range(count)]
    intervals = {PLAIN: 0, MARKED: -(-size[0] // 16)}
    return {
        name: [jpeg_of(frame, interval).tobytes() for frame in frames]
        for name, interval in intervals.items()
    }


def _hot(size: tuple[int, int], spec: ModelSpec, samples: int) -> dict[str, list[float]]:
    """Return milliseconds of each way, timed in turns."""
    works: dict[str, Callable[[], object]] = {}
    for name, (picture,) in _pictures(size, 1).items():
        works[f"{name}, Huffman codes alone"] = huffman_alone(picture, *size)
        for cores, words in ((1, "one core"), (2, "two cores")):
            works[f"{name}, luma, {words}"] = functools.partial(
                fitted_from_jpeg, picture, spec, cores=cores
            )
    laps = {name: stopwatch(work, "ms") for name, work in works.items()}
    times = interleaved(laps, RoundPlan(samples=samples, turn=20, settle=4))
    return {name: [ns / 1e6 for ns in found["ms"]] for name, found in times.items()}


def _streams(
    size: tuple[int, int], given: argparse.Namespace, options: Sequence[str]
) -> dict[str, str]:
    """Return a row for each way, of real processes in turns."""
    forms = _pictures(size, _PICTURES)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _STREAMS}
    used_s = dict.fromkeys(_STREAMS, 0.0)
    for _ in range(given.rounds):
        for name, (form, change) in _STREAMS.items():
            with MjpegCamera(forms[form], FPS) as camera:
                words = ("--camera", camera.url, "--model", str(given.bundle), *options)
                with StreamProcess(words, change) as process:
                    process.rows(_SKIPPED)
                    before_s = process.processor_s()
                    lines = process.rows(given.frames)
                    used_s[name] += process.processor_s() - before_s
            rows[name] += parsed(lines)
    return {name: _row(its, used_s[name]) for name, its in rows.items()}


def _row(rows: Sequence[dict[str, Any]], used_s: float) -> str:
    p50, p99 = np.percentile([row["age_ms"] for row in rows], [50, 99])
    stages = [float(np.median([row[f"{of}_ms"] for row in rows])) for of in _STAGES]
    values = (p50, p99, *stages, 1e3 * used_s / len(rows))
    return " | ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
