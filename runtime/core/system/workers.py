"""Workers: threads that end where nobody waits for them any more, even amid a read."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
_LOOK_S = 0.05


class StoppedError(BaseException):
    """What a thread does is no longer wanted; nothing that takes errors for failures catches it."""


class _Worker(threading.Thread):
    """A thread of `Workers`. As a daemon it does not keep Python from ending."""

    def __init__(self, stop: threading.Event, work: Callable[[], None], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self.stop = stop
        self.is_waiting = False  # for what may never come


class Workers:
    """A number of threads, and what they are to do.

    The executor of the standard library waits for its threads whatever they do, at the latest as
    Python ends: https://docs.python.org/3/library/concurrent.futures.html
    """

    def __init__(self, count: int, name: str) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._threads = [_Worker(self._stop, self._work, f"{name}_{n}") for n in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Let a thread call a function; what it returns or raises is the future's."""
        future = Future[T]()

        def task() -> None:
            try:
                future.set_result(function(*args))
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                future.set_exception(error)

        self._tasks.put(task)
        return future

    def end(self) -> None:
        """Begin nothing more, and wait for what goes on, but not for what waits for a server."""
        self._stop.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            while thread.is_alive() and not thread.is_waiting:
                thread.join(_LOOK_S)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None and not self._stop.is_set():
            task()


def check_wanted() -> None:
    """Raise a StoppedError in a worker that has been told to end."""
    thread = threading.current_thread()
    if isinstance(thread, _Worker) and thread.stop.is_set():
        raise StoppedError


def pause(seconds: float) -> None:
    """Wait, in a worker at most until it is told to end, with a StoppedError."""
    thread = threading.current_thread()
    if not isinstance(thread, _Worker):
        time.sleep(seconds)
    elif thread.stop.wait(seconds):
        raise StoppedError


def waited_for(function: Callable[[], T]) -> T:
    """Call what may take for ever, such as a server; a worker that is to end is not waited for.

    Where it returns after that, there is a StoppedError.
    """
    thread = threading.current_thread()
    if not isinstance(thread, _Worker):
        return function()
    check_wanted()
    thread.is_waiting = True
    try:
        return function()
    finally:
        thread.is_waiting = False
        check_wanted()
