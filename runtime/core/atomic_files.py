"""Files that are either whole or absent: atomic replacement, hashes, rotation, the cache."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import MotorVAEError, OutputError
from .lifecycle import interrupts_deferred

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
    an earlier `path` is untouched. What cannot be written is an OutputError.
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
    the two are swapped in one step. When the block fails, nothing is left behind. A `path` that
    is no folder, or cannot be written, is an OutputError.
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


def set_aside(path: Path, *, or_folder: bool = False) -> Path | None:
    """Rename an existing file to the first free `name.N.suffix`, so that nothing is overwritten.

    Returns the new name, or None where there was nothing. OutputError where it cannot be renamed,
    or something else is there, which a folder is unless `or_folder`.
    """
    _check_kind(path, or_folder=or_folder)
    with _as_output_error(path):
        if not path.exists():
            return None
        names = (path.with_name(f"{path.stem}.{n}{path.suffix}") for n in itertools.count(1))
        return path.rename(next(name for name in names if not name.exists()))


def check_writable(path: Path, *, or_folder: bool = False) -> None:
    """Make sure that a file can be put at `path`, before work is spent on it.

    OutputError where the nearest existing folder cannot be written, or something else is in the
    way, which a folder at `path` itself is unless `or_folder`.
    """
    _check_kind(path, or_folder=or_folder)
    with _as_output_error(path):
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        tempfile.TemporaryFile(dir=folder).close()


def cache_dir() -> Path:
    """Return motorVAE's folder for files that only save time; it need not exist yet.

    `XDG_CACHE_HOME` moves it, as the XDG base directory specification says.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "motorvae"


def _check_kind(path: Path, *, or_folder: bool) -> None:
    if path.exists() and not path.is_file() and not (or_folder and path.is_dir()):
        raise OutputError(f"{path} exists and is not a file: name another output")


def _sync(path: Path) -> None:
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
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", lambda *_: -1)
    names = os.fsencode(one), os.fsencode(other)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
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
