"""Files that are either whole or absent: atomic replacement, hashes, rotation."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from .errors import MotorVAEError, OutputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block succeeds, it takes `path`'s place.

    The bytes are on disk before the rename. When the block fails, nothing is left behind and
    an earlier `path` is untouched.

    Raises:
        OutputError: The folder cannot be made or written.
    """
    with _as_output_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
    temporary = Path(name)
    try:
        with _as_output_error(path):
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; when the block succeeds, it takes `path`'s place.

    An earlier folder stays whole and in place until the new one is complete on disk; on Linux
    the two are swapped in one step. When the block fails, nothing is left behind.

    Raises:
        OutputError: The parent cannot be made or written, or `path` is not a folder.
    """
    path = path.resolve()  # a link stays a link, and what it points at is replaced
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} exists and is not a folder: choose another place")
    temporary: Path | None = None
    try:
        with _as_output_error(path):
            with interrupts_deferred():
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}-", dir=path.parent))
            yield temporary
            for file in temporary.rglob("*"):
                _sync(file)
            temporary.chmod(0o777 & ~_umask())
            if path.exists():
                _exchange(temporary, path)
            else:
                temporary.rename(path)
            _sync(path.parent)
    finally:
        if temporary is not None:
            with interrupts_deferred():
                # After an exchange this is the earlier folder.
                shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Hear Ctrl-C, SIGTERM and SIGHUP only after the block, which must be short and be whole."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    earlier = {number: signal.signal(number, lambda n, _: heard.append(n)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        if heard:
            signal.raise_signal(heard[0])


def set_aside(path: Path, *, or_folder: bool = False) -> Path | None:
    """Rename an existing file to the first free `name.N.suffix`, so that nothing is overwritten.

    Args:
        path: What is in the way, if anything is.
        or_folder: A folder of that name is renamed too.

    Returns:
        The new name, or None where there was nothing.

    Raises:
        OutputError: It cannot be renamed, or something else is there.
    """
    if not path.exists():
        return None
    check_replaceable_file(path, or_folder=or_folder)
    with _as_output_error(path):
        for number in range(1, sys.maxsize):
            kept = path.with_name(f"{path.stem}.{number}{path.suffix}")
            if not kept.exists():
                path.rename(kept)
                return kept
    raise AssertionError("unreachable: there is always a free number")


def check_replaceable_file(path: Path, *, or_folder: bool = False) -> None:
    """Refuse to put a file where something else is.

    Raises:
        OutputError: A device is at `path`, or a folder and that is not allowed.
    """
    if path.exists() and not path.is_file() and not (or_folder and path.is_dir()):
        raise OutputError(f"{path} exists and is not a file: name another output")


def check_writable(path: Path) -> None:
    """Make sure that something can be created at `path`, before work is spent on it.

    Raises:
        OutputError: The nearest existing folder cannot be written, or a file is in the way.
    """
    with _as_output_error(path):
        folder = path.parent
        while not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass


def _sync(path: Path) -> None:
    """Ask the system to put a file or folder on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders: in one step where the kernel can, else in two with a way back."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is not None:
        done = renameat2(
            _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
        )
        if done == 0:
            return
    aside = one.with_name(one.name + "-previous")
    other.rename(aside)
    try:
        one.rename(other)
    except OSError:
        aside.rename(other)
        raise
    aside.rename(one)


@contextlib.contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except MotorVAEError:
        raise  # some of ours are OSErrors too, and already say what is wrong
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; "
            "choose another place or make room there"
        ) from error
