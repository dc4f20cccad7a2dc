"""Pictures in tar shards, as WebDataset writes them.

Members that are no pictures, such as labels, are passed over and counted by their suffix, and so
is what is passed over in a folder because of its name.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from ..core.errors import ImageError, SourceError
from ..core.text import printable
from ..pixels.files.image_kinds import IMAGE_SUFFIXES
from ..pixels.picture import PictureLimit
from ..sources.image_list import LEFT_OUT, why_left_out
from .item import UNREAD, Item

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_MOST_SUFFIXES = 4
_MOST_BYTES = 1 << 62  # of a member; a header that is damaged may say more, or less than nothing
_MOST_HEADER_BYTES = 1 << 20  # of a long name or of attributes
_BLOCK = 1 << 20
_GZIP_END = 8  # bytes: a checksum and a length
_MORE = "there is more after its end: another archive (cat), or a damaged header"


class _Header(tarfile.TarInfo):
    """A header that is damaged is an error: `tarfile` takes one for the end of the archive.

    So it is in `TarFile.next`: https://github.com/python/cpython/blob/3.11/Lib/tarfile.py
    """

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _Header:
        """Read the next header; ReadError where it is damaged."""
        try:
            found = super().fromtarfile(tarfile)
        except _DAMAGED as error:
            raise _READ_ERROR(str(error)) from error
        except _NOTHING:
            cast("Any", tarfile).has_no_end = True
            raise
        return cls._checked(found, _MOST_BYTES)  # once more: attributes may say another size

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """Parse a header; ReadError where it says a size that none has."""
        found = super().frombuf(buf, encoding, errors)
        return cls._checked(found, _MOST_HEADER_BYTES if found.type in _TEXTS else _MOST_BYTES)

    @staticmethod
    def _checked(found: _Header, most: int) -> _Header:
        if not 0 <= found.size <= most:
            raise _READ_ERROR(f"a header says a size of {found.size} bytes")
        return found


_READ_ERROR = tarfile.ReadError
_DAMAGED = (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError)  # type: ignore[attr-defined]
_FINAL = (
    *(tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError),
    *(ArithmeticError, ValueError, RecursionError),
)
"""Damage, which another try finds as well; a connection that broke may last longer then."""
_NOTHING = tarfile.EmptyHeaderError  # type: ignore[attr-defined]
_TEXTS = {
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
}


class Located(NamedTuple):
    """Where a picture's file lies in an uncompressed shard of this machine."""

    name: str  # begins with the shard's
    start: int  # of its first byte, in bytes
    size: int  # in bytes


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
        self._is_ended = True

    @property
    def remarks(self) -> list[str]:
        """What was not taken by the last iteration, and what to know of it; a line each."""
        remarks = list[str]()
        if self._others:
            remarks.append(f"{self.name}: {not_taken(self._others)}")
        if not self._is_ended:
            remarks.append(f"{self.name} has no mark of its end: it may be cut short")
        return remarks

    @property
    def others(self) -> Counter[str]:
        """How many members of the last iteration were not taken, by suffix or kind."""
        return self._others

    @property
    def is_ended(self) -> bool:
        """Whether the last iteration has found the mark of the shard's end, or damage."""
        return self._is_ended

    def items(self) -> Iterator[Item]:
        """Yield the pictures in their order, and at damage one item that cannot be read."""
        self._others.clear()
        self._is_ended = True
        count = 0
        try:
            for item in self._members():
                count += 1
                yield item
        except Exception as error:  # noqa: BLE001  # of any archive, and any store's package
            yield unreadable(self.name, _damage(error, count))

    def located(self) -> Iterator[Located]:
        """Yield where the pictures of an uncompressed file of this machine lie, in their order.

        An ImageError where it is damaged, or cannot be read, after what comes before.
        """
        assert isinstance(self._source, Path)  # noqa: S101  # for the type checker
        self._others.clear()
        self._is_ended = True
        count = 0
        try:
            for found in self._located(self._source):
                count += 1
                yield found
        except Exception as error:
            raise ImageError(_damage(error, count)) from error

    def _members(self) -> Iterator[Item]:
        if isinstance(self._source, Path):
            if self._source.name.lower().endswith(".tar"):
                yield from self._sought(self._source)
                return
            opened: IO[bytes] = self._source.open("rb")
        else:
            opened = self._source()
        with opened as file:
            facts = os.fstat(file.fileno()) if isinstance(self._source, Path) else None
            version = f"{facts.st_size}-{facts.st_mtime_ns}-" if facts is not None else ""
            with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Header) as tar:
                yield from self._streamed(tar, version)

    def _sought(self, path: Path) -> Iterator[Item]:
        """Yield members of an uncompressed file of this machine; whoever needs one reads it."""
        facts = path.stat()
        version = f"{facts.st_size}-{facts.st_mtime_ns}"
        for name, start, size in self._located(path):
            read = partial(_read, path, start, size, self._limit)
            yield Item(name, read, stamp=f"{version}-{start}-{size}")

    def _located(self, path: Path) -> Iterator[Located]:
        with tarfile.open(path, "r:", tarinfo=_Header) as tar:
            for member in self._pictures(tar):
                yield Located(self._name_of(member), member.offset_data, member.size)

    def _streamed(self, tar: tarfile.TarFile, version: str) -> Iterator[Item]:
        for member in self._pictures(tar, is_stream=True):
            name = self._name_of(member)
            if (problem := too_large(member.size, self._limit)) is not None:
                yield unreadable(name, problem)
                _pass_over(tar, member)
                continue
            found = tar.extractfile(member)
            data = b"" if found is None else found.read()
            yield Item(
                name,
                partial(bytes, data),
                held_bytes=len(data),
                stamp=f"{version}{member.size}",
            )

    def _pictures(
        self, tar: tarfile.TarFile, *, is_stream: bool = False
    ) -> Iterator[tarfile.TarInfo]:
        while (member := tar.next()) is not None:
            cast("Any", tar).members.clear()  # else it keeps all of them
            if member.isdir():
                continue
            suffix = os.path.splitext(member.name)[1].lower()  # noqa: PTH122  # no path of here
            is_plain = member.isfile() and not member.issparse()
            left_out = _why_left_out(member.name)
            if is_plain and not left_out and suffix in IMAGE_SUFFIXES:
                yield member
                continue
            kind = "link" if member.islnk() or member.issym() else "sparse or special file"
            kind = (printable(suffix) or "no suffix") if is_plain else kind
            self._others[left_out or kind] += 1
            if is_stream and is_plain:
                _pass_over(tar, member)
        if getattr(tar, "has_no_end", False):
            self._is_ended = False
        elif any(data != bytes(len(data)) for data in _after_end(tar)):
            raise _READ_ERROR(_MORE)

    def _name_of(self, member: tarfile.TarInfo) -> str:
        return printable(f"{self.name}/{member.name}")


