"""CudaLayer: the few things asked of a GPU's memory and its one stream, whoever drives it."""

from __future__ import annotations

import abc
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.errors import BackendError
from ...core.lifecycle import Closing

HostArray = npt.NDArray[np.float32] | npt.NDArray[np.uint8]

_DTYPES = (np.dtype(np.float32), np.dtype(np.uint8))
_READING_EVENTS = "reading two events"
_NEXT_STEPS: dict[str | tuple[str, str], str] = {  # by the error, or by what was tried and it
    "CUDA_ERROR_OUT_OF_MEMORY": "close other programs that use the GPU, or take a smaller batch",
    "CUDA_ERROR_NO_DEVICE": "nvidia-smi lists the GPUs; CUDA_VISIBLE_DEVICES may hide them",
    "CUDA_ERROR_INVALID_DEVICE": "nvidia-smi lists the GPUs, which count from 0",
    "CUDA_ERROR_NOT_READY": "call synchronize first",
    "CUDA_ERROR_INVALID_HANDLE": "record both events on this layer's stream, and synchronize",
    "CUDA_ERROR_CAPTURED_EVENT": "record events outside of what is captured",
    # What an H200's driver 580 answers instead; without a capture its handles are ours and valid.
    (_READING_EVENTS, "CUDA_ERROR_INVALID_VALUE"): "record events outside of what is captured",
    "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED": "allocate and synchronize before what is captured",
    "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED": "allocate and synchronize before what is captured",
}
_ELSE = "open the device layer again, and look for errors of the GPU in dmesg"


class CudaGraph(Closing):
    """A recorded sequence of copies and kernels that one call starts again.

    `close` releases it, in the current context; the layer's `close` does so for those left over.
    """

    closed = False

    @abc.abstractmethod
    def launch(self) -> None:
        """Start the sequence on the layer's stream; returns before it is done."""


