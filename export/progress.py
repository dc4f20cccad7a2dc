"""What a command is doing: a spinner on a terminal, and elsewhere a line every few seconds."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from rich.console import Console

LINE_EVERY_S = 4.0


@contextlib.contextmanager
def steps_shown(console: Console, step: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done while the block runs; yield what takes the next step."""
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
