"""PycudaLayer: the CUDA device layer through pycuda; cuda-bindings only records its graphs."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pycuda
import pycuda.driver as cuda

from ...core.errors import needed_for
from .base import CudaGraph, CudaLayer, HostArray

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which pycuda does not name


class PycudaLayer(CudaLayer):
    """The device layer through pycuda, whose functions raise its own exception."""

    _new_memory = staticmethod(cuda.mem_alloc)
    _new_event = staticmethod(cuda.Event)
    _elapsed_ms = staticmethod(cuda.Event.time_till)

    def __init__(self, device: int = 0) -> None:
        super().__init__(f"pycuda {pycuda.VERSION_TEXT}", device)

    def _call(self, doing: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except cuda.Error as error:
            raise self._error(doing, _error_name(error)) from error

    def _open(self, doing: str, device: int) -> None:
        self._call(doing, cuda.init)
        gpu = self._call(doing, cuda.Device, device)
        self._context = self._call(doing, gpu.retain_primary_context)
        with self.current():
            self._stream = self._call("creating a stream", cuda.Stream, _NON_BLOCKING)
        self.stream = self._stream.handle

    def _push(self) -> None:
        self._context.push()

    def _pop(self) -> None:
        if self._context is not None:  # else `close` has left it already
            cuda.Context.pop()

    def _is_current(self) -> bool:
        return bool(cuda.Context.get_current() == self._context)

    def _new_pinned(self, doing: str, size_bytes: int) -> tuple[Any, Any]:
        memory = self._call(doing, cuda.pagelocked_empty, size_bytes, np.uint8)
        return memory.base, memory

    def _copy_in(self, device: int, host: HostArray, _address: int) -> None:
        cuda.memcpy_htod_async(device, host, self._stream)

    def _copy_out(self, device: int, host: HostArray, _address: int) -> None:
        cuda.memcpy_dtoh_async(host, device, self._stream)

    def _synchronize(self) -> None:
        self._stream.synchronize()

    def _record(self, event: Any) -> None:
        event.record(self._stream)

    def _new_graph(self, enqueue: Callable[[], None]) -> CudaGraph:
        feature, way_round = "recording a CUDA graph", "do without a CUDA graph"
        with needed_for(feature, extra="pycuda", package="cuda-bindings", instead=way_round):
            from .bindings import StreamGraph  # noqa: PLC0415  # pycuda does without it

        return StreamGraph(self.stream, enqueue, self._error, self._check_current)

    def _release(self) -> None:
        context, self._context = self._context, None
        with contextlib.suppress(cuda.Error):
            context.push()
            for graph in self._graphs:
                graph.close()
            self._events.clear()  # pycuda destroys one when nothing refers to it any more
            if self._stream is not None:
                with contextlib.suppress(cuda.Error):
                    self._stream.synchronize()
            self._stream = None
            for allocation, _ in (*self._memory.values(), *self._pinned.values()):
                allocation.free()
            context.detach()
            # A released context stays on this thread, below its previous one: take it off.
            driver, top = _driver(), ctypes.c_void_p()
            driver.cuCtxPopCurrent_v2(ctypes.byref(top))
            if top.value != context.handle:
                driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
                driver.cuCtxPushCurrent_v2(top)


def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")  # the one that pycuda has loaded


def _error_name(error: Exception) -> str:
    """Return the driver's name of an error, of which pycuda gives only the driver's description."""
    words = str(error).partition(" failed: ")[2].partition(" - ")[0].encode()
    driver, text, name = _driver(), ctypes.c_char_p(), ctypes.c_char_p()
    for code in range(1, 1000):
        if not driver.cuGetErrorString(code, ctypes.byref(text)) and text.value == words:
            driver.cuGetErrorName(code, ctypes.byref(name))
            return (name.value or words).decode()
    return str(error)
