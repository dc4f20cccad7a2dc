"""LoadGen's runs, each in a process of its own with a time limit, and what came of them."""

from __future__ import annotations

import importlib.util
import platform
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.core.errors import MeasurementError, MissingDependencyError, missing_dependency
from ...runtime.core.system.children import python_module
from ...runtime.engines.gpu_info import NoGpu, find_gpu
from ...runtime.engines.open import BackendName
from ...runtime.engines.tensorrt.find import leanest_engine, precisions_with_engine
from ...runtime.engines.tensorrt.package import TENSORRT_PACKAGES, title_of
from ..cases.path import path_engines
from ..measure.case import ONNX
from ..measure.loadgen import SCENARIOS, LoadGenRun
from ..under_test.model_under_test import ModelUnderTest
from ..under_test.scenes import luma_for
from .logs import verdict_in
from .plan import IMAGES, LoadGenAnswer, LoadGenPlan

_CHILD = "motorvae.benchmarks.loadgen.child"
_OPENING_S = 180.0
_TIMES = 6.0
"""How many times as long as LoadGen's least duration a run may take: both of our loops are as long
together, and of Offline LoadGen decides beforehand how many samples it takes."""


@dataclass(frozen=True)
class StreamingEngine:
    """An encoder as motorvae-stream runs it."""

    how: str  # As `Case.how` names it
    key: GraphKey
    backend: BackendName


def require_loadgen() -> None:
    """Raise a MissingDependencyError where LoadGen is not installed, or cannot be."""
    if importlib.util.find_spec("mlperf_loadgen") is not None:
        return
    if platform.machine() not in {"x86_64", "AMD64"}:
        raise MissingDependencyError(
            f"--loadgen needs the package mlcommons-loadgen, which has wheels for x86-64 only, and "
            f"this is {platform.machine()}",
            fix="leave out --loadgen, or build LoadGen from github.com/mlcommons/inference",
        )
    raise missing_dependency(
        "--loadgen", "mlcommons-loadgen", extra="loadgen", instead="leave out --loadgen"
    )


def streaming_engines(tested: ModelUnderTest, threads: int | None) -> list[StreamingEngine]:
    """Return the encoders that motorvae-stream takes here, one for each engine and precision."""
    found = [
        StreamingEngine(
            one.planned.how, one.entry.key, "onnx" if one.planned.engine == ONNX else "openvino"
        )
        for one in path_engines(tested, threads)
        if one.entry is not None
    ]
    if isinstance(find_gpu(), NoGpu):
        return found
    for package in TENSORRT_PACKAGES:
        for precision in precisions_with_engine(tested.bundle, "encoder", package):
            key = GraphKey("encoder", precision, target="tensorrt")
            entry = leanest_engine(tested.bundle, key, package, ("mu",))
            how = f"{title_of(package)}, {precision}, mu"
            found.append(StreamingEngine(how, entry.key, package))
    return found


def loadgen_runs(
    tested: ModelUnderTest,
    engines: Sequence[StreamingEngine],
    *,
    seconds: float,
    offline_batch: int,
    threads: int | None,
    trust: bool,
    seed: int,
    logs: Path,
    note: Callable[[str], None],
) -> tuple[LoadGenRun, ...]:
    """Run every engine in both scenarios, one after the other.

    `logs` is an existing folder, in which each run leaves one with LoadGen's own files. A run that
    crashes, hangs or is refused has its reason, and the others go on.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="motorvae-loadgen-") as folder:
        images = Path(folder) / "images.npy"
        np.save(images, luma_for(tested.spec, IMAGES, seed))
        for engine in engines:
            for scenario in SCENARIOS:
                note(f"LoadGen, {scenario}: {engine.how}")
                name = re.sub(r"[^a-z0-9]+", "-", f"{engine.how} {scenario}".lower()).strip("-")
                own = logs / name
                own.mkdir()
                plan = LoadGenPlan(
                    bundle=str(tested.bundle.folder.resolve()),
                    precision=engine.key.precision,
                    variant=engine.key.variant,
                    target=engine.key.target,
                    backend=engine.backend,
                    threads=threads,
                    trust=trust,
                    images=str(images),
                    scenario=scenario,
                    batch=1 if scenario == "SingleStream" else offline_batch,
                    seconds=seconds,
                    logs=str(own.resolve()),
                )
                found.append(run_of(plan, engine.how, own, Path(folder) / name))
    return tuple(found)


def run_of(plan: LoadGenPlan, engine: str, logs: Path, scratch: Path) -> LoadGenRun:
    """Run one plan in a process of its own; what went wrong is the run's reason."""
    run = LoadGenRun(
        engine=engine,
        scenario=plan.scenario,
        batch=plan.batch,
        seconds=plan.seconds,
        logs=logs.name,
        not_measured="not reached",
    )
    try:
        answer = answer_to(plan, scratch)
        verdict = verdict_in(logs, plan.scenario)
    except MeasurementError as error:
        return run.model_copy(update={"not_measured": str(error)})
    measured: dict[str, object] = {"not_measured": None, "verdict": verdict, "ours": answer.ours}
    measured |= {"overhead_ms": answer.overhead_ms}
    return LoadGenRun.model_validate(run.model_dump() | measured)


def answer_to(plan: LoadGenPlan, scratch: Path, *, opening_s: float = _OPENING_S) -> LoadGenAnswer:
    """Return what a process answers; a MeasurementError says how it ended where it did not."""
    scratch.mkdir()
    question, answer = scratch / "plan.json", scratch / "answer.json"
    question.write_text(plan.model_dump_json(), encoding="utf-8")
    limit_s = opening_s + _TIMES * plan.seconds
    try:
        done = subprocess.run(
            python_module(_CHILD, str(question), str(answer)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"LoadGen did not end within {limit_s:.0f} s") from error
    if done.returncode or not answer.exists():
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        said = lines[-1][:300] if lines else "nothing"
        ended = f"exit code {done.returncode}"
        if done.returncode < 0:
            ended = f"signal {signal.Signals(-done.returncode).name}"
        raise MeasurementError(f"the process of LoadGen ended with {ended}: it said {said!r}")
    return LoadGenAnswer.model_validate_json(answer.read_bytes())
