"""Pictures in tar shards, as WebDataset writes them.

Members that are no pictures, such as labels, are passed over and counted by their suffix.
"""

from __future__ import annotations

import errno
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from ..core.errors import ImageError
from ..core.text import printable
from ..pixels.files.image_kinds import IMAGE_SUFFIXES
from ..pixels.picture import PictureLimit
from .item import Item

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, OSError, ValueError)
_MOST_SUFFIXES = 4


class Shard:
    """One tar file, of this machine by its path, or of another by what opens it.

    A shard that is damaged, or cannot be read, gives what comes before the damage, and then an
    item that says so.
    """

    def __init__(
        self, name: str, source: Path | Callable[[], IO[bytes]], limit: PictureLimit
    ) -> None:
        self.name, self._source, self._limit = name, source, limit
        self._others: Counter[str] = Counter()

    @property
    def remarks(self) -> list[str]:
        """What was not taken by the last iteration, in one line; or nothing."""
        if not self._others:
            return []
        common = [suffix for suffix, _ in self._others.most_common(_MOST_SUFFIXES)]
        more = ", ..." if len(self._others) > _MOST_SUFFIXES else ""
        count = self._others.total()
        return [f"{self.name}: {count} not taken: no picture ({', '.join(common)}{more})"]

    def items(self) -> Iterator[Item]:
        """Yield the pictures in their order, and at damage one item that cannot be read."""
        self._others.clear()
        count = 0
        try:
            for item in self._members():
                count += 1
                yield item
        except _DAMAGE as error:
            reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
            words = " ".join(reason.split())[:200] or type(error).__name__
            after = f" after {count} pictures" if count else ""
            yield _unreadable(self.name, f"the shard cannot be read{after}: {words}")

    def _members(self) -> Iterator[Item]:
        if isinstance(self._source, Path):
            if self._source.name.lower().endswith(".tar"):
                yield from self._sought(self._source)
                return
            opened: IO[bytes] = self._source.open("rb")
        else:
            opened = self._source()
        with opened as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            yield from self._streamed(tar)

    def _sought(self, path: Path) -> Iterator[Item]:
        """Yield members of an uncompressed file of this machine; whoever needs one reads it."""
        facts = path.stat()
        version = f"{facts.st_size}-{facts.st_mtime_ns}"
        with tarfile.open(path, "r:") as tar:
            for member in self._pictures(tar):
                start, size = member.offset_data, member.size
                yield Item(
                    self._name_of(member),
                    self._reader(path, start, size),
                    stamp=f"{version}-{start}-{size}",
                )

    def _streamed(self, tar: tarfile.TarFile) -> Iterator[Item]:
        for member in self._pictures(tar):
            name = self._name_of(member)
            if (problem := self._too_large(member.size)) is not None:
                yield _unreadable(name, problem)
                continue
            found = tar.extractfile(member)
            data = b"" if found is None else found.read()
            if len(data) < member.size:
                raise tarfile.ReadError("unexpected end of data")
            yield Item(
                name,
                lambda data=data: data,  # type: ignore[misc]
                held_bytes=len(data),
                stamp=f"{member.size}",
            )

    def _pictures(self, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        while (member := tar.next()) is not None:
            cast("Any", tar).members.clear()  # else it keeps all of them
            if not member.isfile() or member.issparse():
                continue
            suffix = os.path.splitext(member.name)[1].lower()  # noqa: PTH122  # no path of here
            if suffix in IMAGE_SUFFIXES:
                yield member
            else:
                self._others[printable(suffix) or "no suffix"] += 1

    def _reader(self, path: Path, start: int, size: int) -> Callable[[], bytes]:
        def read() -> bytes:
            if (problem := self._too_large(size)) is not None:
                raise ImageError(problem)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, size, start)
                while len(data) < size and (
                    more := os.pread(descriptor, size - len(data), start + len(data))
                ):
                    data += more
            finally:
                os.close(descriptor)
            if len(data) < size:
                raise OSError(errno.EIO, "the shard is cut short")
            return data

        return read

    def _too_large(self, size: int) -> str | None:
        most = self._limit.most_bytes
        if size <= most:
            return None
        return f"the file has {size / 1e6:.0f} MB, and {most / 1e6:.0f} are allowed"

    def _name_of(self, member: tarfile.TarInfo) -> str:
        return printable(f"{self.name}/{member.name}")


def _unreadable(name: str, reason: str) -> Item:
    def refuse() -> bytes:
        raise ImageError(reason)

    return Item(name, refuse)
