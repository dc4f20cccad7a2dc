"""An engine from an ONNX graph: one way for TensorRT 10.3 and newer, 11 and TensorRT-RTX."""

from __future__ import annotations

import contextlib
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.atomic_files import replaced_file
from ...runtime.core.cache_dir import cache_dir
from ...runtime.core.errors import EngineError, OutputError
from ...runtime.engines.gpu_info import Gpu, NoGpu
from ...runtime.engines.tensorrt.engine_manifest import BatchProfile, PrecisionReport
from ...runtime.engines.tensorrt.package import EngineLog, TensorRTPackage
from .precision_report import check_precision_report, precision_report_of
from .progress import BuildProgress, interrupt_deferred

if TYPE_CHECKING:
    import tensorrt

MIB = 1 << 20
DEFAULT_WORKSPACE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """A finished engine that is not on disk yet.

    Attributes:
        plan: Its bytes.
        precision_report: Its number formats as read back.
        compute_capabilities: Where it can run.
        workspace_bytes: The most scratch memory that its kernels may take.
        seconds: How long parsing and building took.
    """

    plan: bytes
    precision_report: PrecisionReport
    compute_capabilities: tuple[str, ...]
    workspace_bytes: int
    seconds: float


def engine_from_onnx(
    onnx: Path,
    package: TensorRTPackage,
    *,
    title: str,
    precision: Precision,
    profile: BatchProfile,
    gpu: Gpu | NoGpu,
    workspace_bytes: int,
    console: Console,
) -> BuiltEngine:
    """Build an engine and read back what it is.

    The precision is that of the graph's own tensors: the network is strongly typed, and no
    builder flag changes a format: FP16 is in the weights, INT8 in the graph's own quantisation, and
    8-bit luma in the type of its input. TF32 is off, so that float32 means float32.

    Args:
        onnx: A graph with one input and a free first axis.
        package: The package that builds.
        title: Which graph it is, for the progress bar, such as "encoder fp16 mu".
        precision: The label that the engine must deserve.
        profile: Batch sizes to build for.
        gpu: The GPU that will run it; TensorRT-RTX builds a portable engine without one.
        workspace_bytes: The most scratch memory that kernels may take.
        console: Where the progress bar is drawn.

    Raises:
        EngineError: The graph does not parse, the build failed, or the engine is not what its
            label says.
        KeyboardInterrupt: Ctrl-C was pressed; the build was cancelled.
    """
    started = time.monotonic()
    trt, log = package.trt, EngineLog(package.trt)
    builder = trt.Builder(log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    # An empty file parses, too.
    if not parser.parse_from_file(os.fspath(onnx)) or network.num_inputs != 1:
        raise EngineError(
            f"{package.title} cannot parse {onnx.name}: {_parser_errors(parser)}; export it again, "
            "or use --engine none"
        )
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)
    capabilities = _set_targets(package, config, gpu)
    config.add_optimization_profile(_profile(builder, network, profile))
    cache = None if package.is_rtx else _timing_cache_path(package, gpu)
    if cache:
        _load_timing_cache(config, cache)
    with (
        interrupt_deferred() as cancelled,
        BuildProgress(trt, console, f"building {title} for {package.title}", cancelled) as progress,
    ):
        config.progress_monitor = progress.monitor
        with ThreadPoolExecutor(1) as worker:
            built = worker.submit(builder.build_serialized_network, network, config).result()
    if built is None:
        raise EngineError(
            f"{package.title} did not build {onnx.name}: {log.said()}; raise --workspace-mib (now "
            f"{workspace_bytes // MIB}), lower --batch, close other programs that use the GPU, or "
            "use --engine none"
        )
    if cache:
        _save_timing_cache(config, cache)
    plan = bytes(built)
    inspected = None
    if not isinstance(gpu, NoGpu):
        inspected = _inspected(package, log, plan, profile)
    precision_report = precision_report_of(package, network, plan, inspected=inspected)
    check_precision_report(precision_report, precision, name=f"the engine of {onnx.name}")
    seconds = time.monotonic() - started
    return BuiltEngine(plan, precision_report, capabilities, workspace_bytes, seconds)


