"""What a data set is made of: folders, patterns, lists, shards, videos and addresses, as items."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from ..core.errors import ConfigError, SourceError
from ..core.frame import Gap
from ..core.redaction import name_of_address, without_credentials
from ..core.spec import ModelSpec
from ..core.text import printable
from ..pixels.files.image_files import content_of_file
from ..pixels.files.image_kinds import IMAGE_SUFFIXES
from ..pixels.picture import PictureLimit
from ..sources.base import CaptureRequest, fitted_from_item
from ..sources.image_list import LazyImageList, natural_key
from ..sources.open import open_source
from ..sources.spec import SourceSpec
from .item import Item
from .listings import LIST_SUFFIXES, TABLE_SUFFIX, BadLine, listed_lines, listed_table
from .remote import RemoteFolder, check_address, reads_web, remote_content, remote_file
from .tar_shards import SHARD_SUFFIXES, Shard, unreadable

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_STREAMED = {"rtsp", "rtsps", "rtmp", "udp", "csi"}
"""What no file is behind."""
_MOST_SHARDS = 1_000_000


@dataclass(frozen=True, slots=True)
class InputRequest:
    """How the inputs of a data set are read."""

    model: ModelSpec
    capture: CaptureRequest  # of the same model
    every: int = 1  # each so many frames of a video one is taken, from the first on
    column: str = "path"  # of Parquet listings

    @property
    def limit(self) -> PictureLimit:
        """How large a picture may be."""
        return self.capture.picture_limit


class _Input(Protocol):
    """One of the texts that a data set was named by."""

    @property
    def remarks(self) -> Sequence[str]: ...

    def items(self, *, is_one_of_several: bool) -> Iterator[Item]:
        """Yield the items anew, in the same order as long as nothing changed.

        As one of several, their names begin with what this one is.
        """


class Inputs:
    """The items of a data set in their order, which is that of the texts.

    Where there are several texts, names begin with the one that they are of. It may be iterated
    again. A SourceError says what cannot be found; of what is live, a ConfigError.
    """

    def __init__(self, data: Sequence[str], request: InputRequest) -> None:
        if not data:
            raise ConfigError("no data: name a folder, a pattern, a list, shards or a video")
        texts = [one for text in data for one in written_out(text)]
        self._inputs = [_input_of(text, request) for text in texts]
        self._texts = texts
        shown = list(map(shown_text, data))
        more = f" and {len(shown) - 1} more" if len(shown) > 1 else ""
        self.name = f"{printable(shown[0])}{more}"

    def __iter__(self) -> Iterator[Item]:
        for one in self._inputs:
            yield from one.items(is_one_of_several=len(self._inputs) > 1)

    @property
    def remarks(self) -> list[str]:
        """What was not taken by the last iteration, and what to know of videos; a line each."""
        return [remark for one in self._inputs for remark in one.remarks]


def shown_text(text: str) -> str:
    """Return what a data set is named by as it may be shown, an address without credentials."""
    return without_credentials(text) if _ADDRESS.match(text) else text


def written_out(text: str) -> Iterator[str]:
    """Write `shard-{000..099}.tar` out, as WebDataset's users name shards, and `shards/*.tar`."""
    found = _BRACES.search(text)
    if found is None:
        path = os.path.expanduser(text)  # noqa: PTH111  # leaves an unknown ~user as it is
        is_shard = text.lower().endswith(SHARD_SUFFIXES) and not _ADDRESS.match(text)
        is_pattern = is_shard and not os.path.exists(path)  # noqa: PTH110
        shards = glob.glob(path) if is_pattern else []  # noqa: PTH207
        yield from sorted(shards, key=natural_key) or [text]
        return
    first, last = int(found[1]), int(found[2])
    if last < first:
        raise ConfigError(f"{text[:80]}: {found[0]} counts from a number to a larger one")
    if last - first >= _MOST_SHARDS:
        raise ConfigError(
            f"{text[:80]}: {found[0]} counts {last - first + 1:,} shards, and {_MOST_SHARDS:,} are "
            "allowed: use a pattern such as 'train-*.tar', in quotes"
        )
    for number in range(first, last + 1):
        name = f"{text[: found.start()]}{number:0{len(found[1])}d}{text[found.end() :]}"
        yield from written_out(name)


