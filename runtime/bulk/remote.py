"""Pictures behind addresses, by fsspec: HTTP and every object store that it has a package for."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

from ..core.errors import ImageError, MissingDependencyError, SourceError, needed_for
from ..core.redaction import name_of_address, without_credentials
from ..core.system.workers import pause, waited_for
from ..core.text import printable
from ..pixels.files.image_kinds import IMAGE_SUFFIXES
from ..pixels.picture import PictureLimit
from .item import Item

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_PAUSES_S = (0.5, 1.0)
"""Before a second and a third try."""
_REFUSALS = {*range(400, 500)} - {408, 425, 429}  # those that another try may change
_GONE = {404, 410}
_CONNECT_S, _SILENCE_S = 30.0, 60.0
"""A web server is given up that does not answer for so long, however long a file takes in all."""
_PARTIAL = 206  # the answer to a request for a range
_BLOCK = 1 << 20


def reads_web() -> bool:
    """Whether what fsspec reads web servers with is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("fsspec", "aiohttp"))


def check_address(address: str) -> None:
    """Refuse what no package here can read: a SourceError, or a MissingDependencyError."""
    _found(address)


def remote_content(address: str, limit: PictureLimit) -> bytes:
    """Read a picture file behind an address, in any thread.

    Raises:
        SourceError: It cannot be read, three times where that may pass.
        ImageError: It is larger than any picture that is allowed.
    """
    return _content(*_found(address), address, limit)


def _content(system: AbstractFileSystem, path: str, address: str, limit: PictureLimit) -> bytes:
    def read() -> bytes:
        data = bytearray()
        with system.open(path, "rb", **_as_stream(address)) as file:
            # A server that does not say how long a file is gives what has come so far.
            while len(data) <= limit.most_bytes:
                if not (more := file.read(limit.most_bytes + 1 - len(data))):
                    break
                data += more
        return bytes(data)

    data: bytes = _tried(address, read)
    if len(data) > limit.most_bytes:
        raise ImageError(f"the file has more than {limit.most_bytes / 1e6:.0f} MB")
    return data


def remote_file(address: str) -> Callable[[], IO[bytes]]:
    """Return what opens a file behind an address, to be read from its start to its end.

    Where reading fails it is opened again, and goes on at the same place, at up to three tries.
    """

    def opened() -> IO[bytes]:
        return io.BufferedReader(_Resumed(address), _BLOCK)

    return opened


class _Resumed(io.RawIOBase):
    """A file behind an address that is opened again where reading it fails."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._system, self._path = _found(address)
        self._place = 0  # of what was given already
        self._version: object = None  # of what it was given of
        self._has_ranges = False
        self._file: IO[bytes] | None = _tried(address, self._opened)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, into: Any) -> int:
        """Read up to as many bytes as there is room for; SourceError after three tries."""
        data: bytes = _tried(self._address, lambda: self._read(len(into)))
        into[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        """Close it."""
        self._drop()
        super().close()

    def _read(self, size: int) -> bytes:
        try:
            self._file = self._file or self._opened()
            return self._file.read(size)
        except BaseException:
            self._drop()
            raise

    def _opened(self) -> IO[bytes]:
        """Open it at the place; _ChangedError where it is another file by now."""
        options = _as_stream(self._address)
        if self._place and self._has_ranges:
            options["headers"] = {"Range": f"bytes={self._place}-"}
        file: Any = self._system.open(self._path, "rb", **options)
        try:
            self._go_on(file)
        except BaseException:
            file.close()
            raise
        return cast("IO[bytes]", file)

    def _go_on(self, file: Any) -> None:
        reply = getattr(file, "r", None)  # of a web server
        version: object = getattr(file, "size", None)
        if reply is not None:
            version = [reply.headers.get(name) for name in ("ETag", "Last-Modified")]
        if not self._place:
            self._version = version
            self._has_ranges = reply is not None and "Content-Encoding" not in reply.headers
        elif version != self._version:
            raise _ChangedError("it was replaced while it was read")
        elif reply is None:
            file.seek(self._place)
        elif reply.status != _PARTIAL:
            left = self._place
            while left and (more := file.read(min(left, _BLOCK))):
                left -= len(more)

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(Exception):  # of any store's package, and broken as it is
                file.close()


class _ChangedError(OSError):
    """A file is no longer the one that was read so far."""


class RemoteFolder:
    """The pictures below an address, by their names, as the store lists them."""

    def __init__(self, address: str, limit: PictureLimit) -> None:
        self._address, self._limit = address, limit
        self._others: Counter[str] = Counter()

    @property
    def remarks(self) -> list[str]:
        """What was not taken by the last iteration, in one line; or nothing."""
        if not self._others:
            return []
        suffixes = ", ".join(suffix for suffix, _ in self._others.most_common(4))
        name = without_credentials(self._address)
        return [f"{name}: {self._others.total()} not taken: no picture ({suffixes})"]

    def items(self) -> Iterator[Item]:
        """Yield the pictures; SourceError where there is none or nothing can be listed."""
        self._others.clear()
        system, top = _found(self._address)
        found: dict[str, dict[str, Any]] = _tried(
            self._address, lambda: system.find(top, detail=True)
        )
        is_empty, above = True, name_of_address(system.unstrip_protocol(top))
        for path in sorted(found):
            suffix = PurePosixPath(path).suffix.lower()
            if suffix not in IMAGE_SUFFIXES:
                self._others[printable(suffix) or "no suffix"] += 1
                continue
            is_empty = False
            name = f"{above}{path.removeprefix(top)}"
            facts = found[path]
            stamp = "-".join(
                str(facts[key]) for key in ("size", "ETag", "mtime", "LastModified") if key in facts
            )
            yield Item(
                printable(name),
                # Not by its address: a `?` or `#` would be no part of the key, and `::` a chain.
                partial(_content, system, path, name, self._limit),
                stamp=stamp,
            )
        if is_empty:
            name = without_credentials(self._address)
            raise SourceError(f"no image below {name}: name a folder that has some")


_FINAL = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError),
    _ChangedError,
)
"""What another try changes nothing of."""


@lru_cache(maxsize=1024)
def _found(address: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of an address, and what it calls it."""
    with needed_for("images behind addresses", extra="remote"):
        import fsspec  # noqa: PLC0415  # optional
    name = without_credentials(address)
    try:
        options = _web_options() if _is_web(address) else {}
        found: tuple[AbstractFileSystem, str] = fsspec.core.url_to_fs(address, **options)
    except ImportError as error:  # fsspec names the package that is missing
        raise MissingDependencyError(f"{name}: {error}: install that, or copy the data") from error
    except ValueError as error:
        raise SourceError(f"{name}: {error}: name an address that fsspec knows") from error
    return found


