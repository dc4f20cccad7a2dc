"""python -m motorvae.benchmarks.cases.latencies BUNDLE -- OPTION ...: what `--latency` trades.

A camera sends MJPEG over the loopback at 60 frames a second, and motorvae-stream runs with each
choice in turns. Of each: the age at the latent, processor time for a latent of all threads, and the
stages. The floor is measured in the same run: decoding with converting, and encoding with all
threads, each in a hot loop. What follows `--` are options of motorvae-stream. `--json FILE` keeps
it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ...runtime.bundle.load import load_bundle
from ...runtime.engines.open import EngineRequest
from ...runtime.engines.select import select_engine
from ...runtime.pixels.camera_formats import fitted_from_jpeg
from ...runtime.stream.options import Latency
from ..measure.case import FPS
from ..measure.rounds import RoundPlan, interleaved, stopwatch
from ..under_test.scenes import frame_of, jpeg_of
from ..under_test.stream_process import MjpegCamera, StreamProcess, divided, parsed
from .stream import CAMERA_FRAME, PICTURES

_SKIPPED = 25
_STAGES = ("capture", "convert", "wait", "encode", "emit")


def main(words: Sequence[str]) -> int:
    """Measure; see the module."""
    parser = argparse.ArgumentParser(prog="python -m motorvae.benchmarks.cases.latencies")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--backend", choices=("onnx", "openvino"), default="onnx")
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="int8")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--json", type=Path)
    words, options = divided(words)
    given = parser.parse_args(words)
    pictures = [jpeg_of(frame_of(*CAMERA_FRAME, seed)).tobytes() for seed in range(PICTURES)]
    floor = _floor(given, pictures[0])
    print(" ".join(f"{name} alone, hot: {ms:.2f} ms;" for name, ms in floor.items()))
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in get_args(Latency)}
    used_s = dict.fromkeys(rows, 0.0)
    engine = ("--backend", given.backend, "--precision", given.precision)
    with MjpegCamera(pictures, FPS) as camera:
        source = ("--camera", camera.url, "--model", str(given.bundle))
        for _ in range(given.rounds):
            for name in rows:
                with StreamProcess((*source, *engine, "--latency", name, *options)) as process:
                    process.rows(_SKIPPED)
                    before_s = process.processor_s()
                    lines = process.rows(given.frames)
                    used_s[name] += process.processor_s() - before_s
                rows[name] += parsed(lines)
    found = [_facts(name, its, used_s[name], sum(floor.values())) for name, its in rows.items()]
    for one in found:
        print(" ".join(f"{key} {value}" for key, value in one.items()))
    if given.json:
        given.json.write_text(json.dumps({"floor_ms": floor, "found": found}, indent=1) + "\n")
    return 0


def _floor(given: argparse.Namespace, picture: bytes) -> dict[str, float]:
    """Time the parts in hot loops of their own; medians in milliseconds."""
    bundle = load_bundle(given.bundle, hash_all=False)
    request = EngineRequest(given.backend, precision=given.precision, outputs=("mu",))
    with select_engine(bundle, "encoder", request).backend as backend:
        batch = np.zeros((1, *bundle.spec.input_shape), backend.input_dtype)
        loops = {
            "decode and convert": lambda: fitted_from_jpeg(picture, bundle.spec),
            "encode": lambda: backend.run(batch),
        }
        laps = {name: stopwatch(work, "ms") for name, work in loops.items()}
        plan = RoundPlan(samples=120, turn=40, settle=8)
        times = interleaved(laps, plan)
    return {name: float(np.median(of["ms"])) / 1e6 for name, of in times.items()}


def _facts(
    name: str, rows: Sequence[dict[str, Any]], used_s: float, floor_ms: float
) -> dict[str, Any]:
    ages = np.array([row["age_ms"] for row in rows])
    p50, p99 = np.percentile(ages, [50, 99]).round(2).tolist()
    stages = {of: float(np.median([row[f"{of}_ms"] for row in rows])) for of in _STAGES}
    return {
        "latency": name,
        "age_p50_ms": p50,
        "age_p99_ms": p99,
        "p99_over_p50": round(p99 / p50, 2),
        "over_floor": round(p50 / floor_ms, 2),
        "processor_ms": round(1e3 * used_s / len(rows), 2),
        **{of: round(ms, 2) for of, ms in stages.items()},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