def _input_of(text: str, request: InputRequest) -> _Input:
    if _ADDRESS.match(text):
        return _remote_input(text, request)
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # leaves an unknown ~user as it is
    name = path.name.lower()
    if path.is_dir() and path.suffix.lower() != TABLE_SUFFIX:
        return _Folder(path, request)
    if name.endswith(SHARD_SUFFIXES) and path.is_file():
        return _Shards(Shard(printable(text), path, request.limit))
    suffix = path.suffix.lower()
    if suffix in {*LIST_SUFFIXES, TABLE_SUFFIX} and path.exists():
        return _Listing(path, request)
    spec = SourceSpec.parse(text, fps=request.capture.mode.fps)
    return _Files(spec, request) if spec.kind == "images" else _Video(spec, request)


def _remote_input(text: str, request: InputRequest) -> _Input:
    scheme = text.partition(":")[0].lower()
    path = re.split("[?#]", text, maxsplit=1)[0].lower()
    is_shard, is_image = path.endswith(SHARD_SUFFIXES), Path(path).suffix in IMAGE_SUFFIXES
    is_web = scheme in {"http", "https"}
    # FFmpeg reads a picture of a web server, too, where fsspec is not installed.
    if scheme in _STREAMED or (is_web and not is_shard and not (is_image and reads_web())):
        return _Video(SourceSpec.parse(text), request)
    check_address(text)
    if is_shard:
        return _Shards(Shard(name_of_address(text), remote_file(text), request.limit))
    return _Address(text, request) if is_image else _RemoteFolder(text, request)


class _Folder:
    """Pictures below a folder."""

    def __init__(self, folder: Path, request: InputRequest) -> None:
        self._folder, self._request = folder, request
        self._list = LazyImageList(folder)

    @property
    def remarks(self) -> Sequence[str]:
        remark = printable(self._list.remark)
        return [f"{printable(str(self._folder))}: {remark}"] if remark else []

    def items(self, *, is_one_of_several: bool) -> Iterator[Item]:
        prefix = f"{self._folder.as_posix()}/" if is_one_of_several else ""
        for path in self._list:
            name = f"{prefix}{path.relative_to(self._folder).as_posix()}"
            yield file_item(printable(name), path, self._request.limit)


class _Files:
    """Pictures that a pattern or a path names."""

    def __init__(self, spec: SourceSpec, request: InputRequest) -> None:
        self._spec, self._request = spec, request

    @property
    def remarks(self) -> Sequence[str]:
        return [f"{self._spec.name}: {self._spec.remark}"] if self._spec.remark else []

    def items(self, *, is_one_of_several: bool) -> Iterator[Item]:
        root = Path(self._spec.location)
        prefix = f"{root.as_posix()}/" if is_one_of_several else ""
        for path in self._spec.paths:
            name = f"{prefix}{path.relative_to(root).as_posix()}"
            yield file_item(printable(name), path, self._request.limit)


class _Video:
    """Frames of a video, read one after another."""

    def __init__(self, spec: SourceSpec, request: InputRequest) -> None:
        self._spec, self._request = spec, request
        self.remarks: Sequence[str] = []

    def items(self, *, is_one_of_several: bool) -> Iterator[Item]:
        """Yield frames; a video that cannot be read is one failure among other inputs."""
        try:
            yield from self._frames()
        except SourceError as error:
            if not is_one_of_several:
                raise
            yield unreadable(self._spec.name, error.clause())

    def _frames(self) -> Iterator[Item]:
        version = "" if _ADDRESS.match(self._spec.location) else _stamp(Path(self._spec.location))
        with open_source(self._spec, self._request.capture) as source:
            if source.live:
                raise ConfigError(
                    f"{source.name} is live and has no end: use motorvae-stream for it"
                )
            for number in itertools.count():
                if (item := source.read()) is None:
                    break
                if number % self._request.every:
                    continue
                pixels = fitted_from_item(item, self._request.model)
                name = item.name or f"{source.name}#{item.index:06d}"
                # The source may write into the pixels again as it reads on.
                if isinstance(pixels, Gap):
                    yield Item(name, frame=pixels, stamp=version)
                else:
                    held = pixels.nbytes
                    yield Item(name, frame=pixels.copy(), held_bytes=held, stamp=version)
            self.remarks = source.remarks


