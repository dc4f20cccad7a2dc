"""Steps of a command: named while they last, or run as a process that ends with the command."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from rich.console import Console

from ..runtime.core.lifecycle import interrupts_deferred, signals_handled_by

LINE_EVERY_S = 4.0

_FOREVER_S = 1e9
"""Waiting with a limit looks for signals again and again: one that comes just before the system's
own wait begins would not be heard before the process ends."""


@contextlib.contextmanager
def steps_shown(console: Console, step: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done while the block runs; yield what takes the next step.

    Elsewhere than on a terminal a step that lasts has a line every few seconds.
    """
    if console.is_terminal:
        with console.status(step) as status:
            yield status.update
        return
    done = threading.Event()

    def show_next(text: str) -> None:
        nonlocal step
        step = text

    def print_lines() -> None:
        while not done.wait(LINE_EVERY_S):
            console.print(f"{step} ...")

    printer = threading.Thread(target=print_lines, daemon=True)
    printer.start()
    try:
        yield show_next
    finally:
        done.set()
        printer.join()


def run_process(
    command: Sequence[str],
    *,
    grace_s: float | None = None,
) -> int:
    r"""Run a command to its end and return its exit code; end it where this process is interrupted.

    It gets a session of its own. So Ctrl-C in a terminal reaches it once and from here, just as a
    signal that was sent to this process alone; Ctrl-Z and Ctrl-\ are passed on. It may take
    `grace_s` to end before it is killed, by default as long as it takes: then the third Ctrl-C
    kills it, as the second may find it where it must not be interrupted.
    """
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
        elif number == signal.SIGTSTP:
            process.send_signal(signal.SIGSTOP)
            signal.raise_signal(signal.SIGSTOP)
            # Goes on here once the shell continues this process.
            process.send_signal(signal.SIGCONT)
        else:
            process.send_signal(number)
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    try:
        with signals_handled_by(pass_on, [signal.SIGTSTP, signal.SIGQUIT]):
            with interrupts_deferred():
                process = subprocess.Popen(command, start_new_session=True)
            for number in early:
                signal.raise_signal(number)
            return process.wait(_FOREVER_S)
    except KeyboardInterrupt:
        if process is not None:
            # If it came just as `wait` or `poll` had taken Popen's lock, that is never released.
            setattr(process, "_waitpid_lock", threading.Lock())  # noqa: B010  # none of ours
            process.terminate()
            process.send_signal(signal.SIGCONT)  # or one that Ctrl-Z has stopped would stay
            for _ in range(2):
                with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                    process.wait(_FOREVER_S if grace_s is None else grace_s)
                    break
            process.kill()  # does nothing to one that has ended
            process.wait()
        raise
