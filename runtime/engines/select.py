"""Which engine runs: the one asked for, or the first that fits, and why not the ones before it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..bundle.graph_key import GraphKey, Part, Precision
from ..bundle.load import Bundle
from ..core.errors import (
    BackendError,
    BundleError,
    ConfigError,
    EngineError,
    EngineFitError,
    MissingDependencyError,
)
from .base import Backend, CpuRunner
from .gpu_info import Gpu, NoGpu, find_gpu
from .open import EngineRequest, open_engine
from .open_graph import library_of
from .tensorrt.package import TENSORRT_PACKAGES, TensorRTName, TensorRTPackage, title_of

KnownThreads = Callable[[str, str, Precision], "int | None"]
"""Told a graph's sha256, the engine's name and version, and the precision, it says with how many
threads a run on the CPU is known to be fastest, or None."""
Rebuild = Callable[[Bundle, Part, EngineRequest], Bundle]
"""Builds the engine of a package and precision again and returns the bundle as it is then."""


@dataclass(frozen=True, slots=True)
class SelectedEngine:
    """An opened backend, to be closed by whoever asked, and how it came to be this one."""

    backend: Backend
    precision: Precision
    passed_over: tuple[str, ...] = ()
    """One clause for each that came earlier in the order, with the reason."""
    sha256: str = ""
    """Of the graph's file; empty for an engine that is no graph."""

    @property
    def chosen(self) -> str:
        """Precision, what a leaner variant gives, and backend, for the first line of output."""
        form = " mu only" if self.backend.outputs == ("mu",) else ""
        return f"{self.precision}{form} {self.backend.name}"

    @property
    def clauses(self) -> tuple[str, ...]:
        """Why not the earlier ones, and what to know of this one."""
        return (*(f"not {reason}" for reason in self.passed_over), *self.backend.notes)

    @property
    def remarks(self) -> str:
        """The clauses as the end of a sentence."""
        return "".join(f"; {clause}" for clause in self.clauses)


def select_engine(
    bundle: Bundle,
    part: Part,
    request: EngineRequest,
    rebuild: Rebuild | None = None,
    *,
    known_threads: KnownThreads | None = None,
) -> SelectedEngine:
    """Open what was asked for, in the leanest variant that serves.

    The order of "auto" is: a TensorRT engine that fits, a TensorRT-RTX engine that fits, ONNX
    Runtime on the GPU, and on the CPU whichever of OpenVINO and ONNX Runtime is the faster one in
    that precision (docs/speed.md has the measurement). `rebuild` is called where an engine does
    not fit and the request wants it built again; a ConfigError where it is wanted and None, and a
    StepFailedError where it fails. Where the request names no number of threads, `known_threads`
    is asked before a graph is opened on the CPU: OpenVINO compiles it for a number of them. A model
    without a decoder is a BundleError. What is asked for by name and cannot run raises its own
    error: EngineError, MissingDependencyError or BackendError.
    """
    if part == "decoder" and not bundle.spec.has_decoder:
        raise BundleError(
            f"{bundle.folder} has no decoder, its model is an encoder alone: do without "
            "reconstructions, or import it again with a decoder"
        )
    if request.rebuild and rebuild is None:
        raise ConfigError("rebuild=True: nothing here builds engines, use motorvae-stream for it")
    selection = _Selection(
        bundle, part, request, rebuild if request.rebuild else None, known_threads
    )
    if request.backend == "onnx" or request.provider is not None:
        return selection.graph("onnx", request.provider)
    if request.backend == "openvino":
        return selection.graph("openvino")
    gpu = find_gpu()
    if request.backend != "auto":
        return selection.engine(request.backend, gpu)
    return selection.first_that_fits(gpu)


