"""The index of a set of shards: where each image lies, which side it is on, what was skipped.

A few mapped arrays in the run's folder, some 60 bytes an image; of the images themselves nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ...runtime.core.atomic_files import replaced_file
from ...runtime.core.documents import document_from_json, opened_regular, save_document
from ...runtime.core.errors import DataError, writing_output
from ...runtime.core.spec import ModelSpec, StrictModel
from ...runtime.pixels.picture import PictureLimit, limit_for
from .order import Rows

SET_NAME = "shards.json"
MEMBERS_NAME, NAMES_NAME, STARTS_NAME = "members.bin", "names.utf8", "runs.i8"
TRAIN_NAME, HELD_OUT_NAME = "train.i8", "held_out.i8"
RUN_BYTES = 4 << 20
"""Bytes that are read at once: a disk that seeks for 10 ms reads them in 30."""
GAP_BYTES = 256 << 10
"""Bytes between neighbours that are not read with them if they are more."""
RUNS_IN_WINDOW = 64
"""Places that the images of a window come from."""
MEMBER = np.dtype(
    [("key", "<u8"), ("start", "<i8"), ("name_end", "<i8"), ("size", "<i8"), ("shard", "<i4")]
)
_MOST_INDEX = 1 << 28  # hundreds of thousands of shards
_CHUNK = 1 << 16
AGAIN = "start a new run"

Members = npt.NDArray[np.void]


class ShardFile(StrictModel):
    """A shard as it was when the run began."""

    path: str  # absolute
    size: int  # in bytes; 0 where it was not there
    mtime_ns: int
    images: int
    sha256: str  # of where its images lie and the SHA-256 of their bytes

    @property
    def stamp(self) -> tuple[int, int]:
        """What changes where the file does."""
        return self.size, self.mtime_ns


class ShardSet(StrictModel):
    """What `shards.json` holds."""

    schema_version: Literal[1] = 1
    spec: ModelSpec
    max_picture: float  # megapixels that an image may have
    images: int
    skipped: int  # images that do not decode, and shards that are damaged or missing
    runs_in_window: int
    shards: tuple[ShardFile, ...]

    @property
    def limit(self) -> PictureLimit:
        """How large a picture may be."""
        return limit_for(self.spec, self.max_picture)


class Found(NamedTuple):
    """Where an image lies, before it is decoded."""

    shard: int
    name: str
    start: int
    size: int


class Names(Sequence[str]):
    """The names of all images, read from the index one at a time."""

    def __init__(self, text: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> None:
        self._text, self._ends = text, ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: Any) -> Any:
        """Return the name of one image."""
        row = int(row)
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        begin = int(self._ends[row - 1]) if row else 0
        return self._text[begin : int(self._ends[row])].tobytes().decode()


@dataclass(frozen=True)
class ShardIndex:
    """An index that was opened: mapped arrays of N images."""

    set: ShardSet
    members: Members  # (N,) of `MEMBER`
    names: Names
    train: Rows  # mapped, in their order
    held_out: Rows  # mapped, in the order of their content hash
    starts: Rows  # (R + 1,) positions in `train` at which runs start, and the end


class IndexWriter:
    """Writes an index, an image at a time; see `index_written`."""

    def __init__(self, folder: Path, members: IO[bytes], names: IO[bytes]) -> None:
        self._folder, self._members, self._names = folder, members, names
        self.images, self.runs_in_window = 0, RUNS_IN_WINDOW
        self._starts: list[int] = []
        self._filled, self._shard, self._end, self._name_end = 0, -1, 0, 0

    def add(self, found: Found, content: bytes) -> None:
        """Write down an image, after all before it in its shard, with the hash of its pixels."""
        gap = found.start - self._end
        more = found.size + (gap if gap <= GAP_BYTES else 0)
        if found.shard != self._shard or self._filled + more > RUN_BYTES:
            self._starts.append(self.images)
            self._shard, self._filled, more = found.shard, 0, found.size
        self._filled, self._end = self._filled + more, found.start + found.size
        name = found.name.encode()
        self._names.write(name)
        self._name_end += len(name)
        key = int.from_bytes(content[:8], "big")
        one = (key, found.start, self._name_end, found.size, found.shard)
        self._members.write(np.array([one], MEMBER).tobytes())
        self.images += 1

    def split(self, fraction: float) -> None:
        """Write which images are held out, once all are written down."""
        keys = _mapped(self._folder / MEMBERS_NAME, MEMBER, self.images)["key"]
        limit = np.uint64(limit_of_split(keys, fraction))
        held: list[Rows] = []
        with replaced_file(self._folder / TRAIN_NAME) as path, path.open("wb") as file:
            for start in range(0, self.images, _CHUNK):
                below = keys[start : start + _CHUNK] < limit
                file.write((start + np.flatnonzero(~below)).astype("<i8").tobytes())
                held.append(start + np.flatnonzero(below))
        rows = np.concatenate(held)
        rows = rows[np.argsort(keys[rows], kind="stable")]
        train = _mapped(self._folder / TRAIN_NAME, np.dtype("<i8"), self.images - len(rows))
        starts = np.searchsorted(train, [*self._starts, self.images])
        for name, values in ((HELD_OUT_NAME, rows), (STARTS_NAME, starts)):
            with replaced_file(self._folder / name) as path:
                path.write_bytes(values.astype("<i8").tobytes())


@contextlib.contextmanager
def index_written(folder: Path) -> Iterator[IndexWriter]:
    """Give what writes down images in a folder; once the block has ended, they can be split."""
    with writing_output(folder):
        folder.mkdir(exist_ok=True)
    with (
        replaced_file(folder / MEMBERS_NAME) as members,
        replaced_file(folder / NAMES_NAME) as names,
        members.open("wb") as one,
        names.open("wb") as other,
    ):
        yield IndexWriter(folder, one, other)


def limit_of_split(keys: npt.NDArray[np.uint64], fraction: float) -> int:
    """Return the key from which on images are trained on; as of `dataset.split_by_content`.

    A DataError where there are fewer than two different images.
    """
    least, most = int(keys.min()), int(keys.max())
    if least == most:
        raise nothing_to_split(len(keys))
    # By the same 48 bits as there.
    limit = int(fraction * 2**48) << 16
    if limit <= least:  # the nearest images move over
        limit = min(
            int(part[part > least].min())
            for part in (keys[i : i + _CHUNK] for i in range(0, len(keys), _CHUNK))
            if (part > least).any()
        )
    return min(limit, most)


def nothing_to_split(images: int) -> DataError:
    """Return the error of so many images of which no two differ."""
    what = f"all {images} images are the same" if images > 1 else "there is one image only"
    return DataError(
        f"{what}: give at least two different ones, one to train on and one to hold out"
    )


def digest_of_shard(images: Iterable[tuple[Found, str]]) -> str:
    """Return the SHA-256 of where images lie and of the SHA-256 of their bytes."""
    digest = hashlib.sha256()
    for found, sha256 in images:
        digest.update(line_of_digest(found, sha256))
    return digest.hexdigest()


def line_of_digest(found: Found, sha256: str) -> bytes:
    """Return what an image adds to the digest of its shard."""
    return f"{found.start} {found.size} {sha256}\n".encode()


def stamp_of(path: Path | str) -> tuple[int, int]:
    """Return a file's size and the time of its last change; zeros where it is not there."""
    try:
        facts = os.stat(path)  # noqa: PTH116  # of either kind
    except OSError:
        return 0, 0
    return facts.st_size, facts.st_mtime_ns


