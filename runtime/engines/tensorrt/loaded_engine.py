"""LoadedEngine: an engine in TensorRT or TensorRT-RTX, its tensors, and what executes it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.atomic_files import replaced_file
from ...core.errors import BackendError, EngineError, EngineFitError, OutputError
from .package import EngineLog, TensorRTPackage

if TYPE_CHECKING:
    import tensorrt

AGAIN = "build it again with motorvae-export --model BUNDLE and its --fp16 or --int8"


@dataclass(frozen=True, slots=True)
class EngineTensor:
    """One input or output of an engine; the shape is that of one image, without the batch."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class LoadedEngine:
    """One engine, loaded in the CUDA context that is current; every verb needs the same one.

    Args:
        plan: The engine. Whoever calls has made sure that it was built for this machine.
        file: Its name, for messages.
        package: The package that built it.
        whole_graph: Whether TensorRT-RTX may record its kernels as a CUDA graph of its own.
        runtime_cache: Where TensorRT-RTX keeps what it compiled for this GPU.

    Attributes:
        input: Its one input, float32 or uint8.
        outputs: Its outputs, float32, in its own order.
        smallest: The fewest images that one run takes.
        largest: The most.

    Raises:
        EngineError: It does not load, or is not of the kind that motorVAE builds.
    """

    def __init__(
        self,
        plan: bytes,
        file: str,
        package: TensorRTPackage,
        *,
        whole_graph: bool,
        runtime_cache: Path | None,
    ) -> None:
        self._file, self._package = file, package
        self._log = EngineLog(package.trt)
        self._runtime_cache_path = runtime_cache
        self._runtime: tensorrt.Runtime = None
        self._engine: tensorrt.ICudaEngine = None
        self._context: tensorrt.IExecutionContext = None
        self._runtime_cache: tensorrt.IRuntimeCache = None
        self._engine = self._deserialized(plan)
        self._context = self._new_context(whole_graph=whole_graph)
        self.input, self.outputs = self._tensors()
        smallest, _, largest = self._engine.get_tensor_profile_shape(self.input.name, 0)
        self.smallest, self.largest = int(smallest[0]), int(largest[0])

    def set_address(self, tensor: EngineTensor, device: int) -> None:
        """Tell where a tensor lies in device memory, with room for the largest batch."""
        self._context.set_tensor_address(tensor.name, device)

    def set_rows(self, rows: int) -> None:
        """Set how many images the next runs take.

        Raises:
            EngineError: The engine was not built for so many.
        """
        shape = (rows, *self.input.shape)
        self._log.clear()
        if not self._context.set_input_shape(self.input.name, shape):
            raise EngineError(
                f"{self._file} refuses the shape {shape}: {self._log.said()}; build it "
                "again with another --batch"
            )

    def execute(self, stream: int) -> None:
        """Start the kernels on a stream; returns before they are done.

        Raises:
            BackendError: They did not start.
        """
        self._log.clear()
        if not self._context.execute_async_v3(stream):
            raise BackendError(
                f"{self._package.title} failed on {self._file}: {self._log.said()}; {AGAIN}, or "
                "use --backend onnx"
            )

    def close(self) -> None:
        """Keep what was compiled, and release everything; calling it again does nothing."""
        try:
            self._keep_runtime_cache()
        finally:
            # Each needs the next, and all of them the CUDA context.
            self._context = self._runtime_cache = self._engine = self._runtime = None

    def _deserialized(self, plan: bytes) -> tensorrt.ICudaEngine:
        trt = self._package.trt
        # The runtime must outlive the engine.
        self._runtime = trt.Runtime(self._log.logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineFitError(
                f"{self._package.title} cannot load {self._file}: {self._log.said()}; {AGAIN}, "
                "here, or add --rebuild"
            )
        return engine

    def _new_context(self, *, whole_graph: bool) -> tensorrt.IExecutionContext:
        if not self._package.is_rtx:
            context = self._engine.create_execution_context()
        else:
            trt = self._package.trt
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
                f"{self._package.title} cannot run {self._file}: {self._log.said()}; close "
                "other programs that use the GPU, or use --backend onnx"
            )
        return context

    def _tensors(self) -> tuple[EngineTensor, tuple[EngineTensor, ...]]:
        trt, engine = self._package.trt, self._engine
        float32: np.dtype[Any] = np.dtype(np.float32)
        uint8: np.dtype[Any] = np.dtype(np.uint8)
        dtypes = {trt.float32: float32, trt.uint8: uint8}
        inputs: list[EngineTensor] = []
        outputs: list[EngineTensor] = []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            kind = engine.get_tensor_dtype(name)
            tensor = EngineTensor(
                name,
                dtypes.get(kind, np.dtype(np.void)),
                tuple(int(size) for size in tuple(engine.get_tensor_shape(name))[1:]),
            )
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(tensor)
        kinds = [tensor.dtype for tensor in inputs], {tensor.dtype for tensor in outputs}
        if kinds not in (([float32], {float32}), ([uint8], {float32})):
            named = [(tensor.name, tensor.dtype.name) for tensor in (*inputs, *outputs)]
            raise EngineFitError(
                f"{self._file} has {named}, and an encoder or decoder has one input of float32 or "
                f"uint8 and gives float32: {AGAIN}"
            )
        return inputs[0], tuple(outputs)

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
