"""Small files of the system, as in sysfs and /proc: read without waiting, and never without end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MOST_BYTES = 64 << 10
"""Of a file in sysfs or /etc; none that is asked for holds as much."""


def bytes_of_small_file(path: Path, most: int) -> bytes | None:
    """Return at most so many bytes of a file, whatever size it claims to have.

    None where it is no regular file: a pipe, which may be waited for, a device, a folder. An
    OSError where it cannot be read, or a ValueError where there is no such name.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        return None
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        data = bytearray()
        while len(data) < most and (piece := os.read(handle, most - len(data))):
            data += piece
        return bytes(data)
    finally:
        os.close(handle)


def text_of_small_file(path: Path) -> str:
    """Return a file's text, without white space and NUL around it; "" where it cannot be read.

    Of a larger one, such as the /proc/cpuinfo of a hundred cores, the first `MOST_BYTES`.
    """
    try:
        data = bytes_of_small_file(path, MOST_BYTES)
    except OSError:
        return ""
    return (data or b"").decode("utf-8", errors="replace").strip("\0\n\t ")