class CudaLayer(Closing):
    """The primary context of one GPU, one stream in it, and memory. Close it, or use `with`.

    A context belongs to a thread only while it is current there: whatever happens inside
    `current()` may happen on any thread, one at a time; all calls but `close` and `name` need it.
    The layer looks itself: some drivers take the context from a stream's or an event's handle, and
    would do without on one machine what they refuse on another.
    Copies are between arrays of `pinned`, or C-contiguous parts of them, and the start of memory
    of `allocate` that is large enough. Anything else, and what the driver refuses, is a
    BackendError with what was tried and the next step. Memory, events and graphs live until
    `close`.

    A subclass for each package has the driver's calls, which `_call` makes and checks.
    """

    _push: Callable[[], Any]
    _pop: Callable[[], None]
    _is_current: Callable[[], bool]
    _new_memory: Callable[[int], Any]
    _copy_in: Callable[[int, HostArray, int], Any]
    _copy_out: Callable[[int, HostArray, int], Any]
    _synchronize: Callable[[], Any]
    _new_event: Callable[[], Any]
    _record: Callable[[Any], Any]
    _elapsed_ms: Callable[[Any, Any], Any]
    _new_graph: Callable[[Callable[[], None]], CudaGraph]

    def __init__(self, name: str, device: int) -> None:
        self.name = name  # of the package that drives the GPU, and its version
        self.stream = 0  # the handle of the one stream (a `CUstream`), for an engine's kernels
        self._closed = False
        self._context: Any = None
        self._stream: Any = None
        self._memory: dict[int, tuple[Any, int]] = {}  # by address: what to free, and its bytes
        self._pinned: dict[int, tuple[Any, int]] = {}  # likewise
        self._events: list[Any] = []
        self._graphs: list[CudaGraph] = []
        try:
            self._open(f"opening GPU {device}", device)
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current on this thread for the length of a `with` block."""
        self._check_open()
        self._call("entering the context", self._push)
        try:
            yield
        finally:
            self._pop()

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> HostArray:
        """Return an array of zeros, float32 or uint8, in page-locked memory."""
        kind = np.dtype(dtype)
        _check_dtype(kind)
        if not shape or min(shape) < 1:
            raise BackendError(
                f"a page-locked array of shape {shape} holds nothing: give sizes of 1 or more"
            )
        size_bytes = math.prod(shape) * kind.itemsize
        doing = f"allocating {size_bytes} page-locked bytes"
        self._check_current(doing)
        allocation, memory = self._new_pinned(doing, size_bytes)
        array: HostArray = np.frombuffer(memory, kind).reshape(shape)
        array.fill(0)
        self._pinned[array.__array_interface__["data"][0]] = allocation, size_bytes
        return array

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new device memory."""
        if size_bytes < 1:
            raise BackendError(f"{size_bytes} bytes of device memory hold nothing: give 1 or more")
        doing = f"allocating {size_bytes} bytes of device memory"
        memory = self._call_in_context(doing, self._new_memory, size_bytes)
        self._memory[int(memory)] = memory, size_bytes
        return int(memory)

    def copy_in(self, device: int, host: HostArray) -> None:
        """Start a copy from an array of `pinned`, or a part of one, to the device."""
        address = self._checked_address(device, host)
        doing = f"copying {host.nbytes} bytes to the GPU"
        self._call_in_context(doing, self._copy_in, device, host, address)

    def copy_out(self, host: HostArray, device: int) -> None:
        """Start a copy from the device to an array of `pinned`, or a part of one."""
        address = self._checked_address(device, host, writes=True)
        doing = f"copying {host.nbytes} bytes from the GPU"
        self._call_in_context(doing, self._copy_out, device, host, address)

    def synchronize(self) -> None:
        """Wait until the stream has done all that was started; raise where some of it failed."""
        self._call_in_context("waiting for the GPU", self._synchronize)

    def event(self) -> int:
        """Return the number of a new event that keeps time."""
        self._events.append(self._call_in_context("creating an event", self._new_event))
        return len(self._events) - 1

    def record(self, event: int) -> None:
        """Let the stream note the time in `event` when it gets there."""
        self._check_open()  # which forgets the events
        self._call_in_context("recording an event", self._record, self._events[event])

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the milliseconds between two events, recorded outside `capture` and passed."""
        self._check_open()
        events = self._events[start], self._events[end]
        return float(self._call_in_context(_READING_EVENTS, self._elapsed_ms, *events))

    def capture(self, enqueue: Callable[[], None]) -> CudaGraph:
        """Record what `enqueue` starts on the stream, without running it.

        A MissingDependencyError where cuda-bindings is not installed, and a BackendError where
        something cannot be recorded, or nothing was started. After any error the stream is usable.
        """
        self._check_current("recording a CUDA graph")
        graph = self._new_graph(enqueue)
        self._graphs = [*(kept for kept in self._graphs if not kept.closed), graph]
        return graph

    def close(self) -> None:
        """Release everything that was handed out; calling it again does nothing.

        Needs no current context. Arrays from `pinned` must not be touched afterwards. Errors of
        the driver are ignored: a GPU that failed refuses this, too, and only the end of the
        process frees its memory.
        """
        is_open, self._closed = not self._closed, True
        if is_open and self._context is not None:
            self._release()
        for kept in (self._graphs, self._events, self._memory, self._pinned):
            kept.clear()

    @abc.abstractmethod
    def _call(self, doing: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the package's function, or a method below; raise `_error` where it refuses."""

    def _call_in_context(self, doing: str, function: Callable[..., Any], *arguments: Any) -> Any:
        self._check_current(doing)
        return self._call(doing, function, *arguments)

    @abc.abstractmethod
    def _open(self, doing: str, device: int) -> None:
        """Start the driver, retain the GPU's primary context, and create the stream in it."""

    @abc.abstractmethod
    def _new_pinned(self, doing: str, size_bytes: int) -> tuple[Any, Any]:
        """Return what to free later, and the memory as a buffer."""

    @abc.abstractmethod
    def _release(self) -> None:
        """Finish the stream's work, free everything and release the context; raise nothing."""

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"{self.name}: the device layer was closed: open it again")

    def _check_current(self, doing: str) -> None:
        """Raise where the context is not current: with some drivers all would seem to go well."""
        self._check_open()
        if not self._is_current():
            raise self._error(doing, "CUDA_ERROR_INVALID_CONTEXT")

    def _checked_address(self, device: int, host: HostArray, *, writes: bool = False) -> int:
        """Return the array's address; refuse a copy not asynchronous or not within our memory."""
        self._check_open()
        _check_dtype(host.dtype)
        if not host.flags.c_contiguous or (writes and not host.flags.writeable):
            problem = "read-only" if host.flags.c_contiguous else "not contiguous in memory"
            raise BackendError(
                f"an array of shape {host.shape} is {problem}: copy to and from arrays of pinned()"
            )
        if device not in self._memory:
            raise BackendError(
                f"{device:#x} is no device memory of this layer: give an address from allocate()"
            )
        size_bytes, (_, room) = host.nbytes, self._memory[device]
        if size_bytes > room:
            raise BackendError(
                f"{size_bytes} bytes (shape {host.shape}) do not fit into the {room} bytes of "
                f"device memory at {device:#x}: allocate more"
            )
        first: int = host.__array_interface__["data"][0]
        if not any(
            low <= first and first + size_bytes <= low + size
            for low, (_, size) in self._pinned.items()
        ):
            raise BackendError(
                f"an array of shape {host.shape} is not in page-locked memory of this layer, so "
                "that its copy could not be asynchronous: copy to and from arrays of pinned()"
            )
        return first

    def _error(self, doing: str, answer: str) -> BackendError:
        """Return the error for a call that the driver refused with the error of this name."""
        step = _NEXT_STEPS.get((doing, answer), _NEXT_STEPS.get(answer, _ELSE))
        if self._context is not None and not self._is_current():
            step = (
                "its context is not current on this thread: call it inside `with layer.current():`"
            )
        return BackendError(f"{self.name}: {doing} failed with {answer}: {step}")


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype not in _DTYPES:
        raise BackendError(f"a copy takes float32 or uint8, and was given {dtype}: convert it")
