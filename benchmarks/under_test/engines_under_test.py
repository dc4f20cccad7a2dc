"""Every way to run one half of the model on this machine's CPU, or why one is not there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from ...runtime.bundle.graph_key import GraphKey, Part, Precision
from ...runtime.bundle.manifest import GraphEntry
from ...runtime.core.errors import (
    BackendError,
    BundleError,
    MeasurementError,
    MissingDependencyError,
)
from ...runtime.engines.base import Batch, CpuRunner
from ...runtime.engines.open import EngineRequest, open_engine
from ..measure.case import COMPILED, EAGER, ONNX, OPENVINO, Case, InputType
from .as_installed import openvino_precision, plain_onnx, plain_openvino
from .model_under_test import ModelUnderTest
from .torch_engines import Run, compiled_run, eager_run

OURS = "ours"
"""Opened as motorVAE opens it, unlike the same engine as installed."""
RUNNERS: dict[CpuRunner, str] = {"onnx": ONNX, "openvino": OPENVINO}
_FP16_ON_CPU = "a CPU engine may compute FP16 graphs in float32, so that its time says nothing"
_NOT_YET = "not reached"
_REFUSALS = (BackendError, MissingDependencyError, MeasurementError)


@dataclass(frozen=True)
class EngineUnderTest:
    """One engine with one form of a graph.

    Attributes:
        planned: Its case without samples.
        open: Opens it for a sample input; may raise one of `_REFUSALS`.
        entry: The bundle's graph that it runs, where it is one of ours.
    """

    planned: Case
    open: Callable[[Batch], AbstractContextManager[Run]]
    entry: GraphEntry | None = None

    @property
    def takes_luma(self) -> bool:
        """Whether it takes 8-bit luma."""
        return self.planned.input_type == "uint8"


@dataclass(frozen=True)
class Opened:
    """An engine that runs.

    Attributes:
        engine: Which one.
        run: The engine.
        prepare_s: Seconds from the file or module to the first result.
    """

    engine: EngineUnderTest
    run: Run
    prepare_s: float


def engines_under_test(
    tested: ModelUnderTest,
    graph: Part,
    batch: int,
    *,
    threads: int | None,
    leading: bool = False,
    skip_compile: bool = False,
) -> list[EngineUnderTest]:
    """Return the rivals, and every form of a graph that the bundle holds for engines on a CPU.

    Args:
        tested: The model.
        graph: Which half.
        batch: Images in one call.
        threads: What the user gave.
        leading: Leave out torch.compile, OpenVINO as installed, and what a leaner graph beats.
        skip_compile: Leave torch.compile out, and say so.
    """
    half = tested.model.encoder if graph == "encoder" else tested.model.decoder
    outputs = [tensor.name for tensor in GraphKey(graph).outputs(tested.spec)]
    path = tested.bundle.path(tested.bundle.entry(GraphKey(graph)))

    def planned(engine: str, precision: Precision = "fp32") -> Case:
        return Case(
            group=graph,
            engine=engine,
            precision=precision,
            outputs=" and ".join(outputs),
            batch=batch,
            not_measured=_NOT_YET,
        )

    def compiled(sample: Batch) -> Run:
        if skip_compile:
            raise MeasurementError("left out by --skip-compile or --quick")
        return compiled_run(half, outputs, sample)

    found = [
        EngineUnderTest(planned(EAGER), _opening(lambda _: eager_run(half, outputs))),
        EngineUnderTest(planned(COMPILED), _opening(compiled)),
        EngineUnderTest(planned(ONNX), _opening(lambda _: plain_onnx(path, threads))),
        EngineUnderTest(
            planned(OPENVINO, openvino_precision()),
            _opening(lambda _: plain_openvino(path, threads)),
        ),
    ]
    if leading:
        found = [one for one in found if one.planned.engine in {EAGER, ONNX}]
    for entry in tested.bundle.manifest.graphs:
        for runner in RUNNERS:
            if entry.graph == graph and is_for(entry, runner):
                if leading and not _leads(tested, entry, runner):
                    continue
                found.append(production(tested, entry, runner, batch=batch, threads=threads))
    return found


def production(
    tested: ModelUnderTest,
    entry: GraphEntry,
    runner: CpuRunner,
    *,
    batch: int = 1,
    threads: int | None = None,
) -> EngineUnderTest:
    """Return one graph of the bundle as motorVAE itself opens it."""
    (face,) = entry.inputs
    input_type: InputType = face.dtype
    case = Case(
        group=entry.graph,
        engine=RUNNERS[runner],
        precision=entry.precision,
        outputs=" and ".join(tensor.name for tensor in entry.outputs),
        input_type=input_type,
        variant=f"{OURS}, phases" if entry.variant == "phases" else OURS,
        batch=batch,
        not_measured=_NOT_YET,
    )

    @contextlib.contextmanager
    def opened(_: Batch) -> Iterator[Run]:
        if entry.precision == "fp16":
            raise MeasurementError(_FP16_ON_CPU)
        request = EngineRequest(backend=runner, threads=threads)
        with open_engine(tested.bundle, entry.key, request) as backend:
            yield backend.run

    return EngineUnderTest(case, opened, entry)


def is_for(entry: GraphEntry, runner: CpuRunner) -> bool:
    """Whether a form of a graph was made for an engine, or for all of them."""
    if entry.precision == "bf16" and runner == "onnx":  # which has no such arithmetic
        return False
    return entry.made_for in {None, runner}


def open_all(
    engines: list[EngineUnderTest],
    input_for: Callable[[EngineUnderTest], Batch],
    stack: contextlib.ExitStack,
) -> tuple[list[Opened], list[Case]]:
    """Open what opens and run each once; return the others' cases with their reasons."""
    ready, refused = [], []
    for engine in engines:
        sample = input_for(engine)
        begin_s = time.perf_counter()
        try:
            run = stack.enter_context(engine.open(sample))
            run(sample)
        except _REFUSALS as error:
            refused.append(engine.planned.model_copy(update={"not_measured": error.clause()}))
        else:
            ready.append(Opened(engine, run, time.perf_counter() - begin_s))
    return ready, refused


def _opening(make: Callable[[Batch], Run]) -> Callable[[Batch], AbstractContextManager[Run]]:
    return lambda sample: contextlib.nullcontext(make(sample))


def _leads(tested: ModelUnderTest, entry: GraphEntry, runner: CpuRunner) -> bool:
    """Whether a graph is the leanest of its precision; FP16 is not measured anyway."""
    if entry.precision == "fp16":
        return False
    outputs = ("mu",) if entry.graph == "encoder" else ()
    with contextlib.suppress(BundleError):
        return tested.bundle.leanest(replace(entry.key, target=runner), outputs) == entry
    return False
