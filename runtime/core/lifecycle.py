"""How things end: `with` blocks that close, signals that end a process, and its exit code."""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, TextIO, cast

from typing_extensions import Self

from .errors import MotorVAEError, OutputError
from .text import printable

INTERRUPTED = 130
_NO_MEMORY = re.compile("failed to map segment|annot allocate memory")
SAME_SIGNAL_S = 0.1
"""A signal within this time of one that was acted on is the same one, sent again."""


class Closing(abc.ABC):
    """Something that holds a device, a file or an engine until it is closed."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release what is held; calling it again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class LastingStderr:
    """Standard error on which printing never fails: what a closed terminal refuses is dropped.

    Progress that nobody can see any more must not end the work that it is about.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write as far as that is possible."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush as far as that is possible."""
        self._try(self._stream.flush)

    def _try(self, function: Callable[..., object], *args: str) -> None:
        try:
            function(*args)
        except BlockingIOError:  # full for the moment, and may be read again
            pass
        except OSError:
            with contextlib.suppress(OSError):
                _discard_output(self._stream)


def _discard_output(stream: TextIO) -> None:
    """Lead a stream to nowhere: its buffer would fail once more as Python exits, with code 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
def interrupts_deferred() -> Iterator[Sequence[int]]:
    """Act on Ctrl-C, SIGTERM and SIGHUP only after the block; yield those that came meanwhile.

    The block must be short, or look at them.
    """
    received: list[int] = []
    numbers = [one for one in ending_signals() if signal.getsignal(one) != signal.SIG_IGN]
    try:
        with signals_handled_by(lambda number, _: received.append(number), numbers):
            yield received
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
def loading() -> Iterator[None]:
    """Let a command end at once, in one line, while it loads packages and holds nothing yet.

    A KeyboardInterrupt amid an import may surface as any other error, or end in native code. What
    is no command, such as a program that uses the package, is left alone.
    """
    prog = _commands[-1] if _commands else ""

    def end(_number: int, _frame: FrameType | None) -> None:
        showing = b"\x1b[?25h" if sys.stderr.isatty() else b""  # a spinner hides the cursor
        with contextlib.suppress(OSError):
            os.write(2, showing + f"{prog}: interrupted\n".encode())
        os._exit(INTERRUPTED)

    numbers = [one for one in ending_signals() if signal.getsignal(one) in {_interrupt, _terminate}]
    with signals_handled_by(end, numbers if prog else []):
        yield


_commands: list[str] = []  # that run, outermost first
_interrupted: list[float] = []  # when, of those that were acted on
DEFAULT_HANDLERS: set[object] = {signal.default_int_handler}
"""Handlers of SIGINT that a command replaces: any other is a program's, or ignores it."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _unwind(KeyboardInterrupt)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    _unwind(Terminated)


def _unwind(error: type[KeyboardInterrupt]) -> None:
    now_s = time.monotonic()
    # One that follows at once would break off what cleans up after the one before it.
    if not _interrupted or now_s - _interrupted[-1] > SAME_SIGNAL_S:
        _interrupted.append(now_s)
        raise error


@contextlib.contextmanager
def _interrupts_noted(prog: str) -> Iterator[None]:
    """Unwind on a signal; what it broke in the midst, such as an import, is no error of its own."""
    if not _commands:
        _interrupted.clear()
    _commands.append(prog)
    is_default = signal.getsignal(signal.SIGINT) in DEFAULT_HANDLERS
    try:
        with (
            signals_handled_by(_interrupt, [signal.SIGINT] if is_default else []),
            signals_handled_by(_terminate, ending_signals()[1:]),
        ):
            yield
    except Exception as error:
        # Ours say what could not be cleaned up; an ImportError is what the signal has made of it.
        is_own = isinstance(error, MotorVAEError) and not isinstance(error, ImportError)
        if _interrupted and not is_own:
            raise KeyboardInterrupt from error
        raise
    finally:
        _commands.pop()


def exit_code_of(
    prog: str,
    body: Callable[[], int | None],
    worded: Callable[[str], str] = str,
    *,
    failed: int = 1,
) -> int:
    """Run what a command does, and end in one line for whatever a user can cause.

    SIGTERM and SIGHUP unwind as Ctrl-C does, so that nothing half-written stays. The code is what
    `body` returns, where None counts as 0; the error's own after a `MotorVAEError` that has one,
    130 after an interrupt, and `failed` after every other error, or where nobody reads standard
    output any more. `worded` puts an error's text into the command's words.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: no file that is opened later may take its place
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115, PTH123
    earlier, sys.stderr = sys.stderr, cast("TextIO", LastingStderr(sys.stderr))
    try:
        return _code_of_body(prog, body)
    except BrokenPipeError:  # whoever read the help or a table has closed it
        return failed
    except MotorVAEError as error:
        sys.stderr.write(f"{prog}: {printable(' '.join(worded(str(error)).split()))}\n")
        return failed if error.exit_code == 1 else error.exit_code
    except OSError as error:
        sys.stderr.write(f"{prog}: {printable(_sentence(error))}\n")
        return failed
    except Exception as error:
        no_memory = isinstance(error, ImportError) and _NO_MEMORY.search(str(error))
        if isinstance(error, MemoryError) or no_memory:
            sys.stderr.write(
                f"{prog}: there is not enough memory: free some, or allow more (ulimit -v)\n"
            )
        elif failed == 1:  # as Python ends then
            raise
        else:
            traceback.print_exc()
        return failed
    except KeyboardInterrupt:
        sys.stderr.write(f"{prog}: interrupted\n")
        return INTERRUPTED
    finally:
        sys.stderr = earlier


def _code_of_body(prog: str, body: Callable[[], int | None]) -> int:
    with _interrupts_noted(prog):
        try:
            code = body() or 0
        except SystemExit:  # the parser's, after its help
            _flush_stdout()
            raise
        except BaseException:  # what ended the body counts, not that nobody reads its output
            with contextlib.suppress(BrokenPipeError, OutputError):
                _flush_stdout()
            raise
        _flush_stdout()
        return code


def _sentence(error: OSError) -> str:
    """Return what the system refuses and nobody foresaw, such as a file name that is too long."""
    reason = error.strerror or str(error)
    if error.filename is None and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"cannot write: {reason}; make room where the output goes"
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{reason}; check that path and its permissions"


def _flush_stdout() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        _discard_output(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputError(f"cannot write standard output: {error.strerror}") from error
