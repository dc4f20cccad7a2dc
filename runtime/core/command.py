"""What every command shares: options from a frozen dataclass, errors as one line, exit codes."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import TypeVar

import tyro
from rich.console import Console

from .errors import ConfigError, MotorVAEError
from .packages import own_version

Options = TypeVar("Options")

MISUSED = 2
INTERRUPTED = 130
SAME_SIGNAL_S = 0.1
"""A second signal within this time of the first is the same one, sent twice."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which unlike Ctrl-C in a terminal may have reached this process alone."""


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
    positional: Sequence[str] = (),
    hints: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Parse a command line into `options`, run `body`, and return the exit code.

    Args:
        options: A frozen dataclass.
        body: Takes it once it is parsed.
        prog: The command's name.
        description: The first line of its help.
        args: The command line; by default that of this process.
        positional: Option names, each with one value, that mean the positional argument, too.
        hints: What is said of an option that other programs have: the name that it has here.

    Returns:
        What `body` returns (None counts as 0); 1 after any `MotorVAEError` or `OSError`, whose
        message becomes one line on standard error; 130 after Ctrl-C, SIGTERM or SIGHUP. The parser
        exits with 2 by itself.
    """
    # All but Ctrl-C, which Python handles: let them unwind as it does, so that nothing half-written
    # stays.
    with _handled_by(_interrupt, ending_signals()[1:]):
        given = list(sys.argv[1:] if args is None else args)
        if "--version" in given:
            sys.stdout.write(f"{prog} {own_version()}\n")
            return 0
        for name in given:
            if hint := hints.get(name.partition("=")[0]):
                return _misused(f"{prog}: {name}: {hint}")
        try:
            given = positional_from_options(given, positional)
        except ConfigError as error:
            return _misused(f"{prog}: {error}")
        return _run(options, body, prog=prog, description=description, args=given)


def positional_from_options(args: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a command line in which the values of some options are positional arguments.

    Raises:
        ConfigError: One of them has no value.
    """
    values: list[str] = []
    others: list[str] = []
    left = list(args)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name not in names:
            others.append(word)
        elif equals:
            values.append(value)
        elif left:
            values.append(left.pop(0))
        else:
            raise ConfigError(f"{name}: give it a value")
    return values + others


def _misused(line: str) -> int:
    sys.stderr.write(f"{line}\n")
    return MISUSED


def _run(
    options: type[Options],
    body: Callable[[Options], int | None],
    *,
    prog: str,
    description: str,
    args: Sequence[str],
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


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a process to end: SIGHUP is left alone where nohup ignores it."""
    hung_up = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hung_up else []))


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

    with _handled_by(handle, ending_signals()):
        yield


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


@contextlib.contextmanager
def _handled_by(
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