@dataclass(slots=True)
class _Selection:
    """One call of `select_engine`; each method opens something."""

    bundle: Bundle
    part: Part
    request: EngineRequest
    rebuild: Rebuild | None
    known_threads: KnownThreads | None
    passed_over: list[str] = field(default_factory=list)

    def first_that_fits(self, gpu: Gpu | NoGpu) -> SelectedEngine:
        precision = self.request.precision
        if isinstance(gpu, NoGpu):
            self.passed_over.append(f"on a GPU: {gpu.reason}")
        else:
            from .tensorrt.find import precisions_with_engine  # noqa: PLC0415  # needs a GPU

            for package in TENSORRT_PACKAGES:
                has_engine = bool(precisions_with_engine(self.bundle, self.part, package))
                try:
                    return self.engine(package, gpu)
                except (BackendError, MissingDependencyError) as error:
                    reason = error if has_engine else error.clause()
                    self.passed_over.append(f"{package}: {reason}")
            try:
                return self.graph("onnx", "cuda")
            # Also one that lacks memory, or finds another CUDA, or a precision that it has not.
            except (BackendError, BundleError) as error:
                self.passed_over.append(f"onnx on cuda: {error.clause()}")
        # On the CPU, OpenVINO is faster below float32, on the processors that it is for.
        if precision == "bf16":  # ONNX Runtime has no such arithmetic
            return self.graph("openvino")
        if precision == "int8" and platform.machine().lower() in {"x86_64", "amd64"}:
            try:
                return self.graph("openvino")
            except (BackendError, BundleError, MissingDependencyError) as error:
                self.passed_over.append(f"openvino: {error.clause()}")
        return self.graph("onnx")

    def graph(self, runner: CpuRunner, provider: str | None = None) -> SelectedEngine:
        """Open the leanest variant that a runner has of what is asked for."""
        precision = self.request.precision or "fp32"
        key = GraphKey(self.part, precision, target=runner)
        entry = self.bundle.leanest(key, self.request.outputs, on_cpu=_is_cpu(provider))
        threads = self.request.threads
        if threads is None and self.known_threads is not None and _is_cpu(provider):
            threads = self.known_threads(entry.sha256, library_of(runner), precision)
        request = EngineRequest(
            backend=runner, provider=provider, threads=threads, trust=self.request.trust
        )
        backend = open_engine(self.bundle, entry.key, request)
        if runner == "openvino" and not self.bundle.verified_in(entry, "OpenVINO"):
            backend.notes += ("this graph was not verified in OpenVINO when the bundle was made",)
        return SelectedEngine(backend, precision, tuple(self.passed_over), entry.sha256)

    def engine(self, name: TensorRTName, gpu: Gpu | NoGpu) -> SelectedEngine:
        """Open the first precision whose engine fits; else have the first built again, if asked."""
        from .tensorrt.find import precisions_with_engine, usable_package  # noqa: PLC0415  # as above

        request = self.request
        present = precisions_with_engine(self.bundle, self.part, name)
        # Eight bits are only run when they are asked for.
        found = tuple(p for p in present if p == request.precision or p != "int8")
        if request.backend == "auto" and not found:
            raise EngineError(
                f"{self.bundle.folder} holds no {title_of(name)} engine of its {self.part}"
            )
        package, gpu = usable_package(name, gpu)
        first, *others = (request.precision,) if request.precision else (found or ("fp16",))
        slower = self._slower_int8(self.bundle, first, package, gpu)
        if slower:
            first = "fp16"
        errors: list[EngineError] = []
        for precision in (first, *others):
            try:
                selected = self._engine_of(self.bundle, precision, package, gpu)
                earlier = (*slower, *(f"{name}: {error}" for error in errors))
                return replace(selected, passed_over=(*selected.passed_over, *earlier))
            except EngineError as error:  # noqa: PERF203  # two turns at most
                errors.append(error)
        if self.rebuild is None or not isinstance(errors[0], EngineFitError):
            raise errors[0]
        request = replace(request, backend=name, precision=first, threads=None)
        rebuilt = self.rebuild(self.bundle, self.part, request)
        slower = slower or self._slower_int8(rebuilt, first, package, gpu)
        selected = self._engine_of(rebuilt, "fp16" if slower else first, package, gpu)
        return replace(selected, passed_over=(*selected.passed_over, *slower))

    def _slower_int8(
        self, bundle: Bundle, precision: Precision, package: TensorRTPackage, gpu: Gpu
    ) -> tuple[str, ...]:
        """Return in a clause why FP16 is to run in place of INT8; nothing of other precisions.

        It is told of an FP16 engine that runs: where none does, another runner may do INT8.
        """
        if precision != "int8":
            return ()
        from .tensorrt.find import slower_int8  # noqa: PLC0415  # as above

        speed = slower_int8(bundle, self.part, package, gpu, self.request.outputs)
        return () if speed is None else (f"int8, which was asked for, as {speed.sentence}",)

    def _engine_of(
        self, bundle: Bundle, precision: Precision, package: TensorRTPackage, gpu: Gpu
    ) -> SelectedEngine:
        from .tensorrt.find import check_engine, leanest_engine  # noqa: PLC0415  # as above

        key = GraphKey(self.part, precision)
        entry = leanest_engine(bundle, key, package.name, self.request.outputs)
        manifest, plan = check_engine(bundle, entry, package, gpu, trust=self.request.trust)
        backend = open_engine(plan, entry.key, self.request)
        if self.request.threads is not None:
            backend.notes += ("--threads is for ONNX Runtime and changes nothing here",)
        if not manifest.verification.verified:
            backend.notes += (f"this engine was not verified: {manifest.verification.reason}",)
        elif manifest.gpu != gpu.name:
            backend.notes += (f"this engine was verified on {manifest.gpu} and not on {gpu.name}",)
        if precision == "int8":
            unknown = (speed.sentence for speed in manifest.int8_speed if speed.times is None)
            backend.notes += tuple(unknown)
        return SelectedEngine(backend, manifest.precision, tuple(self.passed_over))


def is_for_cpu(request: EngineRequest) -> bool:
    """Whether what is asked for certainly runs on the CPU."""
    if request.provider is not None:
        return _is_cpu(request.provider)
    if request.backend == "auto":
        return isinstance(find_gpu(), NoGpu)
    return request.backend in {"onnx", "openvino"}


def _is_cpu(provider: str | None) -> bool:
    return provider is None or provider.lower() in {"cpu", "cpuexecutionprovider"}