def save_set(folder: Path, found: ShardSet) -> None:
    """Write `shards.json`."""
    save_document(folder / SET_NAME, found)


def set_in(folder: Path) -> ShardSet:
    """Read `shards.json`; DataError where it cannot be."""
    return document_from_json(
        folder / SET_NAME, ShardSet, error=DataError, again=AGAIN, most_bytes=_MOST_INDEX
    )


def index_in(folder: Path) -> ShardIndex:
    """Open the index in a folder; DataError where it is gone, cut short, or not consistent."""
    found = set_in(folder)
    try:
        members = _mapped(folder / MEMBERS_NAME, MEMBER, found.images)
        ends = members["name_end"]
        text = _mapped(folder / NAMES_NAME, np.dtype(np.uint8), int(ends[-1]))
        train, held_out, starts = (
            _mapped(folder / name, np.dtype("<i8"), None)
            for name in (TRAIN_NAME, HELD_OUT_NAME, STARTS_NAME)
        )
        is_whole = (
            len(train) + len(held_out) == found.images
            and starts[-1] == len(train)
            and members["shard"].max() < len(found.shards)
            and max(train.max(), held_out.max()) < found.images
            and min(train.min(), held_out.min(), members["shard"].min()) >= 0
        )
    except (OSError, ValueError, LookupError, OverflowError) as error:
        raise DataError(f"cannot read the index of shards in {folder}: {AGAIN}") from error
    if not is_whole:
        raise DataError(f"the index of shards in {folder} is damaged: {AGAIN}")
    return ShardIndex(found, members, Names(text, ends), train, held_out, starts)


def _mapped(path: Path, dtype: np.dtype[Any], count: int | None) -> npt.NDArray[Any]:
    """Map a file of so many values, or of as many as it holds."""
    with opened_regular(path, most_bytes=None, error=DataError, again=AGAIN) as file:
        held, rest = divmod(os.fstat(file.fileno()).st_size, dtype.itemsize)
        if rest or held != (held if count is None else count) or not held:
            raise ValueError(f"{path} has {held} values")
        return np.memmap(file, dtype, mode="r", shape=(held,))
