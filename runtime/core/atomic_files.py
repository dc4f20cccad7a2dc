"""Files that are either whole or absent: atomic replacement, hashes, rotation, the cache."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError, writing_output
from .system.renames import exchange, rename_new
from .system.temporaries import OLD, temporary_beside


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Give a temporary path for a file; when the block succeeds, it takes `path`'s place.

    The bytes are on disk before the rename. When the block fails, nothing is left behind and
    an earlier `path` is untouched. Its folder must be there: one that was deleted while its files
    were written is not made again. What cannot be written is an OutputError.
    """
    with writing_output(path), temporary_beside(path) as temporary:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder; when the block succeeds, it takes `path`'s place.

    An earlier folder stays whole and in place until the new one is complete on disk; on Linux
    the two are swapped in one step. When the block fails, nothing is left behind. Whoever holds
    the earlier folder itself, as a bind mount of it does, sees it empty afterwards. A `path` that
    is no folder, or cannot be written, is an OutputError.
    """
    path = path.resolve()  # a link stays a link, and what it points at is replaced
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} exists and is not a folder: choose another place")
    with writing_output(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(path) as temporary:
            temporary.mkdir()
            yield temporary
            for file in temporary.rglob("*"):
                _sync(file)
            if path.exists():
                # What is left in the temporary place is the earlier folder.
                exchange(temporary, path, path.with_name(f".{path.name}{OLD}"))
            else:
                temporary.rename(path)
            _sync(path.parent)


def put_new(temporary: Path, path: Path) -> Path | None:
    """Give a finished file or folder its name; what has that name, or gets it meanwhile, is kept.

    Returns where an earlier one is kept, as of `set_aside`, or None.
    """
    kept = None
    with writing_output(path):
        for one in (*temporary.rglob("*"), temporary) if temporary.is_dir() else (temporary,):
            _sync(one)
        while not _renamed(temporary, path):
            kept = set_aside(path) or kept
        _sync(path.parent)
    return kept


def set_aside(path: Path, *, or_folder: bool = False) -> Path | None:
    """Rename an existing file to the first free `name.N.suffix`, so that nothing is overwritten.

    Returns the new name, or None where there was nothing. OutputError where it cannot be renamed,
    or something else is there, which a folder is unless `or_folder`.
    """
    _check_kind(path, or_folder=or_folder)
    with writing_output(path):
        for name in (path.with_name(f"{path.stem}.{n}{path.suffix}") for n in itertools.count(1)):
            if not path.exists():
                return None
            with contextlib.suppress(FileNotFoundError):  # somebody else took it away
                if not os.path.lexists(name) and _renamed(path, name):
                    return name
    return None


def check_writable(path: Path, *, or_folder: bool = False) -> None:
    """Make sure that a file can be put at `path`, before work is spent on it.

    OutputError where the nearest existing folder cannot be written, or something else is in the
    way, which a folder at `path` itself is unless `or_folder`.
    """
    _check_kind(path, or_folder=or_folder)
    with writing_output(path):
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        tempfile.TemporaryFile(dir=folder).close()


def cache_dir() -> Path:
    """Return motorVAE's folder for files that only save time; it need not exist yet.

    `XDG_CACHE_HOME` moves it, as the XDG base directory specification says; a relative one is
    ignored, as that says too.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "motorvae"


def _check_kind(path: Path, *, or_folder: bool) -> None:
    try:
        mode = path.stat().st_mode  # asked once: it may be renamed meanwhile
    except OSError:
        return
    if not stat.S_ISREG(mode) and not (or_folder and stat.S_ISDIR(mode)):
        raise OutputError(f"{path} exists and is not a file: name another output")


def _renamed(source: Path, target: Path) -> bool:
    try:
        rename_new(source, target)
    except FileExistsError:
        return False
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
