"""Reading small files of a system below a root: whatever lies there, an answer and no exception."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from ...core.system.small_files import MOST_BYTES, bytes_of_small_file

MOST_ENTRIES = 4096
_MOST_LINKS = 8
_LONGEST_NUMBER = 20  # digits; a 64-bit number has no more
_REASONS = {
    errno.ENOENT: "absent",
    errno.ENOTDIR: "absent",
    errno.EACCES: "not readable as this user",
    errno.EPERM: "not readable as this user",
    errno.EAGAIN: "it does not answer",  # a sensor that is powered off
    errno.ELOOP: "a link to itself",
}


@dataclass(frozen=True, slots=True)
class Unread:
    """Why a file could not be read, as a clause."""

    reason: str

    @property
    def forbidden(self) -> bool:
        """Whether another user may read it."""
        return self.reason == _REASONS[errno.EACCES]


class Tree:
    """Files below a root, by their absolute names on the machine that they describe.

    The root is `/` on a board and a folder with a recorded tree in tests. Links with absolute
    targets stay below it. Nothing that is read is larger than asked for, and nothing but a regular
    file is opened, so that no pipe or device is waited for.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def read(self, name: str, most: int = MOST_BYTES) -> str | Unread:
        """Return a file's text of at most so many bytes, without white space and NUL around it."""
        try:
            data = bytes_of_small_file(self._resolved(name), most + 1)
        except (OSError, ValueError) as error:
            return _unread(error)
        if data is None:
            return Unread("no regular file")
        if len(data) > most:
            return Unread(f"larger than {most >> 10} KiB")
        try:
            return data.decode("utf-8").strip("\0 \t\r\n")
        except UnicodeDecodeError:
            return Unread("no UTF-8 text")

    def number(self, name: str) -> int | Unread:
        """Return the whole number that a file holds."""
        text = self.read(name)
        if isinstance(text, Unread):
            return text
        if len(text) > _LONGEST_NUMBER or not re.fullmatch(r"-?[0-9]+", text):
            return Unread("no number")
        return int(text)

    def names(self, folder: str, pattern: str) -> tuple[str, ...]:
        """Return the names in a folder that match all of a pattern, `cpu10` after `cpu2`.

        A folder that cannot be read has none.
        """
        found = []
        try:
            with os.scandir(self._resolved(folder)) as entries:
                for count, entry in enumerate(entries):
                    if count >= MOST_ENTRIES:
                        break
                    if re.fullmatch(pattern, entry.name):
                        found.append(entry.name)
        except (OSError, ValueError):
            return ()
        return tuple(sorted(found, key=_natural))

    def has(self, name: str) -> bool:
        """Return whether there is anything of this name."""
        try:
            self._resolved(name).stat()
        except (OSError, ValueError):
            return False
        return True

    def is_socket(self, name: str) -> bool:
        """Return whether a program may be listening there."""
        try:
            return stat.S_ISSOCK(self._resolved(name).stat().st_mode)
        except (OSError, ValueError):
            return False

    def target(self, name: str) -> str:
        """Return the name that a link leads to, or the name itself where it is none."""
        try:
            return f"/{self._resolved(name).relative_to(self._root)}"
        except (OSError, ValueError):
            return name

    def _resolved(self, name: str) -> Path:
        """Return the path of a name; an absolute link at its end leads to below the root."""
        path = self._root / name.lstrip("/")
        for _ in range(_MOST_LINKS):
            if not path.is_symlink():
                return path
            target = path.readlink()
            path = (
                self._root / str(target).lstrip("/")
                if target.is_absolute()
                else (path.parent / target)
            )
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _unread(error: OSError | ValueError) -> Unread:
    number = error.errno if isinstance(error, OSError) else None
    if number in _REASONS:
        return Unread(_REASONS[number])
    return Unread(os.strerror(number) if number else "no valid name")


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Return a key by which numbers in names count as numbers."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+|[0-9]+", name)
    return tuple((int(p), "") if p.isdecimal() and p.isascii() else (-1, p) for p in parts)
