"""One writer an output: a lock file beside it, whose lock the kernel drops with its process."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import hashlib
import logging
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import OutputError, OutputLockedError, writing_output
from ..lifecycle import interrupts_deferred

LOCK_SUFFIX = ".motorvae-lock"
UNSUPPORTED = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK}
"""What a file system answers that has no such locks or renames, as some network mounts do."""
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}
_TRIES, _TRY_S = 20, 0.01
"""A lock may be held for a moment by who looks whether it is stale."""

log = logging.getLogger("motorvae")


@contextlib.contextmanager
def output_locked(path: Path) -> Iterator[None]:
    """Be the only motorVAE that writes `path` within the block, in this and all other processes.

    Its folder is made, and removed again where nothing came into it. A process that is killed
    leaves no lock, at most the file, which the next writer takes over or sweeps. Where the file
    system has no locks, one line says that nobody else may write there.

    Raises:
        OutputLockedError: Somebody writes it already; who, and since when, as far as that is known.
    """
    held: _Held | None = None
    try:
        with interrupts_deferred():
            held = _acquired(path.absolute())
        yield
    finally:
        if held is not None:
            with interrupts_deferred():
                held.release()


def lock_path(path: Path) -> Path:
    """Return the lock file of an output; a name that is too long for it is cut and hashed."""
    name = path.name
    if len(os.fsencode(name)) > 200:
        name = f"{name[:40]}.{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return path.with_name(f".{name}{LOCK_SUFFIX}")


def try_lock(handle: int) -> bool:
    """Whether the lock of an open file or folder was free, and is held now until it is closed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(handle: int, path: Path) -> bool:
    """Whether an open file still has this name: it may have been removed or replaced meanwhile."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def remove_stale_lock(file: Path) -> bool:
    """Remove a lock file of ours that nobody holds; return whether it was one."""
    with contextlib.suppress(OSError):
        handle = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(handle)
            ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
            if ours and _is_empty(handle) and try_lock(handle) and is_at(handle, file):
                file.unlink()
                return True
        finally:
            os.close(handle)
    return False


@dataclass
class _Held:
    """What `output_locked` gives back: a lock, unless there can be none, and folders it made."""

    made: list[Path]  # outermost first
    handle: int = -1
    file: Path = field(default_factory=Path)

    def release(self) -> None:
        if self.handle >= 0:
            with contextlib.suppress(OSError):
                # Before it is let go of: else it could be the file that another one holds by then.
                if is_at(self.handle, self.file) and _is_empty(self.handle):
                    self.file.unlink()
            os.close(self.handle)
        with contextlib.suppress(OSError):  # something is in it
            for folder in reversed(self.made):
                folder.rmdir()


def _acquired(path: Path) -> _Held:
    made: list[Path] = []
    if not path.name:  # the root folder, beside which nothing lies
        raise OutputError(f"cannot write {path}: name a file or folder in it")
    try:
        with writing_output(path):
            handle = _locked(path, made)
    except BaseException:
        _Held(made).release()
        raise
    return _Held(made, handle, lock_path(path))


def _locked(path: Path, made: list[Path]) -> int:
    """Return the open, locked lock file; -1 where there can be none."""
    file, holder = lock_path(path), "another process"
    vanished: FileNotFoundError | None = None
    for _ in range(_TRIES):
        try:
            missing = [one for one in (path.parent, *path.parent.parents) if not one.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            made[:0] = [one for one in reversed(missing) if one not in made]
            handle = _open(file)
        except FileNotFoundError as error:  # who made the folder removed it again
            vanished = error
            continue
        except OSError as error:
            is_folder_alone = os.access(path, os.W_OK) and not os.access(path.parent, os.W_OK)
            if error.errno not in _UNWRITABLE or not is_folder_alone:
                raise
            return _unlocked(path, error)
        vanished = None
        try:
            if try_lock(handle):
                if is_at(handle, file):
                    os.utime(handle)  # since when it is held
                    return handle
            else:
                holder = _holder(handle)
                time.sleep(_TRY_S)
        except OSError as error:
            if _is_empty(handle):
                file.unlink(missing_ok=True)
            os.close(handle)
            if error.errno in UNSUPPORTED:
                return _unlocked(path, error)
            raise
        os.close(handle)
    if vanished is not None:  # a place where no file can be made, such as /proc
        raise vanished
    raise OutputLockedError(
        f"{path} is being written by {holder}: wait until that ends, or name another output"
    )


def _unlocked(path: Path, error: OSError) -> int:
    log.warning(
        "%s is not locked (%s): let nothing else write it meanwhile", path, error.strerror or error
    )
    return -1


def _open(file: Path) -> int:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError as refused:
        try:  # another user's, whose lock can be asked for all the same
            handle = os.open(file, os.O_RDONLY | flags)
        except FileNotFoundError:  # there is none, and none can be made
            raise refused from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OutputError(f"{file} is in the way of a lock file: move it away")
    return handle


def _is_empty(handle: int) -> bool:
    """Whether it can be one of ours, which take no room on a disk that may be full."""
    return os.fstat(handle).st_size == 0


def _holder(handle: int) -> str:
    """Return who holds a lock, as the kernel knows it, and since when."""
    status = os.fstat(handle)
    since = dt.datetime.fromtimestamp(status.st_mtime).astimezone()
    text = f"since {since.isoformat(sep=' ', timespec='seconds')}"
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    with contextlib.suppress(OSError):
        # https://man7.org/linux/man-pages/man5/proc_locks.5.html
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        found = [line.split()[-4:-2] for line in lines if " FLOCK " in line and "->" not in line]
        places = [(pid, place) for pid, place in found if place.endswith(f":{status.st_ino}")]
        same = [pid for pid, place in places if place == f"{device}:{status.st_ino}"]
        # btrfs and overlays tell programs another device than the kernel uses.
        pids = {*same} or {pid for pid, _ in places}
        if len(pids) == 1 and (pid := pids.pop()).isdigit() and pid != "0":
            return f"process {pid} {text}"
    return f"another process {text}"
