"""cuda-bindings as a device layer, where pycuda is not installed, and CUDA graphs for both."""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Callable
from typing import Any

from cuda.bindings import driver

from ...core.errors import BackendError
from .base import CudaGraph, CudaLayer, HostArray

_NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
# Other threads may allocate meanwhile; this one may not.
_THREAD_LOCAL = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class BindingsLayer(CudaLayer):
    """The device layer through cuda-bindings, whose functions return a code before the result."""

    _pop = staticmethod(driver.cuCtxPopCurrent)
    _new_memory = staticmethod(driver.cuMemAlloc)
    _elapsed_ms = staticmethod(driver.cuEventElapsedTime)

    def __init__(self, device: int = 0) -> None:
        super().__init__(f"cuda-bindings {importlib.metadata.version('cuda-bindings')}", device)

    def _call(self, doing: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return checked(doing, function(*arguments), self._error)

    def _open(self, doing: str, device: int) -> None:
        try:
            self._call(doing, driver.cuInit, 0)
        except RuntimeError as error:  # also cuda-bindings' own, where it finds no library
            if isinstance(error, BackendError):
                raise
            raise BackendError(
                f"{self.name} finds no NVIDIA driver ({error}): install it, or use --backend onnx"
            ) from error
        self._device = self._call(doing, driver.cuDeviceGet, device)
        self._context = self._call(doing, driver.cuDevicePrimaryCtxRetain, self._device)
        with self.current():
            self._stream = self._call("creating a stream", driver.cuStreamCreate, _NON_BLOCKING)
        self.stream = int(self._stream)

    def _push(self) -> Any:
        return driver.cuCtxPushCurrent(self._context)

    def _is_current(self) -> bool:
        _, current = driver.cuCtxGetCurrent()
        return int(current or 0) == int(self._context)

    def _new_pinned(self, doing: str, size_bytes: int) -> tuple[Any, Any]:
        address = self._call(doing, driver.cuMemHostAlloc, size_bytes, 0)
        return address, (ctypes.c_byte * size_bytes).from_address(address)

    def _copy_in(self, device: int, host: HostArray, address: int) -> Any:
        return driver.cuMemcpyHtoDAsync(device, address, host.nbytes, self._stream)

    def _copy_out(self, device: int, host: HostArray, address: int) -> Any:
        return driver.cuMemcpyDtoHAsync(address, device, host.nbytes, self._stream)

    def _synchronize(self) -> Any:
        return driver.cuStreamSynchronize(self._stream)

    def _new_event(self) -> Any:
        return driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DEFAULT)  # it keeps time

    def _record(self, event: Any) -> Any:
        return driver.cuEventRecord(event, self._stream)

    def _new_graph(self, enqueue: Callable[[], None]) -> CudaGraph:
        return StreamGraph(self.stream, enqueue, self._error, self._check_current)

    def _release(self) -> None:
        (code,) = driver.cuCtxPushCurrent(self._context)
        for graph in self._graphs:
            graph.close()
        for event in self._events:
            driver.cuEventDestroy(event)
        if self._stream is not None:
            driver.cuStreamSynchronize(self._stream)
            driver.cuStreamDestroy(self._stream)
        for memory, _ in self._memory.values():
            driver.cuMemFree(memory)
        for address in self._pinned:
            driver.cuMemFreeHost(address)
        if not code:
            driver.cuCtxPopCurrent()  # releasing the context does not take it off this thread
        driver.cuDevicePrimaryCtxRelease(self._device)


class StreamGraph(CudaGraph):
    """What `enqueue` starts on a stream (its handle), recorded.

    `error` and `check_current` are a CudaLayer's `_error` and `_check_current`.
    """

    def __init__(
        self,
        stream: int,
        enqueue: Callable[[], None],
        error: Callable[[str, str], BackendError],
        check_current: Callable[[str], None],
    ) -> None:
        self._stream, self._error = driver.CUstream(stream), error
        self._check_current = check_current
        self._executable: Any = None
        graph = self._recorded(enqueue)
        try:
            if not checked("reading a CUDA graph", driver.cuGraphGetNodes(graph), error):
                raise BackendError(
                    "there is nothing to replay, as no copy or kernel was started on the layer's "
                    "stream: enqueue on layer.stream"
                )
            answer = driver.cuGraphInstantiate(graph, 0)
            self._executable = checked("preparing a CUDA graph", answer, error)
        finally:
            driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """See `CudaGraph.launch`."""
        if self._executable is None:
            raise BackendError("the CUDA graph was closed: capture it again")
        doing = "starting a CUDA graph"
        self._check_current(doing)
        checked(doing, driver.cuGraphLaunch(self._executable, self._stream), self._error)

    def close(self) -> None:
        """Release the graph; calling it again does nothing."""
        executable, self._executable = self._executable, None
        if executable is not None:
            driver.cuGraphExecDestroy(executable)
        self.closed = True

    def _recorded(self, enqueue: Callable[[], None]) -> Any:
        doing = "recording a CUDA graph"
        checked(doing, driver.cuStreamBeginCapture(self._stream, _THREAD_LOCAL), self._error)
        try:
            enqueue()
        except BaseException:
            # Without this the stream would go on recording, and refuse whatever comes.
            code, graph = driver.cuStreamEndCapture(self._stream)
            if not code:
                driver.cuGraphDestroy(graph)
            raise
        return checked(doing, driver.cuStreamEndCapture(self._stream), self._error)


def checked(doing: str, answer: tuple[Any, ...], error: Callable[[str, str], BackendError]) -> Any:
    """Return the last value in an answer of cuda-bindings, or raise `error` of its code."""
    code, *results = answer
    if code:  # one that is newer than cuda-bindings has a number and no name
        raise error(doing, getattr(code, "name", f"error {code}"))
    return results[-1] if results else None
