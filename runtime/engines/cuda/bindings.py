"""BindingsLayer: the CUDA device layer through cuda-bindings, where pycuda is not installed."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import driver

from ...core.errors import BackendError
from ...core.lifecycle import Closing
from .allocations import Ledger, driver_error
from .base import HostArray
from .graph import StreamGraph, checked, code_name

_NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
_KEEPS_TIME = driver.CUevent_flags.CU_EVENT_DEFAULT


class BindingsLayer(Closing):
    """The primary context of one GPU and one stream in it; see `CudaLayer` for the verbs.

    Args:
        device: Number of the GPU as CUDA counts.

    Raises:
        BackendError: There is no driver, it has no such device, or it refuses.
    """

    def __init__(self, device: int = 0) -> None:
        self.name = f"cuda-bindings {importlib.metadata.version('cuda-bindings')}"
        self.stream = 0
        self._ledger = Ledger(self.name)
        self._context: Any = None
        self._stream: Any = None
        self._pinned: list[int] = []
        self._memory: list[Any] = []
        self._events: list[Any] = []
        self._graphs: list[StreamGraph] = []
        try:
            self._check("starting the driver", driver.cuInit(0))
        except RuntimeError as error:  # also cuda-bindings' own, where it finds no library
            if isinstance(error, BackendError):
                raise
            raise BackendError(
                f"{self.name} finds no NVIDIA driver ({error}): install it, or use --backend onnx"
            ) from error
        opening = f"opening GPU {device}"
        (self._device,) = self._check(opening, driver.cuDeviceGet(device))
        (self._context,) = self._check(opening, driver.cuDevicePrimaryCtxRetain(self._device))
        try:
            with self.current():
                answer = driver.cuStreamCreate(_NON_BLOCKING)
                (self._stream,) = self._check("creating a stream", answer)
        except BaseException:
            self.close()
            raise
        self.stream = int(self._stream)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current on this thread; see `CudaLayer.current`."""
        self._ledger.check_open()
        self._check("entering the context", driver.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            driver.cuCtxPopCurrent()

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> HostArray:
        """Return zeros in page-locked memory; see `CudaLayer.pinned`."""
        size_bytes = self._ledger.pinned_bytes(shape, dtype)
        doing = f"allocating {size_bytes} page-locked bytes"
        self._check_current(doing)
        (address,) = self._check(doing, driver.cuMemHostAlloc(size_bytes, 0))
        self._pinned.append(address)
        memory = (ctypes.c_byte * size_bytes).from_address(address)
        array: HostArray = np.ndarray(shape, dtype, memoryview(memory))
        array.fill(0)
        self._ledger.add_pinned(array)
        return array

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new device memory; see `CudaLayer.allocate`."""
        self._ledger.check_device_bytes(size_bytes)
        doing = f"allocating {size_bytes} bytes of device memory"
        self._check_current(doing)
        (memory,) = self._check(doing, driver.cuMemAlloc(size_bytes))
        self._memory.append(memory)
        self._ledger.add_device(int(memory), size_bytes)
        return int(memory)

    def copy_in(self, device: int, host: HostArray) -> None:
        """Start a copy to the device; see `CudaLayer.copy_in`."""
        address, size_bytes = self._ledger.span(device, host)
        (code,) = driver.cuMemcpyHtoDAsync(device, address, size_bytes, self._stream)
        if code:
            raise self._error(f"copying {size_bytes} bytes to the GPU", code_name(code))

    def copy_out(self, host: HostArray, device: int) -> None:
        """Start a copy from the device; see `CudaLayer.copy_out`."""
        address, size_bytes = self._ledger.span(device, host, writes=True)
        (code,) = driver.cuMemcpyDtoHAsync(address, device, size_bytes, self._stream)
        if code:
            raise self._error(f"copying {size_bytes} bytes from the GPU", code_name(code))

    def synchronize(self) -> None:
        """Wait for the stream; see `CudaLayer.synchronize`."""
        self._ledger.check_open()
        self._check("waiting for the GPU", driver.cuStreamSynchronize(self._stream))

    def event(self) -> Any:
        """Return a new event; see `CudaLayer.event`."""
        self._ledger.check_open()
        self._check_current("creating an event")
        (event,) = self._check("creating an event", driver.cuEventCreate(_KEEPS_TIME))
        self._events.append(event)
        return event

    def record(self, event: Any) -> None:
        """Note the time in `event`; see `CudaLayer.record`."""
        self._ledger.check_open()
        self._check("recording an event", driver.cuEventRecord(event, self._stream))

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Return the milliseconds between two events; see `CudaLayer.elapsed_ms`."""
        self._ledger.check_open()
        (elapsed,) = self._check("reading two events", driver.cuEventElapsedTime(start, end))
        return float(elapsed)

    def capture(self, enqueue: Callable[[], None]) -> StreamGraph:
        """Record what `enqueue` starts; see `CudaLayer.capture`."""
        self._ledger.check_open()
        graph = StreamGraph(self.stream, enqueue, self._error)
        self._graphs = [*(kept for kept in self._graphs if not kept.closed), graph]
        return graph

    def close(self) -> None:
        """Release everything; see `CudaLayer.close`.

        What the driver says to it is not looked at: a GPU that failed refuses this, too, and
        only the end of the process frees its memory.
        """
        if not self._ledger.close() or self._context is None:
            return
        (code,) = driver.cuCtxPushCurrent(self._context)
        for graph in self._graphs:
            graph.close()
        for event in self._events:
            driver.cuEventDestroy(event)
        if self._stream is not None:
            driver.cuStreamSynchronize(self._stream)
            driver.cuStreamDestroy(self._stream)
        for memory in self._memory:
            driver.cuMemFree(memory)
        for address in self._pinned:
            driver.cuMemFreeHost(address)
        if not code:
            driver.cuCtxPopCurrent()  # releasing the context does not take it off this thread
        driver.cuDevicePrimaryCtxRelease(self._device)
        for kept in (self._graphs, self._events, self._memory, self._pinned):
            kept.clear()

    def _check(self, doing: str, answer: tuple[Any, ...]) -> tuple[Any, ...]:
        return checked(doing, answer, self._error)

    def _check_current(self, doing: str) -> None:
        """Raise where the context is not current: in another one, all would seem to go well."""
        if not self._is_current():
            raise self._error(doing, "CUDA_ERROR_INVALID_CONTEXT")

    def _is_current(self) -> bool:
        _, current = driver.cuCtxGetCurrent()
        return int(current or 0) == int(self._context)

    def _error(self, doing: str, answer: str) -> BackendError:
        current = self._context is None or self._is_current()
        return driver_error(self.name, doing, answer, current=current)
