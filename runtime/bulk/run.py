"""A whole data set through the encoder: in batches, in parts, resumed where it was cut off."""

from __future__ import annotations

import contextlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, get_args

from ..bundle.load import Bundle
from ..core.atomic_files import check_writable
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
from .parts import Job, Line, NpzParts, PartFacts, Parts, listing_of
from .rows import Rows, joined, replaced, taken

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
        resumed_failed: Those of these that have no latent.
        failures: Name and reason of the first failures of this run.
        remarks: What to know of what was read; a line each, once the run is over.
    """

    count: int = 0
    failed: int = 0
    resumed: int = 0
    resumed_failed: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    changed: Callable[[], None] = lambda: None  # called after each batch

    @property
    def resumed_latents(self) -> int:
        """How many latents there were before."""
        return self.resumed - self.resumed_failed

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
    """Items of one part, in its order; `lines` are of the whole part, where these are its last.

    Of a part that is there `rows` says which of its rows they are, where they are not all: those
    that are tried again.
    """

    items: list[Item]
    part: int
    lines: Sequence[Line] | None = None
    rows: Sequence[int] | None = None


class _ChangedError(Exception):
    """A part is to be made again of items that were read already, and not kept."""

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


def encode_to_parts(
    inputs: Iterable[Item],
    pool: Pool,
    parts: Parts,
    job: Job,
    progress: Progress,
    *,
    retries: bool = False,
) -> list[PartFacts]:
    """Encode what is not there yet, part after part; return what is known of all parts.

    A part whose items are no longer those that are listed is made again, and of items that cannot
    be had again without those before them, such as frames, all that follow it as well; a row that
    has a latent keeps it where its item can no longer be read. Where one `retries`, each row of
    what could not be read is made again in its place.

    Raises:
        BackendError: The encoder failed, or a latent is not finite.
        ConfigError: The data of a finished result is no longer the same.
        OutputError: A part cannot be written.
    """
    changed = set[int]()
    while True:
        progress.count = progress.failed = progress.resumed = progress.resumed_failed = 0
        done = parts.finished()
        unread = dict[int, Sequence[int]]()
        for number, facts in enumerate(done):
            if facts.unread:
                # One that is damaged is as one of other items.
                with (
                    contextlib.nullcontext()
                    if job.is_complete
                    else contextlib.suppress(OutputError)
                ):
                    unread[number] = parts.rows_of(number).unread
        plan = _Plan(
            *(job.batch_size, job.part_images, done, unread),
            retries=retries,
            is_finished=job.is_complete,
            changed=changed,
        )
        try:
            found = _encoded(plan, inputs, pool, parts, progress)
        except _ChangedError as error:
            changed |= set(range(error.part, len(done)))
            parts.drop_from(error.part)
        else:
            if changed:
                count = f"{len(changed)} parts are" if len(changed) > 1 else "1 part is"
                progress.remarks.append(f"the data changed since the last run: {count} made again")
            return found


@dataclass
class _Plan:
    """How items are cut into batches, and what is there of an earlier run."""

    batch_size: int
    part_images: int | None = None
    done: Sequence[PartFacts] = ()
    unread: Mapping[int, Sequence[int]] = field(default_factory=dict)  # rows, of parts
    retries: bool = False  # whether these rows are made again
    is_finished: bool = False  # an earlier result, of which nothing else is to change
    changed: set[int] = field(default_factory=set)  # parts, of other items than they were

    def batches(self, inputs: Iterable[Item]) -> Iterator[_Batch]:
        """Cut items into parts and these into batches; of parts that are done check the listing.

        Of those that stay as they are an empty batch is given. ConfigError where a finished
        result is of other items; _ChangedError as above.
        """
        part = held = 0
        lines, items = list[Line](), list[Item | None]()
        for item in inputs:
            is_done = part < len(self.done)
            lines.append(Line(item.name, item.stamp))
            items.append(None if is_done and item.held_bytes else item)
            held += item.held_bytes
            if len(lines) == self.part_images:
                yield from self._ended(items, part, lines)
                part, lines, items, held = part + 1, [], [], 0
            elif not is_done and (len(items) == self.batch_size or held > _MOST_HELD_BYTES):
                yield _Batch([one for one in items if one], part)
                items, held = [], 0
        if lines:
            yield from self._ended(items, part, lines)
            part += 1
        if part < len(self.done):
            self._check_may_change()

    def _ended(self, items: list[Item | None], part: int, lines: list[Line]) -> Iterator[_Batch]:
        """Yield what is to be encoded of a part whose items are all listed."""
        if part >= len(self.done):
            self._check_may_change()
            yield _Batch([one for one in items if one], part, lines)
            return
        unread: Sequence[int] = self.unread.get(part, ())
        facts, digest = self.done[part], listing_of(lines, unread)
        is_same = (facts.listing, facts.count) == (digest, len(lines))
        rows: Sequence[int] = unread if self.retries else ()
        if not is_same:
            self._check_may_change()
            self.changed.add(part)
            rows = range(len(lines))
        again = [items[row] for row in rows]
        kept = [one for one in again if one]
        if len(kept) < len(again):
            raise _ChangedError(part)
        of_part = rows if is_same else None
        last = max(len(kept) - 1, 0) // self.batch_size * self.batch_size
        for start in range(0, last, self.batch_size):
            yield _Batch(kept[start : start + self.batch_size], part)
        yield _Batch(kept[last:], part, lines, of_part)

    def _check_may_change(self) -> None:
        if self.is_finished:
            raise ConfigError(
                "the data or a part changed since the result was finished, which stays as it is: "
                "leave --retry-failures out to encode all of it anew"
            )


def _encoded(
    plan: _Plan, inputs: Iterable[Item], pool: Pool, parts: Parts, progress: Progress
) -> list[PartFacts]:
    """Encode batches, and save parts that are not done; return what is known of each part."""
    waiting, collected, known = deque[_Batch](), list[Rows](), dict[int, PartFacts]()

    def asked() -> Iterator[list[Item]]:
        for batch in plan.batches(inputs):
            if batch.rows is not None:
                facts = known[batch.part] = plan.done[batch.part]
                count = len(batch.rows)
                progress.count += facts.count - count
                progress.failed += facts.failed - count
                progress.resumed += facts.count - count
                progress.resumed_failed += facts.failed - count
                progress.changed()
            if batch.rows is None or batch.items:
                waiting.append(batch)
                yield batch.items

    said = CountedRemarks()
    for rows in pool.rows(asked()):
        batch = waiting.popleft()
        progress.took(rows)
        said.add(rows.remarks)
        collected.append(rows)
        if batch.lines is not None:
            whole, collected = joined(collected), []
            if batch.rows is not None:
                whole = replaced(parts.rows_of(batch.part), batch.rows, whole)
            elif batch.part < len(plan.done):
                whole = _with_latents_of(parts, batch.part, whole)
            facts = PartFacts.of_rows(whole, listing_of(batch.lines, whole.unread))
            known[batch.part] = facts
            parts.save(batch.part, whole, facts)
    parts.drop_from(len(known))  # of an earlier run, of what is no longer there
    progress.remarks += said.lines
    return [known[number] for number in range(len(known))]


def _with_latents_of(parts: Parts, number: int, whole: Rows) -> Rows:
    """Return the rows of a part that was made again, with what it had and cannot be read now."""
    with contextlib.suppress(OutputError):  # a part that is damaged has nothing
        earlier = parts.rows_of(number)
        if earlier.texts["names"] == whole.texts["names"]:
            kept = [row for row in whole.unread if earlier.is_ok[row]]
            return replaced(whole, kept, taken(earlier, kept))
    return whole


def finish(
    parts: Parts, job: Job, found: Sequence[PartFacts], output: Path, bundle: Bundle
) -> Path | None:
    """Make the result of its parts; return where an earlier result is kept, if there was one."""
    complete = job.model_copy(update={"is_complete": True})
    if not isinstance(parts, NpzParts):
        parts.begin(complete)
        return None
    spec = bundle.spec
    shape = spec.latent_shape or (spec.latent_size,)
    kept = save_npz(output, partial(parts.rows, len(found)), shape, bundle.manifest.weights_sha256)
    with contextlib.suppress(OutputError):  # the result is whole all the same
        if any(part.unread for part in found):
            parts.begin(complete)
        else:
            parts.clear()
    return kept


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
    for one in pool.rows(batch.items for batch in _Plan(batch_size).batches(inputs)):
        progress.took(one)
        rows.append(one)
    whole = joined(rows) if rows else None
    facts = [] if whole is None else [PartFacts.of_rows(whole, "")]
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
