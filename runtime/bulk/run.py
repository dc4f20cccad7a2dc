"""A whole data set through the encoder: in batches, in parts, resumed where it was cut off."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, get_args

from ..bundle.load import Bundle
from ..core.atomic_files import check_writable, set_aside
from ..core.errors import ConfigError, DataError, OutputError, needed_for
from ..core.spec import Matrix
from ..core.text import printable
from ..pixels.files.image_files import CountedRemarks, counted_remarks
from ..pixels.picture import MAX_PICTURE
from ..sources.base import CaptureRequest
from .encoded import Encoded, save_npz
from .inputs import InputRequest, Inputs
from .item import Item
from .listings import TABLE_SUFFIX
from .parts import RESTART, Job, NpzParts, PartFacts, Parts
from .rows import Rows, joined

PART_IMAGES = 4096
MOST_WORKERS = 1024
_SHOWN_FAILURES = 20
_MOST_HELD_BYTES = 32 << 20
"""Of one batch, of items that hold their bytes already, as those of a streamed shard do."""


@dataclass(frozen=True)
class DataRequest:
    """What is to be encoded, and how it is read."""

    data: tuple[str, ...]
    every: int = 1
    column: str = "path"
    matrix: Matrix | None = None
    track: int | None = None
    max_picture: float = MAX_PICTURE
    batch_size: int | None = None
    part_images: int = PART_IMAGES
    workers: int | None = None  # threads that decode; None: one for each core

    def check(self, output: Path | None = None) -> None:
        """Refuse numbers out of range, an unknown matrix, and an output that is not to be."""
        if self.track is not None and self.track < 1:
            raise ConfigError(
                f"track={self.track} is out of range: take a number from 1, or leave it out"
            )
        if self.matrix is not None and self.matrix not in (known := get_args(Matrix)):
            raise ConfigError(
                f"matrix={str(self.matrix)[:40]!r}: take {', '.join(known)}, or leave it out"
            )
        if not 0 < self.max_picture < math.inf:
            raise ConfigError(
                f"max_picture={self.max_picture} is out of range: take megapixels above 0"
            )
        if self.every < 1:
            raise ConfigError(f"every={self.every} is out of range: take a number from 1")
        if self.batch_size is not None and not 1 <= self.batch_size <= 1024:
            raise ConfigError(f"batch_size={self.batch_size} is out of range: take 1 to 1024")
        if self.workers is not None and not 1 <= self.workers <= MOST_WORKERS:
            raise ConfigError(f"workers={self.workers} is out of range: take 1 to {MOST_WORKERS}")
        if not 1 <= self.part_images <= 1 << 20:
            raise ConfigError(
                f"part_images={self.part_images} is out of range: take 1 to {1 << 20}"
            )
        if output is not None:
            if output.suffix not in {".npz", TABLE_SUFFIX}:
                raise ConfigError(
                    f"output={str(output)!r}: name a file ending in .npz, or a folder ending in "
                    f"{TABLE_SUFFIX}"
                )
            check_writable(output, or_folder=output.suffix == TABLE_SUFFIX)
            self._check_apart(output.resolve())

    def _check_apart(self, output: Path) -> None:
        """Refuse an output that is read as well: it would be renamed before that."""
        if not output.exists():
            return
        for text in self.data:
            path = Path(os.path.realpath(os.path.expanduser(text)))  # noqa: PTH111
            if output in {path, *path.parents}:
                raise ConfigError(f"{printable(text)} is in what is written: name another --output")

    def inputs(self, bundle: Bundle) -> Inputs:
        """Find what the texts name; see `Inputs`."""
        capture = CaptureRequest(
            spec=bundle.spec, matrix=self.matrix, track=self.track, max_picture=self.max_picture
        )
        return Inputs(self.data, InputRequest(bundle.spec, capture, self.every, self.column))


@dataclass
class Progress:
    """What a run has done so far, for whoever shows it.

    Attributes:
        count: Items in all, those of earlier runs among them.
        failed: Those of them that have no latent.
        resumed: Those that earlier runs had done.
        failures: Name and reason of the first failures of this run.
        remarks: What to know of what was read; a line each, once the run is over.
    """

    count: int = 0
    failed: int = 0
    resumed: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    changed: Callable[[], None] = lambda: None  # called after each batch

    def took(self, rows: Rows) -> None:
        """Count rows."""
        self.count += len(rows)
        failures = rows.failures
        self.failed += len(failures)
        self.failures += failures[: _SHOWN_FAILURES - len(self.failures)]
        self.changed()


class Pool(Protocol):
    """What encodes batches: of this machine an `EncoderPool`, of a cluster a `RayPool`."""

    def rows(self, batches: Iterable[Sequence[Item]]) -> Iterator[Rows]:
        """Yield the rows of each batch, in the order given; there may be no item in one."""


class _Batch(NamedTuple):
    """Consecutive items of one part; `listing` is of the whole part, where these are its last."""

    items: list[Item]
    part: int
    listing: str | None = None


class _ChangedError(Exception):
    """The items of a part that is there are not those that it was made of."""

    def __init__(self, part: int) -> None:
        super().__init__(part)
        self.part = part


def parts_of(output: Path, bundle: Bundle) -> Parts:
    """Return where a run keeps what is done; MissingDependencyError without Parquet's package."""
    if output.suffix != TABLE_SUFFIX:
        return NpzParts(output)
    with needed_for(f"writing {output}", extra="parquet", instead="write an .npz file"):
        from .parquet_parts import ParquetParts  # noqa: PLC0415  # optional
    return ParquetParts(output, bundle.spec, bundle.manifest.weights_sha256)


