"""PycudaLayer: the CUDA device layer through pycuda; cuda-bindings only records its graphs."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pycuda
import pycuda.driver as cuda

from ...core.errors import BackendError, missing_dependency
from ...core.lifecycle import Closing
from .allocations import Ledger, driver_error
from .base import HostArray

if TYPE_CHECKING:
    from .graph import StreamGraph

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which pycuda does not name
_LARGEST_ERROR = 1000


class PycudaLayer(Closing):
    """The primary context of one GPU and one stream in it; see `CudaLayer` for the verbs.

    Args:
        device: Number of the GPU as CUDA counts.

    Raises:
        BackendError: The driver has no such device, or refuses.
    """

    def __init__(self, device: int = 0) -> None:
        self.name = f"pycuda {pycuda.VERSION_TEXT}"
        self.stream = 0
        self._ledger = Ledger(self.name)
        self._context: Any = None
        self._stream: Any = None
        self._pinned: list[Any] = []
        self._memory: list[Any] = []
        self._events: list[Any] = []
        self._graphs: list[StreamGraph] = []
        try:
            cuda.init()
            self._context = cuda.Device(device).retain_primary_context()
            with self.current():
                self._stream = cuda.Stream(_NON_BLOCKING)
        except cuda.Error as error:
            wrapped = self._error(f"opening GPU {device}", error)
            self.close()
            raise wrapped from error
        except BaseException:
            self.close()
            raise
        self.stream = self._stream.handle

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current on this thread; see `CudaLayer.current`."""
        self._ledger.check_open()
        try:
            self._context.push()
        except cuda.Error as error:
            raise self._error("entering the context", error) from error
        try:
            yield
        finally:
            if self._context is not None:  # else `close` has left it already
                cuda.Context.pop()

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> HostArray:
        """Return zeros in page-locked memory; see `CudaLayer.pinned`."""
        size_bytes = self._ledger.pinned_bytes(shape, dtype)
        doing = f"allocating {size_bytes} page-locked bytes"
        self._check_current(doing)
        try:
            array: HostArray = cuda.pagelocked_zeros(shape, dtype)
        except cuda.Error as error:
            raise self._error(doing, error) from error
        self._pinned.append(array.base)
        self._ledger.add_pinned(array)
        return array

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new device memory; see `CudaLayer.allocate`."""
        self._ledger.check_device_bytes(size_bytes)
        doing = f"allocating {size_bytes} bytes of device memory"
        self._check_current(doing)
        try:
            memory = cuda.mem_alloc(size_bytes)
        except cuda.Error as error:
            raise self._error(doing, error) from error
        self._memory.append(memory)
        self._ledger.add_device(int(memory), size_bytes)
        return int(memory)

    def copy_in(self, device: int, host: HostArray) -> None:
        """Start a copy to the device; see `CudaLayer.copy_in`."""
        self._ledger.span(device, host)
        try:
            cuda.memcpy_htod_async(device, host, self._stream)
        except cuda.Error as error:
            raise self._error(f"copying {host.nbytes} bytes to the GPU", error) from error

    def copy_out(self, host: HostArray, device: int) -> None:
        """Start a copy from the device; see `CudaLayer.copy_out`."""
        self._ledger.span(device, host, writes=True)
        try:
            cuda.memcpy_dtoh_async(host, device, self._stream)
        except cuda.Error as error:
            raise self._error(f"copying {host.nbytes} bytes from the GPU", error) from error

    def synchronize(self) -> None:
        """Wait for the stream; see `CudaLayer.synchronize`."""
        self._ledger.check_open()
        try:
            self._stream.synchronize()
        except cuda.Error as error:
            raise self._error("waiting for the GPU", error) from error

    def event(self) -> Any:
        """Return a new event; see `CudaLayer.event`.

        It is a number, since pycuda destroys an event only when nothing refers to it any more.
        """
        self._ledger.check_open()
        self._check_current("creating an event")
        try:
            self._events.append(cuda.Event())
        except cuda.Error as error:
            raise self._error("creating an event", error) from error
        return len(self._events) - 1

    def record(self, event: Any) -> None:
        """Note the time in `event`; see `CudaLayer.record`."""
        self._ledger.check_open()
        try:
            self._events[event].record(self._stream)
        except cuda.Error as error:
            raise self._error("recording an event", error) from error

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Return the milliseconds between two events; see `CudaLayer.elapsed_ms`."""
        self._ledger.check_open()
        try:
            return float(self._events[start].time_till(self._events[end]))
        except cuda.Error as error:
            raise self._error("reading two events", error) from error

    def capture(self, enqueue: Callable[[], None]) -> StreamGraph:
        """Record what `enqueue` starts; see `CudaLayer.capture`."""
        self._ledger.check_open()
        try:
            from .graph import StreamGraph  # noqa: PLC0415  # pycuda does without it
        except ModuleNotFoundError as error:
            raise missing_dependency(
                "recording a CUDA graph",
                "cuda-bindings",
                extra="pycuda",
                instead="do without a CUDA graph",
            ) from error
        graph = StreamGraph(self.stream, enqueue, self._refused)
        self._graphs = [*(kept for kept in self._graphs if not kept.closed), graph]
        return graph

    def close(self) -> None:
        """Release everything; see `CudaLayer.close`.

        What the driver says to it is not looked at: a GPU that failed refuses this, too, and
        only the end of the process frees its memory.
        """
        context, self._context = self._context, None
        if not self._ledger.close() or context is None:
            return
        with contextlib.suppress(cuda.Error):
            context.push()
            for graph in self._graphs:
                graph.close()
            self._events.clear()
            if self._stream is not None:
                with contextlib.suppress(cuda.Error):
                    self._stream.synchronize()
            self._stream = None
            for memory in self._memory:
                memory.free()
            for allocation in self._pinned:
                allocation.free()
            context.detach()
            _leave(context.handle)
        self._graphs, self._memory, self._pinned = [], [], []

    def _check_current(self, doing: str) -> None:
        """Raise where the context is not current: in another one, all would seem to go well."""
        if not self._is_current():
            raise self._refused(doing, "CUDA_ERROR_INVALID_CONTEXT")

    def _is_current(self) -> bool:
        return bool(cuda.Context.get_current() == self._context)

    def _error(self, doing: str, error: Exception) -> BackendError:
        return self._refused(doing, _error_name(error))

    def _refused(self, doing: str, answer: str) -> BackendError:
        current = self._context is None or self._is_current()
        return driver_error(self.name, doing, answer, current=current)


def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")  # the one that pycuda has loaded


def _leave(context: int) -> None:
    """Take a released context off this thread; pycuda leaves it there, below its previous one."""
    driver, top = _driver(), ctypes.c_void_p()
    driver.cuCtxPopCurrent_v2(ctypes.byref(top))
    if top.value != context:
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
        driver.cuCtxPushCurrent_v2(top)


def _error_name(error: Exception) -> str:
    """Return the driver's name of an error, of which pycuda tells only the driver's words."""
    words = str(error).partition(" failed: ")[2].partition(" - ")[0].encode()
    driver, text, name = _driver(), ctypes.c_char_p(), ctypes.c_char_p()
    for code in range(1, _LARGEST_ERROR):
        if not driver.cuGetErrorString(code, ctypes.byref(text)) and text.value == words:
            driver.cuGetErrorName(code, ctypes.byref(name))
            return (name.value or words).decode()
    return str(error)
