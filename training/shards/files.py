"""Shards as open files: members read in any thread, as long as the file is what was indexed."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from ...runtime.bulk.tar_shards import bytes_at

_OPEN = 64
"""Files that stay open, as an open on a network file system takes long."""


class _OpenFile:
    """A descriptor that is closed when the last one who reads it has let go of it."""

    def __init__(self, path: str) -> None:
        # Without O_NONBLOCK opening a pipe would wait for ever.
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class ShardFiles:
    """The files of a set, by their number; the last so many that were read stay open.

    With `stamps`, sizes and times of the last change, what is another file by now is not read.
    """

    def __init__(
        self, paths: Sequence[str], stamps: Sequence[tuple[int, int]] | None = None
    ) -> None:
        self.paths, self._stamps = paths, stamps
        self._opened: OrderedDict[int, _OpenFile] = OrderedDict()
        self._lock = Lock()

    def content(self, shard: int, start: int, size: int) -> bytes:
        """Read a member; an OSError where it cannot be read."""
        file = self._open(shard)
        facts = os.fstat(file.descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if self._stamps is not None and self._stamps[shard] != (facts.st_size, facts.st_mtime_ns):
            self._forget(shard)
            raise OSError(errno.ESTALE, "it has changed since the run began")
        try:
            return bytes_at(file.descriptor, start, size)
        except OSError:
            self._forget(shard)
            raise

    def _open(self, shard: int) -> _OpenFile:
        with self._lock:
            if shard in self._opened:
                self._opened.move_to_end(shard)
                return self._opened[shard]
        file = _OpenFile(self.paths[shard])
        with self._lock:
            self._opened[shard] = file
            while len(self._opened) > _OPEN:
                self._opened.popitem(last=False)
        return file

    def _forget(self, shard: int) -> None:
        """Open it anew the next time: it may be back by then."""
        with self._lock:
            self._opened.pop(shard, None)

    def close(self) -> None:
        """Forget all, so that a file that was deleted meanwhile is missed."""
        with self._lock:
            self._opened.clear()
