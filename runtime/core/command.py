"""What every command shares: options from a frozen dataclass, errors as one line, exit codes."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TypeVar

import tyro
from rich.console import Console

from .errors import MotorVAEError

Options = TypeVar("Options")

INTERRUPTED = 130


class Terminated(KeyboardInterrupt):
    """SIGTERM, which unlike Ctrl-C in a terminal has reached this process alone."""


def stderr_console() -> Console:
    """Return a console for progress, tables and notes; standard output is kept for data."""
    # What is printed holds file names, in which [x] and :x: mean nothing.
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_remarks(console: Console, subject: Path, remarks: Sequence[str]) -> None:
    """Say what a bundle's manifest wants whoever uses the bundle to know, a line each."""
    for remark in remarks:
        console.print(f"warning: {subject}: {remark}")


def run_command(
    options: type[Options],
    body: Callable[[Options], int | None],
    *,
    prog: str,
    description: str,
    args: Sequence[str] | None = None,
) -> int:
    """Parse a command line into `options`, run `body`, and return the exit code.

    Returns:
        What `body` returns (None counts as 0); 1 after any `MotorVAEError` or `OSError`, whose
        message becomes one line on standard error; 130 after Ctrl-C or SIGTERM. The parser exits
        with 2 by itself.
    """
    with _terminated_as_interrupted():
        return _run(options, body, prog=prog, description=description, args=args)


def _run(
    options: type[Options],
    body: Callable[[Options], int | None],
    *,
    prog: str,
    description: str,
    args: Sequence[str] | None,
) -> int:
    try:
        parsed = tyro.cli(
            options,
            args=args,
            prog=prog,
            description=description,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        return body(parsed) or 0
    except MotorVAEError as error:
        sys.stderr.write(f"{prog}: {' '.join(str(error).split())}\n")
        return 1
    except OSError as error:
        # What the system refuses and nobody foresaw, such as a file name that is too long.
        name = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        sys.stderr.write(f"{prog}: {name}{reason}; check that path and its permissions\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{prog}: interrupted\n")
        return INTERRUPTED


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that nothing half-written stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
