"""Hidden folders in which outputs are made: swept once their process is gone."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..lifecycle import interrupts_deferred
from .locks import LOCK_SUFFIX, UNSUPPORTED, is_at, log, remove_stale_lock, try_lock
from .renames import rename_new

_MARK = ".motorvae-"
_NAME = re.compile(rf"\.(.+){re.escape(_MARK)}[a-z0-9_]{{8}}", re.DOTALL)
_SHOWN = 40
OLD = f"{_MARK}old"
"""Ends the name of an earlier folder that is moved away for a moment; see `renames.exchange`."""


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Give a path for what is to become `path`, in a hidden folder beside it, `.NAME.motorvae-*`.

    It bears the same name there, and what makes it gives it the permissions of any new file. The
    folder is gone after the block. One whose process was killed is removed by the next call for
    the same folder: the kernel has dropped its lock by then. What is not ours is never touched.
    """
    sweep(path.parent)
    place, handle = None, -1
    try:
        with interrupts_deferred():
            place, handle = _new_place(path)
        yield place / path.name
    finally:
        if place is not None:
            with interrupts_deferred():
                shutil.rmtree(place, ignore_errors=True)
                os.close(handle)


def is_temporary(name: str) -> bool:
    """Whether a name is one that only temporary folders and lock files of ours have."""
    # Of an output that has a name: ".motorvae-old" is somebody else's.
    found = re.fullmatch(rf"\.(.+)(?:{re.escape(LOCK_SUFFIX)}|{re.escape(OLD)})", name, re.DOTALL)
    is_beside = found is not None and found[1] not in {".", ".."}
    return is_beside or _NAME.fullmatch(name) is not None


def without_temporaries(_folder: str, names: list[str]) -> list[str]:
    """Return the names that `shutil.copytree` is to ignore."""
    return [name for name in names if is_temporary(name)]


def sweep(folder: Path) -> int:
    """Remove what killed processes left in a folder, say so in a line, and return how many."""
    with contextlib.suppress(OSError):  # it may be unreadable, and only be written
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if is_temporary(entry.name)]
        count = sum(_removed(folder / name) for name in names)
        if count:
            what = "file or folder" if count == 1 else "files and folders"
            log.warning("removed %d temporary %s of killed processes in %s", count, what, folder)
        return count
    return 0


def _new_place(path: Path) -> tuple[Path, int]:
    """Make a hidden folder and hold its lock, so that nobody sweeps it."""
    while True:
        prefix = f".{path.name[:_SHOWN]}{_MARK}"
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
        try:
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # swept before it was locked
            continue
        except OSError:  # no more files may be open
            place.rmdir()
            raise
        try:
            is_held = try_lock(handle) and is_at(handle, place)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                place.rmdir()
                os.close(handle)
                raise
            is_held = True  # where nobody can lock, nobody sweeps
        if is_held:
            return place, handle
        os.close(handle)


def _removed(path: Path) -> bool:
    if path.name.endswith(LOCK_SUFFIX):
        return remove_stale_lock(path)
    if path.name.endswith(OLD):
        return _put_back(path)
    if not (found := _NAME.fullmatch(path.name)):
        return False
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            # A folder of ours holds nothing but what was to get that name.
            if (
                os.fstat(handle).st_uid == os.geteuid()
                and all(one.name[:_SHOWN] == found[1] for one in path.iterdir())
                and try_lock(handle)
                and is_at(handle, path)
            ):
                shutil.rmtree(path)
                return True
        finally:
            os.close(handle)
    return False


def _put_back(old: Path) -> bool:
    """Give an earlier folder its name again, or remove it where a newer one has that by now."""
    path = old.with_name(old.name[1 : -len(OLD)])
    with contextlib.suppress(OSError):
        status = old.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return False
        try:
            rename_new(old, path)
        except FileExistsError:
            shutil.rmtree(old)
        return True
    return False
