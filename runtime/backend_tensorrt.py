"""TensorRTBackend: one TensorRT or TensorRT-RTX engine, its pinned buffers and its CUDA graphs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .backend import Arrays
from .bundle import Tensor
from .closing import Closing
from .cuda import CudaGraph, CudaLayer, HostArray
from .errors import BackendError, EngineError, MissingDependencyError, OutputError
from .files import replaced_file
from .flavours import EngineLog, Flavour

if TYPE_CHECKING:
    import tensorrt

_RUNS_BEFORE_CAPTURE = 1
"""TensorRT finishes what it does once per shape in the first run, which must not be recorded."""


@dataclass(frozen=True, slots=True)
class _Port:
    """One input or output: its pinned host array and its device memory, for the largest batch."""

    name: str
    host: HostArray
    device: int


class TensorRTBackend(Closing):
    """One engine on one GPU: copy in, execute, copy out on one stream, then wait.

    Buffers are allocated once, for the largest batch of the engine's profile; larger batches run
    in parts, smaller ones than its smallest are padded. It may be used from any thread, by one at
    a time.

    Args:
        plan: The engine. Whoever calls has made sure that it was built for this machine.
        file: Its name, for messages.
        flavour: The package that built it.
        cuda: The opened device layer; this object closes it.
        gpu_name: For reports.
        cuda_graph: Whether to record copies and kernels after the first run of a batch size.
        runtime_cache: Where TensorRT-RTX keeps what it compiled for this GPU.

    Raises:
        EngineError: The engine does not load, or is not of the kind that motorVAE builds.
        BackendError: The GPU has no memory left.
    """

    def __init__(
        self,
        plan: bytes,
        file: str,
        flavour: Flavour,
        cuda: CudaLayer,
        *,
        gpu_name: str,
        cuda_graph: bool = True,
        runtime_cache: Path | None = None,
    ) -> None:
        self.name = f"{flavour.title} on {gpu_name} ({cuda.name})"
        self.notes: tuple[str, ...] = ()
        self._file, self._flavour = file, flavour
        self._cuda: CudaLayer | None = cuda
        self._log = EngineLog(flavour.trt)
        self._captures = cuda_graph and not flavour.is_rtx
        self._rows = self._runs = 0
        self._events: tuple[Any, ...] = ()
        self._graph: CudaGraph | None = None
        self._runtime_cache_path = runtime_cache
        self._runtime: tensorrt.Runtime = None
        self._engine: tensorrt.ICudaEngine = None
        self._context: tensorrt.IExecutionContext = None
        self._runtime_cache: tensorrt.IRuntimeCache = None
        try:
            with cuda.current():
                self._engine = self._loaded_engine(plan)
                self._context = self._new_context(whole_graph=cuda_graph)
                self._allocate(cuda)
        except BaseException:
            self.close()
            raise

    def check_tensors(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Hold the engine's own tensors against those announced; see `Backend.check_tensors`."""
        for asked, found in ((inputs, (self._input,)), (outputs, self._outputs)):
            announced = {tensor.name: tensor.shape[1:] for tensor in asked}
            got = {port.name: port.host.shape[1:] for port in found}
            if announced != got:
                raise EngineError(
                    f"{self._file} has {got}, and the manifest announces {announced}: "
                    "build it again with motorvae-export --bundle BUNDLE --fp16"
                )

    def run(self, batch: npt.NDArray[np.float32]) -> Arrays:
        """Run the engine on a batch of any size; see `Backend.run`."""
        cuda = self._cuda
        if cuda is None:
            raise BackendError(f"{self._file} was closed: open it again")
        shape = self._input.host.shape[1:]
        if batch.dtype != np.float32 or batch.shape[1:] != shape or not len(batch):
            raise BackendError(
                f"{self._file} takes float32 (N, {', '.join(map(str, shape))}), and was given "
                f"{batch.dtype} {batch.shape}: prepare images with motorVAE's own frame-to-input "
                "function"
            )
        results: dict[str, npt.NDArray[np.float32]] = {
            port.name: np.empty((len(batch), *port.host.shape[1:]), np.float32)
            for port in self._outputs
        }
        with cuda.current():
            for start in range(0, len(batch), self._largest):
                part = batch[start : start + self._largest]
                rows = max(len(part), self._smallest)
                self._input.host[: len(part)] = part
                self._start(cuda, rows)
                cuda.synchronize()
                for port in self._outputs:
                    results[port.name][start : start + len(part)] = port.host[: len(part)]
        return results

    def repeat_timed(self) -> Mapping[str, float]:
        """Start the last copies and kernels once more, while the GPU notes the time.

        Returns:
            Milliseconds by the GPU's clock: "device", from the start of the copy in to the end of
            the copies out, and of it "h2d", "compute" (with waits for the host to start kernels)
            and "d2h". What ran as one recorded graph has no parts, only "device".

        Raises:
            BackendError: Nothing was run yet, or the engine failed.
        """
        cuda = self._cuda
        if cuda is None or not self._rows:
            raise BackendError(f"{self._file} has no run to repeat: run a batch first")
        with cuda.current():
            if not self._events:
                self._events = tuple(cuda.event() for _ in range(4))
            start, copied, computed, end = self._events
            parts = iter((copied, computed))
            cuda.record(start)
            if self._graph is None:
                self._enqueue(cuda, self._rows, lambda: cuda.record(next(parts)))
            else:
                self._graph.launch()
            cuda.record(end)
            cuda.synchronize()
            found = {"device": cuda.elapsed_ms(start, end)}
            if self._graph is None:
                found["h2d"] = cuda.elapsed_ms(start, copied)
                found["compute"] = cuda.elapsed_ms(copied, computed)
                found["d2h"] = cuda.elapsed_ms(computed, end)
        return found

    def close(self) -> None:
        """Release the engine, its buffers and the device layer."""
        cuda, self._cuda = self._cuda, None
        if cuda is None:
            return
        try:
            with cuda.current():
                try:
                    self._drop_graph()
                    self._keep_runtime_cache()
                finally:
                    # Each needs the next, and all of them the context.
                    self._context = self._runtime_cache = self._engine = self._runtime = None
        finally:
            cuda.close()

    def _start(self, cuda: CudaLayer, rows: int) -> None:
        """Start copies and kernels for so many rows, as a recorded graph where there is one."""
        if rows != self._rows:
            # A recorded graph holds for the shape that the context has.
            self._drop_graph()
            shape = (rows, *self._input.host.shape[1:])
            self._log.clear()
            if not self._context.set_input_shape(self._input.name, shape):
                raise EngineError(
                    f"{self._file} refuses the shape {shape}: {self._log.said()}; build it "
                    "again with another --batch"
                )
            self._rows, self._runs = rows, 0
        if self._graph is None and self._captures and self._runs >= _RUNS_BEFORE_CAPTURE:
            try:
                self._graph = cuda.capture(lambda: self._enqueue(cuda, rows))
            except (BackendError, MissingDependencyError) as error:
                self._captures = False
                self.notes += (f"runs without a CUDA graph: {error}",)
        self._runs += 1
        if self._graph is None:
            self._enqueue(cuda, rows)
        else:
            self._graph.launch()

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()

    def _enqueue(
        self, cuda: CudaLayer, rows: int, between: Callable[[], None] = lambda: None
    ) -> None:
        cuda.copy_in(self._input.device, self._input.host[:rows])
        between()
        self._log.clear()
        if not self._context.execute_async_v3(cuda.stream):
            raise BackendError(
                f"{self.name} failed on {self._file}: {self._log.said()}; build the engine "
                "again with motorvae-export --bundle BUNDLE --fp16, or use --backend onnx"
            )
        between()
        for port in self._outputs:
            cuda.copy_out(port.host[:rows], port.device)

    def _loaded_engine(self, plan: bytes) -> tensorrt.ICudaEngine:
        trt = self._flavour.trt
        # The runtime must outlive the engine.
        self._runtime = trt.Runtime(self._log.logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(
                f"{self._flavour.title} cannot load {self._file}: {self._log.said()}; build it "
                "again here with motorvae-export --bundle BUNDLE --fp16, or add --rebuild"
            )
        return engine

    def _new_context(self, *, whole_graph: bool) -> tensorrt.IExecutionContext:
        if not self._flavour.is_rtx:
            context = self._engine.create_execution_context()
        else:
            trt = self._flavour.trt
            config = self._engine.create_runtime_config()
            if whole_graph:
                config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self._runtime_cache = config.create_runtime_cache()
            path = self._runtime_cache_path
            if path is not None and path.is_file():
                self._runtime_cache.deserialize(path.read_bytes())  # one that misfits is ignored
            config.set_runtime_cache(self._runtime_cache)
            context = self._engine.create_execution_context(config)
        if context is None:
            raise EngineError(
                f"{self._flavour.title} cannot run {self._file}: {self._log.said()}; close "
                "other programs that use the GPU, or use --backend onnx"
            )
        return context

    def _allocate(self, cuda: CudaLayer) -> None:
        trt, engine = self._flavour.trt, self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        if len(inputs) != 1 or any(engine.get_tensor_dtype(n) != trt.float32 for n in names):
            raise EngineError(
                f"{self._file} has inputs {inputs} among {names}, and an encoder or decoder has "
                "one input and all float32: build it again with motorvae-export --bundle BUNDLE "
                "--fp16"
            )
        smallest, _, largest = engine.get_tensor_profile_shape(inputs[0], 0)
        self._smallest, self._largest = int(smallest[0]), int(largest[0])

        def port(name: str) -> _Port:
            shape = (
                self._largest,
                *(int(size) for size in tuple(engine.get_tensor_shape(name))[1:]),
            )
            device = cuda.allocate(4 * math.prod(shape))
            self._context.set_tensor_address(name, device)
            return _Port(name, cuda.pinned(shape), device)

        self._input = port(inputs[0])
        self._outputs = tuple(port(name) for name in names if name != inputs[0])

    def _keep_runtime_cache(self) -> None:
        path = self._runtime_cache_path
        if self._runtime_cache is None or path is None:
            return
        kept = self._runtime_cache.serialize()
        if kept is None:
            return
        # Without it the next start compiles again; nothing of this run is lost.
        with contextlib.suppress(OutputError), replaced_file(path) as temporary:
            temporary.write_bytes(bytes(kept))
