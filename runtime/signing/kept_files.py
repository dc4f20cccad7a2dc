"""Small files in this user's configuration folder that only this user can have written."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import OutputError, SigningError, next_command

_MOST_BYTES = 1 << 14
_OTHERS, _OTHERS_WRITE = 0o077, 0o022
_OWN = "run this as that user, or set XDG_CONFIG_HOME to a folder of your own"


def config_dir() -> Path:
    """Return motorVAE's folder for keys; it need not exist yet.

    `XDG_CONFIG_HOME` moves it, as the XDG base directory specification says; a relative one is
    ignored, as that says too: the working directory must not decide who is trusted.
    """
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if not base.is_absolute():
        with contextlib.suppress(RuntimeError):  # a user without a home folder
            base = Path.home() / ".config"
        if not base.is_absolute():  # HOME is relative
            raise SigningError(
                "this user has no home folder to keep keys in: set XDG_CONFIG_HOME to a folder"
            )
    return base / "motorvae"


def names_in(folder: Path) -> list[str]:
    """Return the names of what lies in a folder of keys, in order; none where there is no folder.

    A SigningError where others could have put it there.
    """
    with _opened_folder(folder) as handle:
        names = [] if handle is None else os.listdir(handle)  # noqa: PTH208  # of an open folder
    return sorted(name for name in names if not name.startswith("."))


def read_kept(path: Path, *, is_secret: bool, is_ours: bool = True) -> bytes | None:
    """Return what a file of this user's holds, or None where there is none.

    A SigningError, which names what to do, where it is a link, no plain file or too large, where
    it belongs to another user, or where other users can write it, or read it if `is_secret`. One
    that is not `is_ours`, but was named by the user, may lie in any folder.
    """
    with _opened_folder(path.parent) if is_ours else contextlib.nullcontext() as folder:
        if is_ours and folder is None:
            return None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            handle = os.open(path.name if is_ours else path, flags, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            what = "is a link" if path.is_symlink() else f"cannot be read ({error.strerror})"
            raise _refused(path, what, _aside(path)) from error
        try:
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode):
                raise _refused(path, "is no plain file", _aside(path))
            if facts.st_uid != os.geteuid():
                raise _refused(path, "belongs to another user", _OWN)
            mode = stat.S_IMODE(facts.st_mode)
            if mode & (_OTHERS if is_secret else _OTHERS_WRITE):
                what = "read" if is_secret else "write"
                fix = next_command("chmod", "600", path)
                raise _refused(path, f"has mode {mode:04o}, so that others may {what} it", fix)
            content = os.read(handle, _MOST_BYTES + 1)
        finally:
            os.close(handle)
    if len(content) > _MOST_BYTES:
        raise _refused(path, f"has more than {_MOST_BYTES} bytes", _aside(path))
    return content


def keep(path: Path, content: bytes) -> bool:
    """Write a file of mode 0600 that was not there, whole or not at all, in a folder of mode 0700.

    Returns whether this call wrote it: another process may have been first, and is not overwritten.
    An OutputError where it cannot be written.
    """
    try:
        folders = [path.parent]
        if path.parent != config_dir():
            folders.insert(0, path.parent.parent)
        folders[0].parent.mkdir(parents=True, exist_ok=True)
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)
            with _opened_folder(folder):
                pass
        handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)  # of mode 0600
        try:
            with open(handle, "wb") as file:  # noqa: PTH123  # an open descriptor
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(name, path)  # fails where there is one
        finally:
            os.unlink(name)  # noqa: PTH108  # as mkstemp named it
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; make room there, or set XDG_CONFIG_HOME to a "
            "folder that can be written"
        ) from error
    return True


@contextlib.contextmanager
def _opened_folder(folder: Path) -> Iterator[int | None]:
    """Open a folder that no other user can have changed; None where there is none."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(folder, flags)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        what = "is a link" if folder.is_symlink() else f"is no folder to read ({error.strerror})"
        raise _refused(folder, what, _aside(folder)) from error
    try:
        facts = os.fstat(handle)
        if facts.st_uid != os.geteuid():
            raise _refused(folder, "belongs to another user", _OWN)
        if facts.st_mode & _OTHERS_WRITE:
            mode = stat.S_IMODE(facts.st_mode)
            what = f"has mode {mode:04o}, so that others may write it"
            raise _refused(folder, what, next_command("chmod", "700", folder))
        yield handle
    finally:
        os.close(handle)


def _refused(path: Path, what: str, fix: str) -> SigningError:
    return SigningError(f"{path} {what}", fix=fix)


def _aside(path: Path) -> str:
    return next_command("mv", path, path.with_name(f"{path.name}.old"))
