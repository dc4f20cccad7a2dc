"""Which engine runs: the one asked for, or the first that fits, and why not the ones before it."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

from ..bundle.load import Bundle, load_bundle
from ..bundle.manifest import GraphName, Precision
from ..core.errors import (
    BackendError,
    BundleError,
    ConfigError,
    EngineError,
    MissingDependencyError,
    StepFailedError,
)
from .base import Backend, CpuRunner
from .gpu_info import Gpu, NoGpu, find_gpu
from .open import open_entry
from .tensorrt.engine_manifest import EngineManifest, engine_manifest_from_json
from .tensorrt.find import (
    engine_paths,
    graphs_with_engine,
    no_engine,
    open_engine,
    precisions_with_engine,
)
from .tensorrt.package import TENSORRT_PACKAGES, TensorRTName, TensorRTPackage, import_tensorrt

BackendName = Literal["auto", "tensorrt", "tensorrt-rtx", "onnx", "openvino"]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What a user asked of the engine.

    Attributes:
        backend: Which one, or "auto".
        precision: None takes FP16 engines where there are any, and float32 on a CPU.
        provider: ONNX Runtime's; asking for one asks for ONNX Runtime.
        threads: Of one run on a CPU.
        cuda_graph: Whether engines may run as a recorded CUDA graph.
        rebuild: Whether an engine that does not fit is built again from the bundle's graphs.
        outputs: What the graph must give; all that its half can give where left out.
    """

    backend: BackendName = "auto"
    precision: Precision | None = None
    provider: str | None = None
    threads: int | None = None
    cuda_graph: bool = True
    rebuild: bool = False
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.provider == "":
            raise ConfigError("provider='': name one, such as cpu or cuda, or leave --provider out")
        if self.backend not in {"auto", "onnx"} and self.provider is not None:
            raise ConfigError(
                f"--provider is for ONNX Runtime, and --backend {self.backend} was asked for: "
                "leave one of them out"
            )
        if self.backend in TENSORRT_PACKAGES and self.threads is not None:
            raise ConfigError(
                f"--threads is for CPUs, and --backend {self.backend} was asked for: leave one of "
                "them out"
            )
        if self.precision == "bf16" and (self.backend == "onnx" or self.provider is not None):
            raise ConfigError(
                "ONNX Runtime does not compute in bf16: use --backend openvino, or another "
                "--precision"
            )
        if self.precision == "fp16" and self.backend == "openvino":
            raise ConfigError(
                "FP16 graphs are verified for TensorRT and ONNX Runtime only: take another "
                "--precision for OpenVINO"
            )
        if self.rebuild and (self.backend in {"onnx", "openvino"} or self.provider is not None):
            raise ConfigError(
                f"--rebuild builds a TensorRT engine: leave out --backend {self.backend}"
            )


@dataclass(frozen=True, slots=True)
class SelectedEngine:
    """An opened backend, and how it came to be this one.

    Attributes:
        backend: To be closed by whoever asked.
        precision: What runs.
        passed_over: One clause for each that came earlier in the order, with the reason.
    """

    backend: Backend
    precision: Precision
    passed_over: tuple[str, ...] = ()

    @property
    def chosen(self) -> str:
        """Precision, what a leaner form gives, and backend, for the first line of output."""
        form = " mu only" if self.backend.outputs == ("mu",) else ""
        return f"{self.precision}{form} {self.backend.name}"

    @property
    def remarks(self) -> str:
        """Why not the earlier ones, and what to know of this one: the end of the first line."""
        clauses = [*(f"not {reason}" for reason in self.passed_over), *self.backend.notes]
        return "".join(f"; {clause}" for clause in clauses)


def select_engine(bundle: Bundle, graph: GraphName, request: EngineRequest) -> SelectedEngine:
    """Open what was asked for, in the leanest form that serves.

    The order of "auto" is: a TensorRT engine that fits, a TensorRT-RTX engine that fits, ONNX
    Runtime on the GPU, and on the CPU whichever of OpenVINO and ONNX Runtime is the faster one in
    that precision (docs/speed.md has the measurement).

    Args:
        bundle: A checked bundle.
        graph: Which half.
        request: What the user asked for.

    Raises:
        EngineError: The engine asked for by name is absent or does not fit.
        MissingDependencyError: What was asked for by name is not installed.
        BackendError: It does not open.
        StepFailedError: Building the engine again failed.
    """
    if request.backend == "onnx" or request.provider is not None:
        return _graph(bundle, graph, request, "onnx", request.provider or "cpu")
    if request.backend == "openvino":
        return _graph(bundle, graph, request, "openvino")
    gpu = find_gpu()
    if request.backend != "auto":
        return _engine(bundle, graph, request, request.backend, gpu)
    if isinstance(gpu, NoGpu):
        chosen = _fastest_graph(bundle, graph, request)
        passed_over = (f"on a GPU: {gpu.reason}", *chosen.passed_over)
        return SelectedEngine(chosen.backend, chosen.precision, passed_over)
    return _first_that_fits(bundle, graph, request, gpu)


def _first_that_fits(
    bundle: Bundle, graph: GraphName, request: EngineRequest, gpu: Gpu
) -> SelectedEngine:
    passed_over: list[str] = []
    for package in TENSORRT_PACKAGES:
        has_engine = bool(precisions_with_engine(bundle, graph, package))
        try:
            chosen = _engine(bundle, graph, request, package, gpu)
        except (BackendError, MissingDependencyError) as error:
            passed_over.append(f"{package}: {error if has_engine else error.clause()}")
        else:
            return SelectedEngine(chosen.backend, chosen.precision, tuple(passed_over))
    try:
        chosen = _graph(bundle, graph, request, "onnx", "cuda")
    # Also one that lacks memory, or that finds another CUDA, or a precision that it has not.
    except (BackendError, BundleError) as error:
        passed_over.append(f"onnx on cuda: {error.clause()}")
        chosen = _fastest_graph(bundle, graph, request)
        passed_over += chosen.passed_over
    return SelectedEngine(chosen.backend, chosen.precision, tuple(passed_over))


