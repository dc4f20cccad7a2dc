"""Renames that overwrite nothing, and folders swapped in one step."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from .locks import UNSUPPORTED

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2


def rename_new(source: Path, target: Path) -> None:
    """Rename a file or folder to a name that is free; FileExistsError where it is not."""
    if _renameat2(source, target, _NOREPLACE):
        return
    # A file system without this call, such as NFS. Another name for a file overwrites nothing
    # either; where there are none, as on FAT, and for folders, the name is reserved first, and only
    # that empty file or folder is replaced.
    if source.is_symlink() or not source.is_dir():
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            source.replace(target)
        else:
            source.unlink()
    else:
        target.mkdir()
        source.rename(target)


def exchange(one: Path, other: Path, aside: Path) -> None:
    """Swap two folders: in one step where the kernel can, else in two, by way of `aside`."""
    if _renameat2(one, other, _EXCHANGE):
        return
    other.rename(aside)
    try:
        one.rename(other)
    except OSError:
        aside.rename(other)
        raise
    aside.rename(one)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    """Rename; return False where the C library or the file system has no such call."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(source), None, str(target))
