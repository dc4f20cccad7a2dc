"""Every engine that runs one half of the model on this machine's CPU, or why one does not."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import cv2
import torch
from torch import nn

from ...runtime.bundle.graph_key import GraphKey, Part, Precision, Target
from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import GraphEntry
from ...runtime.core.errors import (
    BackendError,
    MeasurementError,
    MissingDependencyError,
    needed_for,
)
from ...runtime.engines.base import Arrays, Batch
from ...runtime.engines.cpu_threads import default_threads
from ...runtime.engines.open import EngineRequest, open_engine
from ..measure.case import COMPILED, EAGER, ONNX, OPENVINO, Case
from .model_under_test import ModelUnderTest, Run

OURS = "ours"
"""Opened as motorVAE opens it, unlike the same engine as installed."""
RUNNERS: dict[Target, str] = {"onnx": ONNX, "openvino": OPENVINO}
_FP16_ON_CPU = "a CPU engine may compute FP16 graphs in float32, so that its time means nothing"
REFUSALS = (BackendError, MissingDependencyError, MeasurementError)


@dataclass(frozen=True)
class EngineUnderTest:
    """One engine with one form of a graph."""

    planned: Case  # Its case without samples
    # Opens it for a sample input; may raise one of `REFUSALS`
    open: Callable[[Batch], AbstractContextManager[Run]]
    entry: GraphEntry | None = None  # The bundle's graph that it runs, where it is one of ours


class Opened(NamedTuple):
    """An engine that runs, its case with what the drift gate found, and what it is given."""

    planned: Case
    run: Run
    batch: Batch


def engines_under_test(
    tested: ModelUnderTest,
    part: Part,
    batch: int,
    *,
    threads: int | None,
    leading: bool = False,
    skip_compile: bool = False,
) -> list[EngineUnderTest]:
    """Return the rivals, and every form of a graph that the bundle holds for engines on a CPU.

    With `leading` torch.compile, OpenVINO as installed, and what a leaner graph beats are left
    out; with `skip_compile` torch.compile is there with that reason.
    """
    outputs = tested.outputs(part)
    path = tested.bundle.path(tested.bundle.entry(GraphKey(part)))

    def compiled(sample: Batch) -> Run:
        if skip_compile:
            raise MeasurementError("left out by --skip-compile or --quick")
        return compiled_run(tested.half(part), outputs, sample)

    def rival(engine: str, open_it: Callable[[Batch], Run], **facts: Precision) -> EngineUnderTest:
        names = " and ".join(outputs)
        planned = Case.planned(group=part, engine=engine, outputs=names, batch=batch, **facts)
        return EngineUnderTest(planned, lambda sample: contextlib.nullcontext(open_it(sample)))

    found = [
        rival(EAGER, lambda _: eager_run(tested.half(part), outputs)),
        rival(COMPILED, compiled),
        rival(ONNX, lambda _: plain_onnx(path, threads)),
        rival(OPENVINO, lambda _: plain_openvino(path, threads), precision=openvino_precision()),
    ]
    if leading:
        found = [one for one in found if one.planned.engine in {EAGER, ONNX}]
    for entry in tested.bundle.manifest.graphs:
        for runner in RUNNERS:
            if entry.graph != part or not is_for(entry, runner, tested.bundle):
                continue
            if not leading or _leads(tested, entry, runner):
                found.append(production(tested, entry, runner, batch=batch, threads=threads))
    return found


def production(
    tested: ModelUnderTest,
    entry: GraphEntry,
    runner: Target,
    *,
    batch: int = 1,
    threads: int | None = None,
) -> EngineUnderTest:
    """Return one graph of the bundle as motorVAE itself opens it."""
    planned = Case.planned(
        group=entry.graph,
        engine=RUNNERS[runner],
        precision=entry.precision,
        outputs=" and ".join(tensor.name for tensor in entry.outputs),
        input_type=entry.inputs[0].dtype,
        variant=f"{OURS}, phases" if entry.variant == "phases" else OURS,
        batch=batch,
    )

    @contextlib.contextmanager
    def opened(_: Batch) -> Iterator[Run]:
        if entry.precision == "fp16":
            raise MeasurementError(_FP16_ON_CPU)
        request = EngineRequest(backend=runner, threads=threads)
        with open_engine(tested.bundle, entry.key, request) as backend:
            yield backend.run

    return EngineUnderTest(planned, opened, entry)


def is_for(entry: GraphEntry, runner: Target, bundle: Bundle) -> bool:
    """Whether an engine on a CPU runs a form of a graph: its own, or that for all without one."""
    if entry.precision == "bf16" and runner == "onnx":  # which has no such arithmetic
        return False
    own = replace(entry.key, target=runner)
    is_own = entry.key == own or own not in {one.key for one in bundle.manifest.graphs}
    return entry.made_for in {None, runner} and is_own


def open_all(
    engines: Sequence[EngineUnderTest],
    tested: ModelUnderTest,
    luma: Batch,
    values: Batch,
    stack: contextlib.ExitStack,
) -> tuple[list[Opened], list[Case]]:
    """Open what opens, run each once, and hold it to the drift gate; the stack closes it.

    Engines that take 8-bit luma are given `luma`, the others `values`. Those that refuse come as
    cases with their reasons.
    """
    ready: list[Opened] = []
    refused: list[Case] = []
    for engine in engines:
        batch = luma if engine.planned.input_type == "uint8" else values
        begin_s = time.perf_counter()
        try:
            run = stack.enter_context(engine.open(batch))
            run(batch)
        except REFUSALS as error:
            refused.append(engine.planned.without(error.clause()))
            continue
        planned = engine.planned.with_facts(prepare_s=time.perf_counter() - begin_s)
        ready.append(Opened(tested.gate.judged(planned, run, engine.entry), run, batch))
    return ready, refused


def reference_run(tested: ModelUnderTest, part: Part) -> Run:
    """Return what others are compared with: torch, or of weights of others the float32 graph."""
    if tested.model is not None:
        return eager_run(tested.half(part), tested.outputs(part))
    return plain_onnx(tested.bundle.path(tested.bundle.entry(GraphKey(part))), None)


def eager_run(half: Callable[..., object], outputs: Sequence[str]) -> Run:
    """Give a module the signature of a backend: arrays in, arrays out, no gradients."""

    def run(batch: Batch) -> Arrays:
        with torch.inference_mode():
            found = half(torch.from_numpy(batch))
            tensors = found if isinstance(found, tuple) else (found,)
            return {name: t.numpy() for name, t in zip(outputs, tensors, strict=True)}

    return run


def compiled_run(half: nn.Module, outputs: Sequence[str], sample: Batch) -> Run:
    """Compile the torch module for exactly this batch, from an empty compiler cache."""
    torch.compiler.reset()  # a second batch size would otherwise share guards with the first
    try:
        with _empty_compiler_cache(), warnings.catch_warnings():
            # torch's own use of its own deprecated decorator while it loads the compiler.
            warnings.filterwarnings(
                "ignore", category=DeprecationWarning, message=".*torch.jit.script_method.*"
            )
            run = eager_run(torch.compile(half, dynamic=False), outputs)
            run(sample)
    except (RuntimeError, OSError, ImportError) as error:
        # The roots of all that Dynamo, Inductor and the C++ compiler raise.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0][:200] if lines else type(error).__name__
        raise MeasurementError(f"{COMPILED} failed: {reason}") from error
    return run


def plain_onnx(path: Path, threads: int | None) -> Run:
    """Open a graph in ONNX Runtime with no option set; `threads` where the user gave a number."""
    ort = _rival("onnxruntime", "onnx_runtime", extra="cpu")
    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    outputs = [output.name for output in session.get_outputs()]
    return lambda batch: dict(zip(outputs, session.run(None, {taken.name: batch}), strict=True))


def plain_openvino(path: Path, threads: int | None) -> Run:
    """Open a graph in OpenVINO with no option set; `threads` where the user gave a number."""
    ov = _rival("openvino", "openvino_runtime", extra="openvino")
    settings = {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
    compiled = ov.Core().compile_model(str(path), "CPU", settings)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(batch: Batch) -> Arrays:
        found = compiled(batch)
        return {name: found[place] for place, name in enumerate(names)}

    return run


def openvino_precision() -> Precision:
    """Return what OpenVINO computes a float32 graph in with no option set: it may be bf16.

    Also float32 where it is not installed.
    """
    with contextlib.suppress(MissingDependencyError):
        ov = _rival("openvino", "openvino_runtime", extra="openvino")
        if ov.Core().get_property("CPU", "INFERENCE_PRECISION_HINT") == ov.Type.bf16:
            return "bf16"
    return "fp32"


@contextlib.contextmanager
def thread_limit(threads: int | None) -> Iterator[dict[str, int]]:
    """Hold torch and OpenCV to a number of threads, or leave each at its own choice.

    Backends take the number when a graph is opened. The block is given what each is set to; of
    ONNX Runtime and OpenVINO, as motorVAE opens them.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        stack.callback(cv2.setNumThreads, cv2.getNumThreads())
        if threads is not None:
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)
        got = torch.get_num_threads(), cv2.getNumThreads()
        if threads is not None and got != (threads, threads):
            raise MeasurementError(
                f"asked torch and OpenCV for {threads} threads and got {got[0]} and {got[1]}: "
                "choose another --threads"
            )
        ours = threads or default_threads()
        yield {"torch": got[0], "ONNX Runtime": ours, "OpenVINO": ours, "OpenCV": got[1]}


def _rival(package: str, backend: str, *, extra: str) -> ModuleType:
    """Import an optional engine after our own backend, which disables its telemetry."""
    with needed_for("a rival", package=package, extra=extra):
        importlib.import_module(f"...runtime.engines.{backend}", __package__)
        return importlib.import_module(package)


def _leads(tested: ModelUnderTest, entry: GraphEntry, runner: Target) -> bool:
    """Whether a graph is the leanest of its precision; FP16 is not measured anyway."""
    outputs = ("mu",) if entry.graph == "encoder" else ()
    leanest = tested.bundle.leanest(replace(entry.key, target=runner), outputs)
    return entry.precision != "fp16" and leanest == entry


@contextlib.contextmanager
def _empty_compiler_cache() -> Iterator[None]:
    """Let Inductor start from nothing, so that a compile time is never that of a cache hit."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = {name: os.environ[name]} if name in os.environ else {}
    with tempfile.TemporaryDirectory(prefix="motorvae-inductor-") as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            del os.environ[name]
            os.environ.update(before)