def _fastest_graph(bundle: Bundle, graph: GraphName, request: EngineRequest) -> SelectedEngine:
    """Take OpenVINO where it is the faster one: below float32, and on the processors it is for."""
    precision = request.precision or "fp32"
    if precision == "bf16":  # the other has no such arithmetic
        return _graph(bundle, graph, request, "openvino")
    passed_over: tuple[str, ...] = ()
    if precision == "int8" and platform.machine().lower() in {"x86_64", "amd64"}:
        try:
            return _graph(bundle, graph, request, "openvino")
        except (BackendError, BundleError, MissingDependencyError) as error:
            passed_over = (f"openvino: {error.clause()}",)
    chosen = _graph(bundle, graph, request, "onnx")
    return SelectedEngine(chosen.backend, chosen.precision, passed_over)


def _graph(
    bundle: Bundle,
    graph: GraphName,
    request: EngineRequest,
    runner: CpuRunner,
    provider: str = "cpu",
) -> SelectedEngine:
    """Open the leanest form that a runner has of what is asked for."""
    precision = request.precision or "fp32"
    entry = bundle.leanest(graph, precision, runner, request.outputs)
    backend = open_entry(bundle, entry, runner=runner, provider=provider, threads=request.threads)
    if runner == "openvino" and not bundle.verified_in(entry, "OpenVINO"):
        backend.notes += ("this graph was not verified in OpenVINO when the bundle was made",)
    return SelectedEngine(backend, precision)


def _engine(
    bundle: Bundle,
    graph: GraphName,
    request: EngineRequest,
    name: TensorRTName,
    gpu: Gpu | NoGpu,
) -> SelectedEngine:
    present = precisions_with_engine(bundle, graph, name)
    # Eight bits are only run when they are asked for.
    found = tuple(p for p in present if p == request.precision or p != "int8")
    if request.backend == "auto" and not found:
        raise EngineError(no_engine(bundle, graph, name))
    if isinstance(gpu, NoGpu):
        raise EngineError(
            f"{gpu.reason}; run it on the machine with the GPU, or use --backend onnx"
        )
    package = import_tensorrt(name)
    if objection := package.objection_to(gpu):
        raise EngineError(objection, fix="use --backend tensorrt or onnx")
    wanted = (request.precision,) if request.precision else (found or ("fp16",))
    precision, backend, engine_manifest = _opened(
        bundle, graph, request, wanted, package=package, gpu=gpu
    )
    if request.threads is not None:
        backend.notes += ("--threads is for ONNX Runtime and changes nothing here",)
    if not engine_manifest.verification.verified:
        backend.notes += (f"this engine was not verified: {engine_manifest.verification.reason}",)
    elif engine_manifest.gpu != gpu.name:
        backend.notes += (
            f"this engine was verified on {engine_manifest.gpu} and not on {gpu.name}",
        )
    return SelectedEngine(backend, precision)


def _opened(
    bundle: Bundle,
    graph: GraphName,
    request: EngineRequest,
    wanted: tuple[Precision, ...],
    *,
    package: TensorRTPackage,
    gpu: Gpu,
) -> tuple[Precision, Backend, EngineManifest]:
    """Open the first precision whose engine fits; else build the first again, if that is wished."""
    first: EngineError | None = None
    for precision in wanted:
        try:
            backend, engine_manifest = open_engine(
                bundle,
                graph,
                precision,
                package,
                gpu,
                outputs=request.outputs,
                cuda_graph=request.cuda_graph,
            )
        except EngineError as error:  # noqa: PERF203  # two turns at most
            first = first or error
        else:
            return precision, backend, engine_manifest
    if first is not None and not request.rebuild:
        raise first
    rebuilt = _rebuilt(bundle, graph, wanted[0], package.name)
    backend, engine_manifest = open_engine(
        rebuilt,
        graph,
        wanted[0],
        package,
        gpu,
        outputs=request.outputs,
        cuda_graph=request.cuda_graph,
    )
    return wanted[0], backend, engine_manifest


def _rebuilt(
    bundle: Bundle, graph: GraphName, precision: Precision, package: TensorRTName
) -> Bundle:
    """Let motorvae-export build the engine here: this side of the project builds nothing."""
    command = [sys.executable, "-m", "motorvae.export.cli", "--bundle", str(bundle.folder)]
    command += ["--engine", package, *([] if precision == "fp32" else [f"--{precision}"])]
    with contextlib.suppress(EngineError):  # the old engine manifest may be what is broken
        for entry in graphs_with_engine(bundle, graph, precision, package)[:1]:
            paths = engine_paths(bundle.folder, graph, precision, package, entry.variant)
            command += ["--batch", engine_manifest_from_json(paths[1]).profile.text]
    # Else a folder called tensorrt in the working directory would be the package.
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    with subprocess.Popen(command, env=environment) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it has heard the same Ctrl-C, and cleans up
            raise
    if code:
        raise StepFailedError(
            f"building the engine again failed with exit code {code}: read what motorvae-export "
            "said above"
        )
    return load_bundle(bundle.folder)