def _after_end(tar: tarfile.TarFile) -> Iterator[bytes]:
    """Yield what a file holds after the block of zeros that ends an archive: zeros, in a sound one.

    POSIX has two such blocks, and writers fill the last record with more of them:
    https://www.gnu.org/software/tar/manual/html_node/Standard.html
    """
    file = cast("Any", tar.fileobj)
    packed = getattr(file, "cmp", None)  # of a stream that is compressed
    # Past the end of what is compressed a stream would keep all that follows.
    while packed is None or file.dbuf or not packed.eof:
        if not (data := file.read(_BLOCK if packed is None else tarfile.BLOCKSIZE)):
            return
        yield data
    # What gzip ends with is no part of its raw stream.
    rest = packed.unused_data + file.fileobj.read(_BLOCK)
    yield rest[_GZIP_END if file.comptype == "gz" else 0 :]
    while data := file.fileobj.read(_BLOCK):
        yield data


def _read(path: Path, start: int, size: int, limit: PictureLimit) -> bytes:
    if (problem := too_large(size, limit)) is not None:
        raise ImageError(problem)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bytes_at(descriptor, start, size)
    finally:
        os.close(descriptor)


def bytes_at(descriptor: int, start: int, size: int) -> bytes:
    """Read a member's bytes from an open shard; an OSError where there are fewer."""
    data = os.pread(descriptor, size, start)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), start + len(data))):
        data += more
    if len(data) < size:
        raise OSError(errno.EIO, "the shard is cut short")
    return data


def too_large(size: int, limit: PictureLimit) -> str | None:
    """Return why a member of so many bytes is not read; None where it is."""
    if size <= limit.most_bytes:
        return None
    return f"the file has {size / 1e6:.0f} MB, and {limit.most_bytes / 1e6:.0f} are allowed"


def _why_left_out(name: str) -> str:
    """Return what a member is passed over as because of its name, or of a folder's in it; or ""."""
    parts = (part for part in name.split("/") if part not in {".", ".."})
    return next(filter(None, map(why_left_out, parts)), "")


def not_taken(others: Counter[str]) -> str:
    """Say how much was not taken, and why, in one line; see `Shard.others`."""
    named = [f"{count} {kind}" for kind, count in others.items() if kind in LEFT_OUT]
    rest = Counter({kind: count for kind, count in others.items() if kind not in LEFT_OUT})
    if rest:
        common = [suffix for suffix, _ in rest.most_common(_MOST_SUFFIXES)]
        more = ", ..." if len(rest) > _MOST_SUFFIXES else ""
        count = f"{rest.total()} " if named else ""
        named.append(f"{count}no picture ({', '.join(common)}{more})")
    return f"{others.total()} not taken: {', '.join(named)}"


def _damage(error: Exception, count: int) -> str:
    reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
    if isinstance(error, SourceError):
        reason = error.clause()
    words = " ".join(reason.split())[:200] or type(error).__name__
    after = f" after {count} pictures" if count else ""
    if isinstance(error, _FINAL):
        return f"the shard cannot be read{after}: {words}"
    return f"{UNREAD}{f'the shard{after}: ' if after else ''}{words}"


def _pass_over(tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Read what a member holds; ReadError where there is less.

    `tarfile` itself goes on after the end of a stream until it has counted what a header says.
    """
    found = tar.extractfile(member)
    while found is not None and found.read(_BLOCK):
        pass


def unreadable(name: str, reason: str) -> Item:
    """Return an item that is a failure with this reason."""
    return Item(name, partial(_refuse, reason))


def _refuse(reason: str) -> bytes:
    raise ImageError(reason)
