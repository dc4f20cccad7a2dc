"""Steps of a command: named while they last, or run as a process that ends with the command."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import Console

from ..runtime.core.lifecycle import interrupts_deferred

LINE_EVERY_S = 4.0


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
    environment: Mapping[str, str] | None = None,
    grace_s: float | None = None,
) -> int:
    """Run a command to its end and return its exit code; end it where this process is interrupted.

    It gets a session of its own. So Ctrl-C in a terminal reaches it once and from here, just as a
    signal that was sent to this process alone. It may take `grace_s` to end before it is killed, by
    default as long as it takes.
    """
    process = None
    try:
        with interrupts_deferred():
            process = subprocess.Popen(command, env=environment, start_new_session=True)
        return process.wait()
    except KeyboardInterrupt:
        if process is not None:
            process.terminate()
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(grace_s)
            finally:
                process.kill()  # does nothing to one that has ended
                process.wait()
        raise
