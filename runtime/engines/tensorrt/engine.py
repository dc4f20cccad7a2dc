"""TensorRTBackend: one TensorRT or TensorRT-RTX engine, its pinned buffers and its CUDA graphs."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...bundle.graph_key import BATCH
from ...core.atomic_files import cache_dir, replaced_file
from ...core.errors import (
    BackendError,
    EngineError,
    EngineFitError,
    MissingDependencyError,
)
from ...core.frame import NS_PER_MS
from ..base import Arrays, Backend, Batch, Tensors
from ..cuda.base import CudaGraph, CudaLayer, HostArray
from .find import EnginePlan
from .package import EngineLog

if TYPE_CHECKING:
    import tensorrt


@dataclass(frozen=True, slots=True)
class _Port:
    """One input or output: its pinned host array and its device memory, for the largest batch."""

    name: str
    host: HostArray
    device: int


class TensorRTBackend(Backend):
    """One engine on one GPU: copy in, execute, copy out on one stream, then wait.

    Buffers are allocated once, for the largest batch of the engine's profile; larger batches run
    in parts, smaller ones than its smallest are padded. This object closes the device layer. With
    `cuda_graph`, copies and kernels are recorded after the first run of a batch size. TensorRT-RTX
    keeps what it compiled for this GPU in `cache_dir`. An EngineError where the engine does not
    load or is not of the kind that motorVAE builds.
    """

    misfit = EngineFitError
    again = "build it again with motorvae-export --model BUNDLE and its --fp16 or --int8"

    def __init__(self, plan: EnginePlan, cuda: CudaLayer, *, cuda_graph: bool = True) -> None:
        package, capability = plan.package, plan.gpu.compute_capability.replace(".", "")
        self._file = plan.file or plan.entry.key.engine_file(package.name)
        self._package, self._cuda = package, cuda
        self._log = EngineLog(package.trt)
        self._captures = cuda_graph and not package.is_rtx  # TensorRT-RTX records graphs itself
        self._rows = 0  # images in the shape that the context has
        self._has_run = False  # in that shape
        self._events: list[int] = []
        self._graph: CudaGraph | None = None
        self._runtime: tensorrt.Runtime = None
        self._engine: tensorrt.ICudaEngine = None
        self._context: tensorrt.IExecutionContext = None
        self._runtime_cache: tensorrt.IRuntimeCache = None
        kept = f"kernels-{plan.entry.sha256[:16]}-{package.version}-sm{capability}.cache"
        self._runtime_cache_path = cache_dir() / kept
        try:
            with cuda.current():
                self._open(plan, whole_graph=cuda_graph)
                inputs, outputs = self._tensors_of_engine()
                name = f"{package.title} on {plan.gpu.name} ({cuda.name})"
                super().__init__(name, self._file, inputs, outputs)
                (self._input,) = self._ports(inputs)
                self._results = self._ports(outputs)
        except BaseException:
            self._release()
            raise

    def repeat_timed(self) -> Mapping[str, float]:
        """Start the last copies and kernels once more, while the GPU notes the time.

        Returned are milliseconds by the GPU's clock: "device", from the start of the copy in to
        the end of the copies out, and of it "h2d", "compute" (with waits for the host to start
        kernels) and "d2h". What ran as one recorded graph has no parts. "enqueue" is the host's
        time in the one call that starts the kernels (as `trtexec` counts it), or the graph.
        """
        with self._lock:
            self._check_open()
            if not self._rows:
                raise BackendError(f"{self._file} has no run to repeat: run a batch first")
            steps = {"h2d": self._copy_in, "compute": self._execute, "d2h": self._copy_out}
            if self._graph is not None:
                steps = {"device": self._graph.launch}
            host_ns: dict[str, int] = {}
            cuda = self._cuda
            with cuda.current():
                if not self._events:
                    self._events = [cuda.event() for _ in range(4)]
                events = self._events[: len(steps) + 1]
                cuda.record(events[0])
                for (name, step), event in zip(steps.items(), events[1:], strict=True):
                    begin_ns = time.monotonic_ns()
                    step()
                    host_ns[name] = time.monotonic_ns() - begin_ns
                    cuda.record(event)
                cuda.synchronize()
                found = {"device": cuda.elapsed_ms(events[0], events[-1])}
                for name, (start, end) in zip(steps, itertools.pairwise(events), strict=True):
                    found[name] = cuda.elapsed_ms(start, end)
            found["enqueue"] = host_ns["device" if "device" in steps else "compute"] / NS_PER_MS
            return found

    def _run(self, batch: Batch) -> Arrays:
        results: dict[str, npt.NDArray[np.float32]] = {
            port.name: np.empty((len(batch), *port.host.shape[1:]), np.float32)
            for port in self._results
        }
        with self._cuda.current():
            for start in range(0, len(batch), self._largest):
                part = batch[start : start + self._largest]
                self._prepare(part)
                if self._graph is None:
                    self._enqueue()
                else:
                    self._graph.launch()
                self._cuda.synchronize()
                for port in self._results:
                    results[port.name][start : start + len(part)] = port.host[: len(part)]
        return results

    def _release(self) -> None:
        """Keep what was compiled, and release the engine, its buffers and the device layer."""
        with self._cuda, self._cuda.current():
            try:
                self._drop_graph()
                cache = self._runtime_cache
                kept = None if cache is None else cache.serialize()
                if kept is not None:
                    # Without it the next start compiles again; nothing of this run is lost.
                    path = self._runtime_cache_path
                    with contextlib.suppress(OSError):
                        path.parent.mkdir(parents=True, exist_ok=True)
                        with replaced_file(path) as temporary:
                            temporary.write_bytes(bytes(kept))
            finally:
                # Each needs the next, and all of them the CUDA context.
                self._context = self._runtime_cache = self._engine = self._runtime = None

    def _open(self, plan: EnginePlan, *, whole_graph: bool) -> None:
        """Load the engine and make its context; TensorRT-RTX may record its kernels as a whole."""
        trt = self._package.trt
        self._runtime = trt.Runtime(self._log.logger)  # it must outlive the engine
        if plan.dla_core is not None:
            self._use_dla(plan.dla_core)
        self._engine = self._runtime.deserialize_cuda_engine(plan.content)
        if self._engine is None:
            raise EngineFitError(
                f"{self._package.title} cannot load {self._file}: {self._log.said()}; "
                f"{self.again}, here, or add --rebuild"
            )
        if not self._package.is_rtx:
            self._context = self._engine.create_execution_context()
        else:
            config = self._engine.create_runtime_config()
            if whole_graph:
                config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self._runtime_cache = config.create_runtime_cache()
            if self._runtime_cache_path.is_file():  # one that misfits is ignored
                self._runtime_cache.deserialize(self._runtime_cache_path.read_bytes())
            config.set_runtime_cache(self._runtime_cache)
            self._context = self._engine.create_execution_context(config)
        if self._context is None:
            raise EngineError(
                f"{self._package.title} cannot run {self._file}: {self._log.said()}; close "
                "other programs that use the GPU, or use --backend onnx"
            )

    def _use_dla(self, core: int) -> None:
        """Name the DLA core before the engine is loaded, which TensorRT would not miss."""
        cores = int(self._runtime.num_DLA_cores)
        if core < cores:
            self._runtime.DLA_core = core
        if core >= cores or self._runtime.DLA_core != core:
            raise EngineFitError(
                f"{self._file} was built for DLA core {core}, and {self._package.title} sees "
                f"{cores} DLA cores on this machine: {self.again} without --use-dla-core, or use "
                "--backend onnx"
            )

    def _tensors_of_engine(self) -> tuple[Tensors, Tensors]:
        """Return inputs and outputs, which must be those of a model's half; note the profile."""
        trt, engine = self._package.trt, self._engine
        dtypes = {trt.float32: "float32", trt.uint8: "uint8"}
        inputs: Tensors = {}
        outputs: Tensors = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            kind = engine.get_tensor_dtype(name)
            shape = tuple(int(size) for size in tuple(engine.get_tensor_shape(name))[1:])
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (inputs if is_input else outputs)[name] = dtypes.get(kind, str(kind)), (BATCH, *shape)
        taken, given = ([dtype for dtype, _ in found.values()] for found in (inputs, outputs))
        if taken not in (["float32"], ["uint8"]) or {*given} != {"float32"}:
            raise EngineFitError(
                f"{self._file} takes {inputs} and gives {outputs}, and an encoder or decoder has "
                f"one input of float32 or uint8 and gives float32: {self.again}"
            )
        smallest, _, largest = engine.get_tensor_profile_shape(next(iter(inputs)), 0)
        self._smallest, self._largest = int(smallest[0]), int(largest[0])
        return inputs, outputs

    def _ports(self, tensors: Tensors) -> tuple[_Port, ...]:
        """Allocate memory for the largest batch, and let the engine use it."""
        ports = []
        for name, (dtype, (_, *sizes)) in tensors.items():
            shape = (self._largest, *sizes)
            device = self._cuda.allocate(np.dtype(dtype).itemsize * math.prod(shape))
            self._context.set_tensor_address(name, device)
            ports.append(_Port(name, self._cuda.pinned(shape, dtype), device))
        return tuple(ports)

    def _prepare(self, part: Batch) -> None:
        """Write a part into the page-locked input, and record a graph once there may be one."""
        self._input.host[: len(part)] = part
        rows = max(len(part), self._smallest)
        if rows != self._rows:
            # A recorded graph holds for the shape that the context has.
            self._drop_graph()
            self._rows, self._has_run = 0, False
            shape = (rows, *self.image_shape)
            self._log.errors.clear()
            if not self._context.set_input_shape(self._input_name, shape):
                raise EngineError(
                    f"{self._file} refuses the shape {shape}: {self._log.said()}; build it "
                    "again with another --batch"
                )
            self._rows = rows
        # TensorRT finishes what it does once per shape in the first run, not to be recorded.
        if self._graph is None and self._captures and self._has_run:
            try:
                self._graph = self._cuda.capture(self._enqueue)
            except (BackendError, MissingDependencyError) as error:
                self._captures = False
                self.notes += (f"runs without a CUDA graph: {error}",)
        self._has_run = True

    def _enqueue(self) -> None:
        self._copy_in()
        self._execute()
        self._copy_out()

    def _copy_in(self) -> None:
        self._cuda.copy_in(self._input.device, self._input.host[: self._rows])

    def _execute(self) -> None:
        """Start the kernels."""
        self._log.errors.clear()
        if not self._context.execute_async_v3(self._cuda.stream):
            raise BackendError(
                f"{self._package.title} failed on {self._file}: {self._log.said()}; {self.again}, "
                "or use --backend onnx"
            )

    def _copy_out(self) -> None:
        for port in self._results:
            self._cuda.copy_out(port.host[: self._rows], port.device)

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()