def _tried(address: str, read: Callable[[], Any]) -> Any:
    """Return what a call gives at one of up to three tries; else raise a SourceError."""
    for pause_s in (*_PAUSES_S, None):
        try:
            return waited_for(read)
        except Exception as raised:  # noqa: PERF203  # of any store's package
            error = _meant(address, raised)
            status = getattr(error, "status", 0)
            is_final = isinstance(error, _FINAL) or status in _REFUSALS or _is_silence(error)
            if pause_s is None or is_final:
                raise _error_of(address, error) from raised
            pause(pause_s)
    return None


def _is_web(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def _meant(address: str, error: Exception) -> Exception:
    """Return what went wrong: fsspec says of a web server that fails in any way: no such file.

    Its answer is the cause then. That of an object store's error says no more.
    `HTTPFileSystem._info` in
    https://github.com/fsspec/filesystem_spec/blob/master/fsspec/implementations/http.py
    """
    cause = error.__cause__
    is_hidden = isinstance(error, FileNotFoundError) and _is_web(address)
    return cause if is_hidden and isinstance(cause, Exception) else error


def _as_stream(address: str) -> dict[str, Any]:
    """Return how to open a file for one request that gives all of it, of a web server.

    By default fsspec asks for its size first, and then for blocks, which not every server knows.
    With a size it does not ask, and without blocks it does not use it: `HTTPFileSystem._open`.
    """
    return {"block_size": 0, "size": 1} if _is_web(address) else {}


def _is_silence(error: Exception) -> bool:
    """Whether nobody answered, by the name that each package has for it: FSTimeoutError, ..."""
    return "Timeout" in type(error).__name__


def _web_options() -> dict[str, Any]:
    """Return how long fsspec waits for a web server; nothing where it has no package for them."""
    with contextlib.suppress(ImportError):
        import aiohttp  # noqa: PLC0415  # optional

        wait = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
        return {"client_kwargs": {"timeout": wait}}
    return {}


def _error_of(address: str, error: Exception) -> SourceError:
    text = _ADDRESS.sub(
        lambda found: without_credentials(found[0]), str(error).replace(address, "")
    )
    reason = " ".join(text.split())[:200] or type(error).__name__
    if _is_silence(error):
        reason = "the server does not answer"
    if isinstance(error, FileNotFoundError) or getattr(error, "status", 0) in _GONE:
        reason = "there is no such file"
    elif status := getattr(error, "status", 0):
        reason = f"the server answers {status} {getattr(error, 'message', '')}".rstrip()
    context = f"cannot read {without_credentials(address)}"
    return SourceError(reason, context=context, fix="check the address and try again")
