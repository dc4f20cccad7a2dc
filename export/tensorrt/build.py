"""An engine from an ONNX graph: the same calls for TensorRT 10.3 and newer, 11 and TensorRT-RTX."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ...runtime.bundle.graph_key import Precision
from ...runtime.bundle.manifest import GraphEntry
from ...runtime.core.atomic_files import cache_dir, replaced_file
from ...runtime.core.errors import EngineError
from ...runtime.core.lifecycle import interrupts_deferred
from ...runtime.core.system.memory import available_bytes
from ...runtime.engines.gpu_info import Gpu, NoGpu
from ...runtime.engines.tensorrt.build_record import RouteSettings, TriedRoute
from ...runtime.engines.tensorrt.engine_manifest import BatchProfile, PrecisionReport
from ...runtime.engines.tensorrt.find import EnginePlan
from ...runtime.engines.tensorrt.package import EngineLog, TensorRTPackage
from .dla import FOR_DLA, DlaRequest, check_placement, moved_by_builder, place_on_dla
from .precision_report import check_precision_report, precision_report_of
from .routes import set_route

if TYPE_CHECKING:
    import tensorrt

MIB = 1 << 20
DEFAULT_WORKSPACE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class EngineBuildRequest:
    """How engines are to be built."""

    package: TensorRTPackage
    gpu: Gpu | NoGpu  # the GPU that will run them; without one TensorRT-RTX builds portable engines
    precision: Precision  # of the graphs that they are built from: the label that they must deserve
    profile: BatchProfile
    workspace_mib: int | None = None  # most scratch memory, or None for what fits the machine
    dla: DlaRequest | None = None  # on which DLA core they are to run; on none by default
    tune_minutes: float | None = None  # how long routes may be tried for each; None: one route
    keep_slower: bool = False  # whether INT8 engines stay that are no faster than the FP16 ones


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """A finished engine that is not on disk yet: its bytes, and the facts of its manifest."""

    plan: bytes
    precision_report: PrecisionReport
    compute_capabilities: tuple[str, ...]
    workspace_bytes: int
    seconds: float
    routes: tuple[TriedRoute, ...] = ()


def engine_from_onnx(
    onnx: bytes,
    request: EngineBuildRequest,
    *,
    name: str,
    title: str,
    console: Console,
    kept: Sequence[str] = (),
    route: RouteSettings | None = None,
) -> BuiltEngine:
    """Build an engine and read back what it is.

    The precision is that of the graph's own tensors: the network is strongly typed, and no
    builder flag changes a format: FP16 is in the weights, INT8 in the graph's own quantisation, and
    8-bit luma in the type of its input. TF32 is off, so that float32 means float32. The graph in
    `onnx`, the bytes of a file of that `name`, has one input with a free first axis; `title` names
    it, as in "encoder fp16 mu"; `kept` are its nodes that stay in float32 by intention; `route` is
    what to set on the builder beside all that.

    Raises:
        EngineError: The graph does not parse, the build failed, the engine is not what its label
            says, a DLA core is not there or cannot run it, or the builder refuses the route.
        KeyboardInterrupt: Ctrl-C was pressed; the build was cancelled.
    """
    started = time.monotonic()
    package, gpu, trt = request.package, request.gpu, request.package.trt
    log = EngineLog(trt)
    builder = trt.Builder(log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if request.dla is not None and (adjust := trt.OnnxParserFlag.__members__.get(FOR_DLA)):
        parser.set_flag(adjust)
    # An empty file parses, too.
    if not parser.parse(onnx) or network.num_inputs != 1:
        errors = (parser.get_error(index) for index in range(parser.num_errors))
        said = (f"{e.node_operator()} {e.node_name()}: {e.desc()}".strip(" :") for e in errors)
        reasons = "; ".join(" ".join(text.split()) for text in said)[:400] or "it gave no reason"
        raise EngineError(
            f"{package.title} cannot parse {name}: {reasons}; export it again, or use --engine none"
        )
    workspace_bytes = workspace_bytes_for(
        gpu, requested_mib=request.workspace_mib, free_bytes=free_memory_bytes()
    )
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)
    capabilities = _set_targets(package, config, gpu)
    image, batches = network.get_input(0), request.profile
    sizes = builder.create_optimization_profile()
    shapes = [(count, *tuple(image.shape)[1:]) for count in (batches.min, batches.opt, batches.max)]
    sizes.set_shape(image.name, *shapes)
    config.add_optimization_profile(sizes)
    set_route(package, config, route or RouteSettings())
    placement = None
    if request.dla is not None:
        image.shape = trt.Dims(list(shapes[0]))  # no layer with a free axis runs on DLA
        placement = place_on_dla(package, builder, network, config, request.dla, name=name)
    with (
        _timing_cache(config, package, gpu),
        # An exception raised inside a callback would unwind through the builder's C++ frames.
        interrupts_deferred() as cancelled,
        build_progress(trt, console, f"building {title} for {package.title}", cancelled) as monitor,
    ):
        config.progress_monitor = monitor
        # Python handles signals in its main thread only, which native code must not hold up.
        with ThreadPoolExecutor(1) as worker:
            built = worker.submit(builder.build_serialized_network, network, config).result()
    if built is None:
        raise EngineError(
            f"{package.title} did not build {name}: {log.said()}; raise --workspace-mib (now "
            f"{workspace_bytes // MIB}), lower --batch, close other programs that use the GPU, or "
            "use --engine none"
        )
    plan = bytes(built)
    has_gpu = not isinstance(gpu, NoGpu)
    if placement is not None and request.dla is not None:
        placement = moved_by_builder(placement, log.warnings)
        check_placement(placement, request.dla, name=name)
    inspected = _inspected(package, log, plan, request) if has_gpu else None
    report = precision_report_of(
        package, network, plan, inspected=inspected, kept=kept, dla=placement
    )
    check_precision_report(report, request.precision, name=f"the engine of {name}")
    seconds = time.monotonic() - started
    return BuiltEngine(plan, report, capabilities, workspace_bytes, seconds)


def plan_of(engine: BuiltEngine, entry: GraphEntry, request: EngineBuildRequest) -> EnginePlan:
    """Return an engine that was just built of a graph, to be loaded on the GPU of the request.

    Raises:
        EngineError: There is no GPU.
    """
    package, gpu = request.package, request.gpu
    if isinstance(gpu, NoGpu):
        raise EngineError(f"the engine of {entry.file} cannot run here: {gpu.reason}")
    core = request.dla.core if request.dla else None
    return EnginePlan(engine.plan, entry, package, gpu, dla_core=core)


@contextlib.contextmanager
def build_progress(
    trt: Any, console: Console, title: str, cancelled: Sequence[int]
) -> Iterator[Any]:
    """Draw a bar for each phase of a build; yield the progress monitor of its configuration.

    Once there is a signal in `cancelled`, the builder stops at its next step.
    """
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    phases: dict[str, TaskID] = {}
    lock = threading.Lock()  # the builder calls from threads of its own

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # known at run time only
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with lock:
                text = title if parent_phase is None else f"  {phase_name}"
                phases[phase_name] = bars.add_task(text, total=max(num_steps, 1))

        def step_complete(self, phase_name: str, step: int) -> bool:
            with lock:
                if phase_name in phases:
                    bars.update(phases[phase_name], completed=step + 1)
            return not cancelled

        def phase_finish(self, phase_name: str) -> None:
            with lock:
                if phase_name in phases:
                    bars.remove_task(phases.pop(phase_name))

    with bars:
        yield Monitor()


def workspace_bytes_for(gpu: Gpu | NoGpu, *, requested_mib: int | None, free_bytes: int) -> int:
    """Return how much scratch memory a build may plan with.

    What the user asked for is never exceeded. Where GPU and CPU share their memory, as on a Jetson,
    it is a quarter of what is free now: the system, the camera and the model live there too.
    """
    cap = DEFAULT_WORKSPACE_BYTES if requested_mib is None else requested_mib * MIB
    if isinstance(gpu, NoGpu):
        return cap
    return min(cap, free_bytes // 4 if gpu.integrated else gpu.memory_bytes // 2)


def free_memory_bytes(root: Path = Path("/")) -> int:
    """Return how much memory a build can have now, in a container no more than its limit leaves."""
    available = available_bytes(root)
    if available is None:  # a kernel that does not estimate it
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return available


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


def _inspected(
    package: TensorRTPackage, log: EngineLog, plan: bytes, request: EngineBuildRequest
) -> str:
    """Return the engine inspector's JSON; some versions give no formats without a shape."""
    trt = package.trt
    log.errors.clear()
    runtime = trt.Runtime(log.logger)  # must outlive the engine
    if request.dla is not None:
        runtime.DLA_core = request.dla.core
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
        context.set_input_shape(
            name, (request.profile.opt, *tuple(engine.get_tensor_shape(name))[1:])
        )
        inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


@contextlib.contextmanager
def _timing_cache(
    config: tensorrt.IBuilderConfig, package: TensorRTPackage, gpu: Gpu | NoGpu
) -> Iterator[None]:
    """Keep measured kernels for the next build: they hold for one version and one kind of GPU."""
    if package.is_rtx or isinstance(gpu, NoGpu):
        yield  # nothing is measured
        return
    kind = re.sub(r"[^A-Za-z0-9.]+", "-", f"{gpu.name}-{gpu.compute_capability}")
    path = cache_dir() / f"timing-{package.name}-{package.version}-{kind}.cache"
    kept = b""
    with contextlib.suppress(OSError):
        kept = path.read_bytes()
    cache = config.create_timing_cache(kept)
    # One that a crash cut short, or of another device, is measured anew.
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    yield
    measured = config.get_timing_cache()
    if measured is not None:
        # Without it the next build measures again; nothing of this one is lost.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replaced_file(path) as temporary:
                temporary.write_bytes(bytes(measured.serialize()))
