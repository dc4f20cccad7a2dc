"""A progress bar from the engine builder, and Ctrl-C as a flag that it polls."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from typing_extensions import Self

from ...runtime.core.command import ending_signals


class BuildProgress:
    """What one build reports and whether it may go on; the builder calls from its own threads.

    Args:
        trt: The package, for the base class of its callbacks.
        console: Where the bar is drawn.
        title: What is being built.
        cancelled: Once set, the builder is told to stop at its next step.

    Attributes:
        monitor: To be set as the build configuration's `progress_monitor`.
        steps: How many steps were reported.
    """

    def __init__(self, trt: Any, console: Console, title: str, cancelled: threading.Event) -> None:
        self.steps = 0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._title = title
        self._lock = threading.Lock()
        self._phases: dict[str, Any] = {}
        outer = self

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # known at run time only
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(
                self, phase_name: str, parent_phase: str | None, num_steps: int
            ) -> None:
                outer._start(phase_name, parent_phase, num_steps)  # its own part

            def step_complete(self, phase_name: str, step: int) -> bool:
                outer._step(phase_name, step)  # its own part
                return not cancelled.is_set()

            def phase_finish(self, phase_name: str) -> None:
                outer._finish(phase_name)  # its own part

        self.monitor = Monitor()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _start(self, phase: str, parent: str | None, steps: int) -> None:
        with self._lock:
            text = self._title if parent is None else f"  {phase}"
            self._phases[phase] = self._bar.add_task(text, total=max(steps, 1))

    def _step(self, phase: str, step: int) -> None:
        with self._lock:
            self.steps += 1
            if phase in self._phases:
                self._bar.update(self._phases[phase], completed=step + 1)

    def _finish(self, phase: str) -> None:
        with self._lock:
            task = self._phases.pop(phase, None)
            if task is not None:
                self._bar.remove_task(task)


@contextlib.contextmanager
def interrupt_deferred() -> Iterator[threading.Event]:
    """Turn Ctrl-C into an event while native code runs, and into KeyboardInterrupt after it.

    An exception raised inside a callback would unwind through the builder's C++ frames. SIGTERM
    and SIGHUP count as Ctrl-C. Python handles signals in its main thread only, so that must not be
    the one in which the native code runs.
    """
    cancelled = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield cancelled
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        cancelled.set()

    earlier = {number: signal.signal(number, note) for number in ending_signals()}
    try:
        yield cancelled
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    if cancelled.is_set():
        raise KeyboardInterrupt
