"""TensorRTBackend: one TensorRT or TensorRT-RTX engine, its pinned buffers and its CUDA graphs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle.graph_key import Tensor
from ...core.errors import BackendError, EngineFitError, MissingDependencyError
from ...core.latency import NS_PER_MS
from ...core.lifecycle import Closing
from ..base import Arrays, Batch, check_batch
from ..cuda.base import CudaGraph, CudaLayer, HostArray
from .loaded_engine import AGAIN, EngineTensor, LoadedEngine
from .package import TensorRTPackage

_RUNS_BEFORE_CAPTURE = 1
"""TensorRT finishes what it does once per shape in the first run, which must not be recorded."""


@dataclass(frozen=True, slots=True)
class _Port:
    """One input or output: its pinned host array and its device memory, for the largest batch."""

    tensor: EngineTensor
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
        package: The package that built it.
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
        package: TensorRTPackage,
        cuda: CudaLayer,
        *,
        gpu_name: str,
        cuda_graph: bool = True,
        runtime_cache: Path | None = None,
    ) -> None:
        self.name = f"{package.title} on {gpu_name} ({cuda.name})"
        self.notes: tuple[str, ...] = ()
        self._file = file
        self._cuda: CudaLayer | None = cuda
        self._captures = cuda_graph and not package.is_rtx
        self._rows = self._runs = 0
        self._events: tuple[Any, ...] = ()
        self._graph: CudaGraph | None = None
        self._engine: LoadedEngine | None = None
        try:
            with cuda.current():
                self._engine = engine = LoadedEngine(
                    plan, file, package, whole_graph=cuda_graph, runtime_cache=runtime_cache
                )
                self._input = self._port(cuda, engine, engine.input)
                self._outputs = tuple(self._port(cuda, engine, t) for t in engine.outputs)
        except BaseException:
            self.close()
            raise
        self.input_dtype = engine.input.dtype
        self.outputs = tuple(tensor.name for tensor in engine.outputs)
        self.threads: int | None = None

    def check_tensors(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Hold the engine's own tensors against those announced; see `Backend.check_tensors`."""
        for asked, found in ((inputs, (self._input,)), (outputs, self._outputs)):
            announced = {tensor.name: (tensor.dtype, tensor.shape[1:]) for tensor in asked}
            tensors = (port.tensor for port in found)
            got = {tensor.name: (tensor.dtype.name, tensor.shape) for tensor in tensors}
            if announced != got:
                raise EngineFitError(
                    f"{self._file} has {got}, and the manifest announces {announced}: {AGAIN}"
                )

    def run(self, batch: Batch) -> Arrays:
        """Run the engine on a batch of any size; see `Backend.run`."""
        cuda, engine = self._opened()
        check_batch(batch, self.input_dtype, engine.input.shape, self._file)
        results: dict[str, npt.NDArray[np.float32]] = {
            port.tensor.name: np.empty((len(batch), *port.tensor.shape), np.float32)
            for port in self._outputs
        }
        with cuda.current():
            for start in range(0, len(batch), engine.largest):
                part = batch[start : start + engine.largest]
                self._prepare(cuda, engine, part)
                if self._graph is None:
                    self._enqueue(cuda, engine)
                else:
                    self._graph.launch()
                cuda.synchronize()
                for port in self._outputs:
                    results[port.tensor.name][start : start + len(part)] = port.host[: len(part)]
        return results

    def repeat_timed(self) -> Mapping[str, float]:
        """Start the last copies and kernels once more, while the GPU notes the time.

        Returns:
            Milliseconds by the GPU's clock: "device", from the start of the copy in to the end of
            the copies out, and of it "h2d", "compute" (with waits for the host to start kernels)
            and "d2h". What ran as one recorded graph has no parts. "enqueue" is the host's time in
            the one call that starts the kernels (as `trtexec` counts it), or the recorded graph.

        Raises:
            BackendError: Nothing was run yet, or the engine failed.
        """
        cuda, engine = self._opened()
        if not self._rows:
            raise BackendError(f"{self._file} has no run to repeat: run a batch first")
        with cuda.current():
            stages, enqueue_ns = self._between_events(cuda, engine)
        return {**stages, "enqueue": enqueue_ns / NS_PER_MS}

    def close(self) -> None:
        """Release the engine, its buffers and the device layer."""
        cuda, self._cuda = self._cuda, None
        if cuda is None:
            return
        try:
            with cuda.current():
                engine, self._engine = self._engine, None
                try:
                    self._drop_graph()
                finally:
                    if engine is not None:
                        engine.close()
        finally:
            cuda.close()

    def _opened(self) -> tuple[CudaLayer, LoadedEngine]:
        if self._cuda is None or self._engine is None:
            raise BackendError(f"{self._file} was closed: open it again")
        return self._cuda, self._engine

    def _port(self, cuda: CudaLayer, engine: LoadedEngine, tensor: EngineTensor) -> _Port:
        shape = (engine.largest, *tensor.shape)
        device = cuda.allocate(tensor.dtype.itemsize * math.prod(shape))
        engine.set_address(tensor, device)
        return _Port(tensor, cuda.pinned(shape, tensor.dtype), device)

    def _prepare(self, cuda: CudaLayer, engine: LoadedEngine, part: Batch) -> None:
        """Write a part into the page-locked input, and record a graph once there may be one."""
        self._input.host[: len(part)] = part
        rows = max(len(part), engine.smallest)
        if rows != self._rows:
            # A recorded graph holds for the shape that the context has.
            self._drop_graph()
            self._rows = self._runs = 0
            engine.set_rows(rows)
            self._rows = rows
        if self._graph is None and self._captures and self._runs >= _RUNS_BEFORE_CAPTURE:
            try:
                self._graph = cuda.capture(lambda: self._enqueue(cuda, engine))
            except (BackendError, MissingDependencyError) as error:
                self._captures = False
                self.notes += (f"runs without a CUDA graph: {error}",)
        self._runs += 1

    def _enqueue(
        self,
        cuda: CudaLayer,
        engine: LoadedEngine,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Start copies and kernels; `between` is called before the kernels and after them."""
        cuda.copy_in(self._input.device, self._input.host[: self._rows])
        between()
        engine.execute(cuda.stream)
        between()
        for port in self._outputs:
            cuda.copy_out(port.host[: self._rows], port.device)

    def _between_events(
        self, cuda: CudaLayer, engine: LoadedEngine
    ) -> tuple[Mapping[str, float], int]:
        """Start copies and kernels, and wait; milliseconds by stage, and ns of starting kernels."""
        if not self._events:
            self._events = tuple(cuda.event() for _ in range(4))
        start, copied, computed, end = self._events
        parts = iter((copied, computed))
        host_ns: list[int] = []

        def border() -> None:
            before_ns = time.monotonic_ns()
            cuda.record(next(parts))
            host_ns.extend((before_ns, time.monotonic_ns()))

        cuda.record(start)
        if self._graph is None:
            self._enqueue(cuda, engine, border)
            enqueue_ns = host_ns[2] - host_ns[1]
        else:
            before_ns = time.monotonic_ns()
            self._graph.launch()
            enqueue_ns = time.monotonic_ns() - before_ns
        cuda.record(end)
        cuda.synchronize()
        found = {"device": cuda.elapsed_ms(start, end)}
        if self._graph is None:
            found["h2d"] = cuda.elapsed_ms(start, copied)
            found["compute"] = cuda.elapsed_ms(copied, computed)
            found["d2h"] = cuda.elapsed_ms(computed, end)
        return found, enqueue_ns

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()
