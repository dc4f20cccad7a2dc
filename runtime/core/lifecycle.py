"""How things end: `with` blocks that close what they opened, and signals that end a process."""

from __future__ import annotations

import abc
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from typing_extensions import Self

SAME_SIGNAL_S = 0.1
"""A second signal within this time of the first is the same one, sent twice."""


class Closing(abc.ABC):
    """Something that holds a device, a file or an engine until it is closed."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release what is held; calling it again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which unlike Ctrl-C in a terminal may have reached this process alone."""


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a process to end: SIGHUP is left alone where nohup ignores it."""
    hung_up = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hung_up else []))


@contextlib.contextmanager
def signals_handled_by(
    handler: Callable[[int, FrameType | None], None], numbers: Sequence[signal.Signals]
) -> Iterator[None]:
    """Let a function handle signals within the block, in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Act on Ctrl-C, SIGTERM and SIGHUP only after the block, which must be short and be whole."""
    received: list[int] = []
    numbers = [one for one in ending_signals() if signal.getsignal(one) != signal.SIG_IGN]
    try:
        with signals_handled_by(lambda number, _: received.append(number), numbers):
            yield
    finally:
        if received:
            signal.raise_signal(received[0])


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on the first signal that asks to end, and end at once on the second.

    The handler runs between two steps of the main thread, so that `stop` may take no lock that
    the main thread may hold. Supervisors such as timeout signal a process and its group: what
    follows at once is still the first.
    """
    first_s: list[float] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if not first_s:
            first_s.append(time.monotonic())
            stop()
        elif time.monotonic() - first_s[0] > SAME_SIGNAL_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    with signals_handled_by(handle, ending_signals()):
        yield


@contextlib.contextmanager
def terminated_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind as Ctrl-C does, so that nothing half-written stays."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    with signals_handled_by(terminate, ending_signals()[1:]):
        yield
