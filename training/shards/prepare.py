"""Making and checking an index: each image decoded once, what cannot be counted and named."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from ...runtime.bulk.tar_shards import Shard, not_taken, too_large
from ...runtime.core.errors import DataError, ImageError
from ...runtime.core.spec import ModelSpec
from ...runtime.core.text import printable
from ...runtime.pixels.files.image_files import CountedRemarks, fitted_from_bytes
from ...runtime.pixels.picture import PictureLimit, limit_for
from .files import ShardFiles
from .index import (
    AGAIN,
    Found,
    ShardFile,
    ShardSet,
    digest_of_shard,
    index_written,
    line_of_digest,
    save_set,
    set_in,
    stamp_of,
)
from .listing import why_no_file

_CHUNK = 256

Warn = Callable[[str], None]
T = TypeVar("T")
R = TypeVar("R")


class _Damage(NamedTuple):
    """Why a shard, or the rest of one, cannot be read."""

    shard: int
    reason: str


class _Seen(NamedTuple):
    """What decoding an image has shown."""

    sha256: str = ""  # of its bytes; empty where they cannot be read
    content: bytes = b""  # SHA-256 of its pixels as the model takes them; empty without any
    reason: str = ""  # why there are none
    remarks: tuple[str, ...] = ()


@dataclass
class _Facts:
    """What is known of a shard so far."""

    stamp: tuple[int, int]
    images: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)


def prepare_shards(
    shards: Sequence[Path],
    spec: ModelSpec,
    cache: Path,
    *,
    held_out: float,
    max_picture: float,
    workers: int,
    named: str,
    progress: Callable[[int, int | None], None],
    warn: Warn,
) -> None:
    """Index every image that decodes, and split them by the content of their pixels.

    `named` is the option that named the shards, and its value. `progress` and `warn` are as of
    `dataset.prepare_data`.

    Raises:
        DataError: Nothing decodes, or all images are the same.
        OutputError: The disk is full or cannot be written.
    """
    paths = [path.absolute() for path in shards]
    names = _names_of(paths)
    limit = limit_for(spec, max_picture)
    files = ShardFiles([os.fspath(path) for path in paths])
    known = [_Facts(stamp_of(path)) for path in paths]
    others, said = Counter[str](), CountedRemarks()
    skipped = 0
    with index_written(cache) as writer:

        def members() -> Iterator[Found | _Damage]:
            for number, path in enumerate(paths):
                shard = Shard(names[number], path, limit)
                yield from _members_of(number, shard, path)
                others.update(shard.others)
                if not shard.is_ended:
                    said.add([(names[number], "no mark of its end: it may be cut short")])

        def decode(found: Found | _Damage) -> _Seen:
            if isinstance(found, _Damage):
                return _Seen(reason=found.reason)
            return _seen(files, found, spec, limit)

        for found, seen in in_threads(decode, members(), workers or os.cpu_count() or 1):
            if isinstance(found, _Damage):
                warn(f"skipped {names[found.shard]}: {found.reason}")
                skipped += 1
                continue
            facts = known[found.shard]
            facts.digest.update(line_of_digest(found, seen.sha256))
            said.add((found.name, remark) for remark in seen.remarks)
            if seen.content:
                facts.images += 1
                writer.add(found, seen.content)
            else:
                warn(f"skipped {found.name}: {seen.reason}")
                skipped += 1
            progress(writer.images + skipped, None)
        images = writer.images
    for line in said.lines:
        warn(line)
    if others:
        warn(f"{named}: {not_taken(others)}")
    if not images:
        raise DataError(
            f"nothing in {named} could be decoded ({skipped} skipped): give shards that hold "
            "images that open in a viewer"
        )
    writer.split(held_out)
    found_files = tuple(
        ShardFile(
            path=os.fspath(path),
            size=facts.stamp[0],
            mtime_ns=facts.stamp[1],
            images=facts.images,
            sha256=facts.digest.hexdigest(),
        )
        for path, facts in zip(paths, known, strict=True)
    )
    save_set(
        cache,
        ShardSet(
            spec=spec,
            max_picture=max_picture,
            images=images,
            skipped=skipped,
            runs_in_window=writer.runs_in_window,
            shards=found_files,
        ),
    )


def check_shards(cache: Path, warn: Warn) -> None:
    """Make sure that a run's shards are those that it began with.

    Where only the time of the last change is another, as after a copy, the images are compared by
    their SHA-256. A shard that is gone is a warning, as its images can be done without.

    Raises:
        DataError: A shard holds something else by now, or all are gone.
    """
    known = set_in(cache)
    files = ShardFiles([shard.path for shard in known.shards])
    found: list[ShardFile] = []
    for number, shard in enumerate(known.shards):
        stamp, name = stamp_of(shard.path), printable(shard.path)
        one = shard
        if shard.images and stamp != shard.stamp:
            if not _is_there(shard):
                warn(f"{name} is gone: other images take the place of its {shard.images}")
            elif stamp[0] == shard.size and _digest_now(number, shard, files, known) == (
                shard.sha256
            ):
                one = shard.model_copy(update={"mtime_ns": stamp[1]})
            else:
                raise DataError(
                    f"{name} has changed since the run began (it had {shard.size} bytes and has "
                    f"{stamp[0]}): put back what it was, remove it to go on without it, or {AGAIN}"
                )
        found.append(one)
    if not any(shard.images and _is_there(shard) for shard in found):
        raise DataError(f"all shards of the run are gone: put them back, or {AGAIN}")
    if tuple(found) != known.shards:
        save_set(cache, known.model_copy(update={"shards": tuple(found)}))


def _is_there(shard: ShardFile) -> bool:
    # `Path.exists` raises an error in a folder that may not be searched.
    return os.path.exists(shard.path)  # noqa: PTH110


def _digest_now(number: int, shard: ShardFile, files: ShardFiles, known: ShardSet) -> str:
    """Return the digest of what a shard holds now, as far as it can be read."""
    path = Path(shard.path)
    members = _members_of(number, Shard(printable(shard.path), path, known.limit), path)
    images = (one for one in members if isinstance(one, Found))
    return digest_of_shard((one, _sha256_of(files, one, known.limit)) for one in images)


def _sha256_of(files: ShardFiles, found: Found, limit: PictureLimit) -> str:
    if too_large(found.size, limit) is not None:
        return ""
    try:
        return hashlib.sha256(files.content(found.shard, found.start, found.size)).hexdigest()
    except OSError:
        return ""


def _members_of(number: int, shard: Shard, path: Path) -> Iterator[Found | _Damage]:
    """Yield where the images of a shard lie, and at damage why the rest cannot be read."""
    if reason := why_no_file(path):
        yield _Damage(number, f"the shard {reason}")
        return
    try:
        for member in shard.located():
            yield Found(number, *member)
    except ImageError as error:
        yield _Damage(number, printable(error.clause()))


def _seen(files: ShardFiles, found: Found, spec: ModelSpec, limit: PictureLimit) -> _Seen:
    if (problem := too_large(found.size, limit)) is not None:
        return _Seen(reason=problem)
    try:
        data = files.content(found.shard, found.start, found.size)
    except OSError as error:
        return _Seen(reason=f"cannot be read: {error.strerror}")
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        picture = fitted_from_bytes(data, spec, limit)
    except ImageError as error:
        return _Seen(sha256, reason=printable(error.clause()))
    content = hashlib.sha256(picture.pixels.tobytes()).digest()
    return _Seen(sha256, content, remarks=picture.remarks)


def in_threads(
    function: Callable[[T], R], items: Iterable[T], workers: int
) -> Iterator[tuple[T, R]]:
    """Yield items and what a function makes of each, in order.

    A chunk at a time, so that results never pile up in memory.
    """
    left = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(itertools.islice(left, _CHUNK)):
            yield from zip(chunk, pool.map(function, chunk), strict=True)


def _names_of(paths: Sequence[Path]) -> list[str]:
    """Return what shards are called: by their path from the folder that they all lie below."""
    root = os.path.commonpath([path.parent for path in paths])
    return [printable(path.relative_to(root).as_posix()) for path in paths]