def begun(parts: Parts, job: Job, *, restart: bool, is_size_asked: bool) -> Job:
    """Return the job to do: that of parts which are there, where it is the same one.

    An earlier result is set aside. ConfigError where the parts are of another job; with `restart`
    they are deleted.
    """
    if restart:
        parts.clear()
        return job
    earlier = parts.job()
    if earlier is None or earlier.is_complete:
        parts.drop_from(0)  # nobody knows of which model and data they are
        return job
    chosen = frozenset() if is_size_asked else frozenset(("batch_size",))
    if others := earlier.differences(job, but=chosen):
        raise ConfigError(
            f"{parts.folder} holds a run that was cut off, with another {', '.join(others)}: "
            f"finish it with the same options; {RESTART}"
        )
    return earlier


def encode_to_parts(
    inputs: Iterable[Item], pool: Pool, parts: Parts, job: Job, progress: Progress
) -> list[PartFacts]:
    """Encode what is not there yet, part after part; return what is known of all parts.

    A part whose items are no longer those that are listed is made again with all that follow it.

    Raises:
        BackendError: The encoder failed, or a latent is not finite.
        OutputError: A part cannot be written.
    """
    done = parts.finished()
    while True:
        progress.count = progress.failed = progress.resumed = 0
        try:
            return list(_encoded(_batches(inputs, job, done), pool, parts, progress, done))
        except _ChangedError as error:
            parts.drop_from(error.part)
            again = len(done) - error.part
            done = done[: error.part]
            progress.remarks.append(
                f"the data changed since the last run: {again} parts are made again"
            )


def _encoded(
    batches: Iterator[_Batch],
    pool: Pool,
    parts: Parts,
    progress: Progress,
    done: Sequence[PartFacts],
) -> Iterator[PartFacts]:
    """Encode batches, and save the parts that are not done; yield what is known of each part."""
    waiting, collected, known = deque[_Batch](), list[Rows](), list[PartFacts]()

    def asked() -> Iterator[list[Item]]:
        for batch in batches:
            if batch.part >= len(done):
                waiting.append(batch)
                yield batch.items
                continue
            facts = done[batch.part]
            known.append(facts)
            progress.count += facts.count
            progress.failed += facts.failed
            progress.resumed += facts.count
            progress.changed()

    said = CountedRemarks()
    for rows in pool.rows(asked()):
        batch = waiting.popleft()
        progress.took(rows)
        said.add(rows.remarks)
        collected.append(rows)
        if batch.listing is not None:
            whole, collected = joined(collected), []
            facts = PartFacts(len(whole), len(whole.failures), batch.listing)
            parts.save(batch.part, whole, facts)
            known.append(facts)
    parts.drop_from(len(known))  # of an earlier run, of what is no longer there
    progress.remarks += said.lines
    yield from known