def workspace_bytes_for(gpu: Gpu | NoGpu, *, requested_mib: int | None, free_bytes: int) -> int:
    """Return how much scratch memory a build may plan with.

    Where GPU and CPU share their memory, as on a Jetson, it is a quarter of what is free now:
    the system, the camera and the model itself live there too.

    Args:
        gpu: The GPU that will run the engine.
        requested_mib: What the user asked for; never exceeded.
        free_bytes: The computer's free memory.
    """
    cap = DEFAULT_WORKSPACE_BYTES if requested_mib is None else requested_mib * MIB
    if isinstance(gpu, NoGpu):
        return cap
    return min(cap, free_bytes // 4 if gpu.integrated else gpu.memory_bytes // 2)


def free_memory_bytes() -> int:
    """Return how much memory this computer could hand out now."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _parser_errors(parser: tensorrt.OnnxParser) -> str:
    errors = (parser.get_error(index) for index in range(parser.num_errors))
    said = (f"{e.node_operator()} {e.node_name()}: {e.desc()}".strip(" :") for e in errors)
    return "; ".join(" ".join(text.split()) for text in said)[:400] or "it gave no reason"


def _set_targets(
    package: TensorRTPackage, config: tensorrt.IBuilderConfig, gpu: Gpu | NoGpu
) -> tuple[str, ...]:
    """Choose what the engine is for and return it: this GPU, or all that TensorRT-RTX serves."""
    if not package.is_rtx:
        if isinstance(gpu, NoGpu):
            raise EngineError(
                f"{package.title} builds on the GPU that will run the engine, and here is "
                f"{gpu.reason}: run the same command with --model there"
            )
        return (gpu.compute_capability,)
    trt = package.trt
    portable = package.portable_capabilities()
    if isinstance(gpu, NoGpu) or gpu.compute_capability in portable:
        return portable
    member = f"SM{gpu.compute_capability.replace('.', '')}"
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.__members__[member], 0)
    return (gpu.compute_capability,)


def _profile(
    builder: tensorrt.Builder, network: tensorrt.INetworkDefinition, profile: BatchProfile
) -> tensorrt.IOptimizationProfile:
    built = builder.create_optimization_profile()
    tensor = network.get_input(0)
    rest = tuple(tensor.shape)[1:]
    built.set_shape(
        tensor.name, *((count, *rest) for count in (profile.min, profile.opt, profile.max))
    )
    return built


def _inspected(package: TensorRTPackage, log: EngineLog, plan: bytes, profile: BatchProfile) -> str:
    """Return what the engine inspector says, as JSON text.

    With a free batch some versions tell no formats unless they are told a shape.

    Raises:
        EngineError: The engine that was just built does not load.
    """
    trt = package.trt
    log.clear()
    runtime = trt.Runtime(log.logger)  # must outlive the engine
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{package.title} cannot load the engine that it built: {log.said()}; update the "
            "driver, or use --engine none"
        )
    inspector = engine.create_engine_inspector()
    context = engine.create_execution_context()
    if context is not None:
        name = engine.get_tensor_name(0)
        context.set_input_shape(name, (profile.opt, *tuple(engine.get_tensor_shape(name))[1:]))
        inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _timing_cache_path(package: TensorRTPackage, gpu: Gpu | NoGpu) -> Path:
    """Return where measured kernels are kept: they hold for one version and one kind of GPU."""
    name = "none" if isinstance(gpu, NoGpu) else f"{gpu.name}-{gpu.compute_capability}"
    kind = re.sub(r"[^A-Za-z0-9.]+", "-", name)
    return cache_dir() / f"timing-{package.name}-{package.version}-{kind}.cache"


def _load_timing_cache(config: tensorrt.IBuilderConfig, path: Path) -> None:
    try:
        kept = path.read_bytes()
    except OSError:
        kept = b""
    cache = config.create_timing_cache(kept)
    # One that a crash cut short, or of another device, is measured anew.
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _save_timing_cache(config: tensorrt.IBuilderConfig, path: Path) -> None:
    cache = config.get_timing_cache()
    if cache is None:
        return
    # Without it the next build measures again; nothing of this one is lost.
    with contextlib.suppress(OutputError), replaced_file(path) as temporary:
        temporary.write_bytes(bytes(cache.serialize()))
