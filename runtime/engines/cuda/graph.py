"""StreamGraph: what a stream was asked once, recorded by cuda-bindings and started by one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cuda.bindings import driver

from ...core.errors import BackendError
from ...core.lifecycle import Closing

_THREAD_LOCAL = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
"""Other threads may allocate meanwhile; this one may not."""


class StreamGraph(Closing):
    """A recorded sequence of copies and kernels that one call starts again.

    Args:
        stream: Handle of the stream (a `CUstream`), whose context is current on this thread.
        enqueue: Starts the sequence on that stream; none of it runs.
        error: From what was tried and the driver's name of the error to the exception.

    Raises:
        BackendError: Something in `enqueue` cannot be recorded, or it started nothing on the
            stream. The stream is usable again, as it is after any other error in `enqueue`.
    """

    def __init__(
        self, stream: int, enqueue: Callable[[], None], error: Callable[[str, str], BackendError]
    ) -> None:
        self._stream = driver.CUstream(stream)
        self._error = error
        self._executable: Any = None
        graph = self._recorded(enqueue)
        try:
            _, nodes = checked("reading a CUDA graph", driver.cuGraphGetNodes(graph), error)
            if not nodes:
                raise BackendError(
                    "there is nothing to replay, as no copy or kernel was started on the layer's "
                    "stream: enqueue on layer.stream"
                )
            (self._executable,) = checked(
                "preparing a CUDA graph", driver.cuGraphInstantiate(graph, 0), error
            )
        finally:
            driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Start the sequence on the stream; returns before it is done."""
        if self._executable is None:
            raise BackendError("the CUDA graph was closed: capture it again")
        (code,) = driver.cuGraphLaunch(self._executable, self._stream)
        if code:
            raise self._error("starting a CUDA graph", code_name(code))

    def close(self) -> None:
        """Release the graph; calling it again does nothing."""
        executable, self._executable = self._executable, None
        if executable is not None:
            driver.cuGraphExecDestroy(executable)

    @property
    def closed(self) -> bool:
        """Whether it was released."""
        return self._executable is None

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
        (graph,) = checked(doing, driver.cuStreamEndCapture(self._stream), self._error)
        return graph


def checked(
    doing: str, answer: tuple[Any, ...], error: Callable[[str, str], BackendError]
) -> tuple[Any, ...]:
    """Return what a call of cuda-bindings gave beside its code, or raise what `error` makes of it.

    Args:
        doing: What was tried, with the values.
        answer: What the call returned.
        error: From what was tried and the driver's name of the error to the exception.
    """
    code, *results = answer
    if code:
        raise error(doing, code_name(code))
    return tuple(results)


def code_name(code: Any) -> str:
    """Return the driver's name of an error; one newer than cuda-bindings is a plain number."""
    return getattr(code, "name", f"error {code}")