def _batches(inputs: Iterable[Item], job: Job, done: Sequence[PartFacts]) -> Iterator[_Batch]:
    """Cut items into parts and these into batches; of parts that are done only check the listing.

    Of those an empty batch is given. _ChangedError where one is of other items.
    """
    part = count = 0
    listing, items, held = hashlib.sha256(), list[Item](), 0

    def checked(digest: str) -> None:
        if part < len(done) and (done[part].listing, done[part].count) != (digest, count):
            raise _ChangedError(part)

    for item in inputs:
        listing.update(f"{item.name}\0{item.stamp}\n".encode("utf-8", "surrogateescape"))
        count += 1
        if part >= len(done):
            items.append(item)
            held += item.held_bytes
        if count == job.part_images:
            digest = listing.hexdigest()
            checked(digest)
            yield _Batch(items, part, digest)
            part, count, listing, items, held = part + 1, 0, hashlib.sha256(), [], 0
        elif len(items) == job.batch_size or held > _MOST_HELD_BYTES:
            yield _Batch(items, part)
            items, held = [], 0
    if count:
        digest = listing.hexdigest()
        checked(digest)
        yield _Batch(items, part, digest)


def finish(
    parts: Parts, job: Job, found: Sequence[PartFacts], output: Path, bundle: Bundle
) -> Path | None:
    """Make the result of its parts; return where an earlier result is kept, if there was one."""
    if not isinstance(parts, NpzParts):
        parts.begin(job.model_copy(update={"is_complete": True}))
        return None
    spec = bundle.spec
    shape = spec.latent_shape or (spec.latent_size,)
    kept = save_npz(output, lambda: parts.rows(len(found)), shape, bundle.manifest.weights_sha256)
    with contextlib.suppress(OutputError):  # the result is whole all the same
        parts.clear()
    return kept


def set_aside_complete(parts: Parts, output: Path, *, restart: bool) -> Path | None:
    """Rename a folder of Parquet files that is whole, or is nobody's; return its new name.

    ConfigError where nobody can tell which it is, unless it is to `restart`.
    """
    if isinstance(parts, NpzParts) or not output.exists():
        return None
    try:
        job = parts.job()
    except ConfigError:
        if not restart:
            raise
        job = None
    return set_aside(output, or_folder=True) if job is None or job.is_complete else None


def refuse_nothing(inputs: Inputs, found: Sequence[PartFacts], progress: Progress) -> None:
    """Raise a DataError where not one item has a latent."""
    if any(part.count > part.failed for part in found):
        return
    if not found:
        raise DataError(f"there is no image in {inputs.name}: name other images or video")
    reason = f" (first: {progress.failures[0][1]})" if progress.failures else ""
    raise DataError(f"nothing in {inputs.name} decodes{reason}: name other images or video")


def encode_in_memory(inputs: Inputs, pool: Pool, batch_size: int, bundle: Bundle) -> Encoded:
    """Encode a data set to arrays; errors as of `encode_to_parts`, and DataError for nothing."""
    progress, rows = Progress(), list[Rows]()
    items = _in_batches(inputs, batch_size)
    for one in pool.rows(items):
        progress.took(one)
        rows.append(one)
    whole = joined(rows) if rows else None
    facts = [] if whole is None else [PartFacts(len(whole), len(whole.failures), "")]
    refuse_nothing(inputs, facts, progress)
    if whole is None:
        raise DataError(f"there is no image in {inputs.name}: name other images or video")
    spec = bundle.spec
    return Encoded.of_rows(
        whole,
        inputs.remarks + counted_remarks(whole.remarks),
        spec.latent_shape or (spec.latent_size,),
        bundle.manifest.weights_sha256,
    )


def _in_batches(inputs: Iterable[Item], size: int) -> Iterator[list[Item]]:
    items, held = list[Item](), 0
    for item in inputs:
        items.append(item)
        held += item.held_bytes
        if len(items) == size or held > _MOST_HELD_BYTES:
            yield items
            items, held = [], 0
    if items:
        yield items
