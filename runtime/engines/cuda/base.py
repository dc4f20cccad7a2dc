"""CudaLayer: the few things asked of a GPU's memory and its one stream."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

HostArray = npt.NDArray[np.float32] | npt.NDArray[np.uint8]


class CudaGraph(Protocol):
    """A recorded sequence of copies and kernels that one call starts again."""

    def launch(self) -> None:
        """Start the sequence on the layer's stream; returns before it is done.

        Raises:
            BackendError: The graph or its layer was closed, or no context is current.
        """
        ...

    def close(self) -> None:
        """Release it, in the current context; the layer's `close` does so for those left over."""
        ...


class CudaLayer(Protocol):
    """The primary context of one GPU, one stream in it, and memory. Close it, or use `with`.

    A context belongs to a thread only while it is current there: whatever happens inside
    `current()` may happen on any thread, one at a time; all calls but `close` and `name` need it.
    Copies are between arrays of `pinned`, or C-contiguous parts of them, and the start of memory
    of `allocate` that is large enough; anything else is a BackendError.

    Attributes:
        name: The package that drives the GPU and its version, for reports.
        stream: The handle of the one stream (a `CUstream`), for an engine to be enqueued on.
    """

    name: str
    stream: int

    def current(self) -> contextlib.AbstractContextManager[None]:
        """Make the context current on this thread for the length of a `with` block."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> HostArray:
        """Return an array of zeros in page-locked memory; it lives until `close`.

        Args:
            shape: Its sizes, each 1 or more.
            dtype: float32 or uint8.

        Raises:
            BackendError: There is no such memory left, the dtype is another, or no context is
                current.
        """
        ...

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new device memory; it lives until `close`.

        Raises:
            BackendError: There is no such memory left, or no context is current.
        """
        ...

    def copy_in(self, device: int, host: HostArray) -> None:
        """Start a copy from an array of `pinned`, or a part of one, to the device."""
        ...

    def copy_out(self, host: HostArray, device: int) -> None:
        """Start a copy from the device to an array of `pinned`, or a part of one."""
        ...

    def synchronize(self) -> None:
        """Wait until the stream has done all that was started.

        Raises:
            BackendError: Something started earlier failed.
        """
        ...

    def event(self) -> Any:
        """Return a new event that keeps time, whatever it is; it lives until `close`."""
        ...

    def record(self, event: Any) -> None:
        """Let the stream note the time in `event` when it gets there."""
        ...

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Return the milliseconds between two events that the stream has passed.

        Raises:
            BackendError: One was not recorded, was recorded in `capture`, or lies ahead.
        """
        ...

    def capture(self, enqueue: Callable[[], None]) -> CudaGraph:
        """Record what `enqueue` starts on the stream, without running it; lives until `close`.

        Raises:
            MissingDependencyError: cuda-bindings is not installed.
            BackendError: Something in `enqueue` cannot be recorded, or it started nothing; the
                stream is usable again, as it is after any other error in `enqueue`.
        """
        ...

    def close(self) -> None:
        """Release everything that was handed out; calling it again does nothing.

        Needs no current context. Arrays from `pinned` must not be touched afterwards.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