class _Shards:
    """Pictures in a tar shard."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    @property
    def remarks(self) -> Sequence[str]:
        return self._shard.remarks

    def items(self, *, is_one_of_several: bool) -> Iterator[Item]:
        del is_one_of_several  # names begin with the shard's
        return self._shard.items()


class _Listing:
    """Paths and addresses, one a line of a text or a row of a Parquet table."""

    def __init__(self, path: Path, request: InputRequest) -> None:
        self._path, self._request = path, request
        self.remarks: Sequence[str] = []

    def items(self, *, is_one_of_several: bool) -> Iterator[Item]:
        prefix = f"{self._path.as_posix()}/" if is_one_of_several else ""  # of what is relative
        if self._path.suffix.lower() == TABLE_SUFFIX:
            lines = listed_table(self._path, self._request.column)
        else:
            lines = listed_lines(self._path)
        folder, empty = self._path.parent, 0
        self.remarks = []
        with closing(lines) as texts:
            for text in texts:
                if isinstance(text, BadLine):
                    name = f"{printable(str(self._path))}:{text.number}"
                    yield unreadable(name, f"the line {text.reason}")
                elif not text:
                    empty += 1
                elif _ADDRESS.match(text):
                    yield address_item(text, self._request.limit)
                else:
                    path = folder / (own := Path(os.path.expanduser(text)))  # noqa: PTH111  # as above
                    name = text if own.is_absolute() else f"{prefix}{text}"
                    yield file_item(printable(name), path, self._request.limit)
        if empty:
            where = f"{printable(str(self._path))}: {empty} not taken"
            self.remarks = [f"{where}: no text in column {printable(self._request.column)!r}"]


class _Address:
    """One picture at an address."""

    def __init__(self, address: str, request: InputRequest) -> None:
        self._address, self._request = address, request
        self.remarks: Sequence[str] = []

    def items(self, *, is_one_of_several: bool) -> Iterator[Item]:
        del is_one_of_several
        yield address_item(self._address, self._request.limit)


class _RemoteFolder:
    """Pictures below an address of an object store."""

    def __init__(self, address: str, request: InputRequest) -> None:
        self._folder = RemoteFolder(address, request.limit)

    @property
    def remarks(self) -> Sequence[str]:
        return self._folder.remarks

    def items(self, *, is_one_of_several: bool) -> Iterator[Item]:
        del is_one_of_several
        return self._folder.items()


def file_item(name: str, path: Path, limit: PictureLimit) -> Item:
    """Return the item of a picture file."""
    return Item(name, partial(_content, path, limit), stamp=_stamp(path))


def _content(path: Path, limit: PictureLimit) -> bytes:
    try:
        return content_of_file(path, limit)
    except ValueError as error:  # a name that no file can have
        raise SourceError(str(error)) from error


def _stamp(path: Path) -> str:
    """Return what changes where a file does; nothing where it cannot be asked for."""
    try:
        facts = path.stat()
    except (OSError, ValueError):  # reading it says why
        return ""
    return f"{facts.st_size}-{facts.st_mtime_ns}"


def address_item(address: str, limit: PictureLimit) -> Item:
    """Return the item of a picture at an address."""
    name = printable(name_of_address(address))
    return Item(name, partial(remote_content, address, limit))
