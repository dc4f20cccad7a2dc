"""The process that LoadGen runs in: it ends a process on settings that it does not like.

    python -m motorvae.benchmarks.loadgen.child PLAN ANSWER

Times an engine in our own loop, lets LoadGen time it, and times it again, all by one function, so
that what both measure is the same work. What goes wrong is the last line of standard error.

LoadGen's API and rules: https://github.com/mlcommons/inference (loadgen/, loadgen/mlperf.conf) and
https://github.com/mlcommons/inference_policies.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlperf_loadgen as lg
import numpy as np
import numpy.typing as npt

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.bundle.load import load_bundle
from ...runtime.core.errors import MeasurementError, MotorVAEError
from ...runtime.engines.base import Backend
from ...runtime.engines.open import EngineRequest, open_engine
from ...runtime.pixels.convert import input_from_pixels
from ..measure.case import samples_of
from .logs import verdict_in
from .plan import IMAGES, LoadGenAnswer, LoadGenPlan

_WARMUP_S = 1.0
_EMPTY_S, _EMPTY_NS = 0.5, 5000.0
_SEEDS = {
    "qsl_rng_seed": 1780908523862526354,
    "sample_index_rng_seed": 14771362308971278857,
    "schedule_rng_seed": 18209322760996052031,
}
"""Those of mlperf.conf."""
_SINGLE_STREAM_PERCENTILE, _SINGLE_STREAM_QUERIES = 0.9, 100
"""What mlperf.conf says, and LoadGen's own default, which it leaves."""
Work = Callable[[Sequence[int]], None]
"""Encodes the images of some indices."""


def main(plan_file: str, answer_file: str) -> int:
    """Run a plan and write the answer; returns the exit code."""
    try:
        plan = LoadGenPlan.model_validate_json(Path(plan_file).read_bytes())
        key = GraphKey("encoder", plan.precision, plan.variant, plan.target)
        request = EngineRequest(backend=plan.backend, threads=plan.threads, trust=plan.trust)
        with open_engine(load_bundle(Path(plan.bundle)), key, request) as backend:
            answer = measured(plan, work_of(backend, np.load(plan.images)))
        Path(answer_file).write_text(answer.model_dump_json(), encoding="utf-8")
    except (MotorVAEError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def work_of(backend: Backend, images: npt.NDArray[np.uint8]) -> Work:
    """Return what encodes images by their indices; they lie in memory as the graph takes them."""
    ready = images if backend.input_dtype == np.uint8 else input_from_pixels(images)

    def work(indices: Sequence[int]) -> None:
        backend.run(ready[list(indices)])

    return work


def measured(plan: LoadGenPlan, work: Work) -> LoadGenAnswer:
    """Time LoadGen without work, then our own loop, LoadGen's run, and our own loop again."""
    with tempfile.TemporaryDirectory(prefix="motorvae-loadgen-") as folder:
        empty = plan.model_copy(update={"seconds": _EMPTY_S, "logs": folder})
        run_loadgen(empty, lambda _: None, typical_ns=_EMPTY_NS * plan.batch)
        found = verdict_in(Path(folder), plan.scenario)
    own_loop(work, plan.batch, _WARMUP_S)
    before = own_loop(work, plan.batch, plan.seconds / 2)
    run_loadgen(plan, work, typical_ns=float(np.median(before)))
    after = own_loop(work, plan.batch, plan.seconds / 2)
    overhead_ms = 1e3 / found.samples_per_s if found.samples_per_s else found.p50_ms
    if overhead_ms is None:
        raise MeasurementError("LoadGen's log has no figure of a run without work")
    return LoadGenAnswer(ours=(samples_of(before), samples_of(after)), overhead_ms=overhead_ms)


def own_loop(work: Work, batch: int, seconds: float) -> list[int]:
    """Return nanoseconds of each call, one after the other for so long, images in turns."""
    taken: list[int] = []
    until_ns = time.perf_counter_ns() + round(seconds * 1e9)
    while not taken or time.perf_counter_ns() < until_ns:
        first = len(taken) * batch
        indices = [(first + place) % IMAGES for place in range(batch)]
        begin_ns = time.perf_counter_ns()
        work(indices)
        taken.append(time.perf_counter_ns() - begin_ns)
    return taken


def run_loadgen(plan: LoadGenPlan, work: Work, *, typical_ns: float) -> None:
    """Let LoadGen time the work by its own rules; its verdict is in its log.

    `typical_ns` of one call tells it how many queries to make ready.
    """

    def issue(queries: list[Any]) -> None:
        for start in range(0, len(queries), plan.batch):
            part = queries[start : start + plan.batch]
            work([query.index for query in part])
            lg.QuerySamplesComplete([lg.QuerySampleResponse(query.id, 0, 0) for query in part])

    def nothing(*_: object) -> None:
        """Images stay in memory, and nothing waits to be sent."""

    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, plan.scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = round(plan.seconds * 1e3)
    if plan.scenario == "SingleStream":
        settings.single_stream_expected_latency_ns = round(typical_ns)
        settings.single_stream_target_latency_percentile = _SINGLE_STREAM_PERCENTILE
        settings.min_query_count = _SINGLE_STREAM_QUERIES
    else:
        settings.offline_expected_qps = plan.batch / typical_ns * 1e9
        settings.min_query_count = IMAGES  # of Offline the least number of samples
    for name, seed in _SEEDS.items():
        setattr(settings, name, seed)
    output = lg.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = plan.logs, False
    logging = lg.LogSettings()
    logging.log_output, logging.enable_trace = output, False
    sut = lg.ConstructSUT(issue, nothing)
    library = lg.ConstructQSL(IMAGES, IMAGES, nothing, nothing)
    lg.StartTestWithLogSettings(sut, library, settings, logging, "")
    lg.DestroyQSL(library)
    lg.DestroySUT(sut)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
