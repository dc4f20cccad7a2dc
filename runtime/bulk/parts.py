"""Parts of a result: each a file of consecutive items, whole or absent, that outlives a kill."""

from __future__ import annotations

import abc
import contextlib
import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..bundle.load import Bundle
from ..bundle.manifest import STATISTICS
from ..core.atomic_files import replaced_file, set_aside
from ..core.documents import document_from_json, save_document
from ..core.errors import ConfigError, OutputError, writing_output
from ..core.npz_archive import write_array, write_value
from ..core.spec import StrictModel
from ..core.system.temporaries import sweep
from .rows import NUMBERS, TEXTS, Rows

RESTART = "to begin anew, say --restart"


class Job(StrictModel):
    """What a run is of: two runs with the same job make the same parts.

    It lies beside the parts, so that a later run knows whether they are of its own.
    """

    schema_version: Literal[1] = 1
    weights_sha256: str
    model: str  # what else decides the numbers: see `model_hash`
    data: tuple[str, ...]
    every: int
    column: str
    matrix: str | None
    track: int | None
    max_picture: float
    precision: str
    engines: tuple[str, ...]  # that made the parts, with their versions, in their order
    ood_above: float | None
    part_images: int
    batch_size: int
    is_complete: bool = False

    def differences(self, other: Job, *, but: frozenset[str] = frozenset()) -> list[str]:
        """Name what is not the same in another one, as its options are called.

        Two engines of one precision give latents that are equal within the gate, but for INT8:
        each of them has a graph with a quantization of its own.
        """
        fields = set(type(self).model_fields) - {"schema_version", "is_complete", "engines", *but}
        found = [
            name.replace("_", "-") for name in fields if getattr(self, name) != getattr(other, name)
        ]
        if self.precision != other.precision:
            found.remove("precision")
            found.append(f"precision ({self.precision}, and here {other.precision})")
        elif self.precision == "int8" and _kinds(self) != _kinds(other):
            here = other.engines[0]
            found.append(f"engine for INT8 ({' and '.join(self.engines)}, and here {here})")
        return sorted(found)

    def with_engines(self, others: tuple[str, ...]) -> Job:
        """Return the job as further engines go on with it."""
        return self.model_copy(update={"engines": tuple(dict.fromkeys(self.engines + others))})


def model_hash(bundle: Bundle, precision: str, *, is_scored: bool) -> str:
    """Return a SHA-256, in hexadecimal, of what makes rows differ between bundles of equal weights.

    It is how images are fitted and scaled, the quantization of INT8, and for scores the statistics.
    """
    manifest = bundle.manifest
    quantized = [
        one.sha256
        for one in manifest.graphs
        if one.graph == "encoder" and one.precision == precision == "int8"
    ]
    scored = [one.sha256 for one in manifest.files if is_scored and one.file == STATISTICS]
    parts = [manifest.model.model_dump_json(), *sorted(quantized), *scored]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _kinds(job: Job) -> set[str]:
    """Return the engines of a job without their versions."""
    words = (name.split() for name in job.engines)
    return {" ".join(one for one in name if not any(map(str.isdigit, one))) for name in words}


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What is known of a part without its rows."""

    count: int  # of items
    failed: int  # of those without a latent
    listing: str  # SHA-256 of its items' names and stamps, hexadecimal
    unread: int = 0  # of those without a latent, that could not be read

    @classmethod
    def of_rows(cls, rows: Rows, listing: str) -> PartFacts:
        """Return the facts of a part that has these rows."""
        return cls(len(rows), len(rows.failures), listing, len(rows.unread))


class Line(NamedTuple):
    """What a listing knows of an item: its name and its stamp."""

    name: str
    stamp: str


def listing_of(lines: Sequence[Line], unread: Sequence[int]) -> str:
    """Return a SHA-256 of a part's lines; of what could not be read a stamp says nothing."""
    digest, without = hashlib.sha256(), frozenset(unread)
    for row, (name, stamp) in enumerate(lines):
        line = f"{name}\0{'' if row in without else stamp}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


class Parts(abc.ABC):
    """The folder of a run's parts, with its job."""

    suffix: str

    def __init__(self, folder: Path, job_name: str) -> None:
        self.folder, self._job_path = folder, folder / job_name

    def job(self) -> Job | None:
        """Return the job that the parts are of; None where nothing was begun.

        ConfigError where it cannot be read.
        """
        if not self._job_path.exists():
            return None
        again = f"delete {self.folder}, or {RESTART}"
        return document_from_json(self._job_path, Job, error=ConfigError, again=again)

    def begin(self, job: Job) -> None:
        """Write the job down, also where a run goes on; OutputError where that cannot be."""
        with writing_output(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        save_document(self._job_path, job, indent=2)

    def finished(self) -> list[PartFacts]:
        """Return what is known of the parts that follow each other from the first on."""
        found = list[PartFacts]()
        while (facts := self._facts(self.path(len(found)))) is not None:
            found.append(facts)
        return found

    def drop_from(self, number: int) -> None:
        """Delete a part and those after it; OutputError where that cannot be."""
        name = re.compile(rf"part-(\d{{6,}}){re.escape(self.suffix)}")
        known = [(name.fullmatch(path.name), path) for path in self.folder.glob("part-*")]
        numbered = [(int(found[1]), path) for found, path in known if found]
        with writing_output(self.folder):
            # From the last to the first: a kill in between leaves parts that follow each other.
            for _, path in sorted(one for one in numbered if one[0] >= number)[::-1]:
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete the parts, then the job that says of what they are, and nothing else.

        The folder goes, too, where nothing is left in it. OutputError where a part stays.
        """
        sweep(self.folder)
        self.drop_from(0)
        with writing_output(self.folder):
            self._job_path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is a link, or something of others is in it
            self.folder.rmdir()

    def path(self, number: int) -> Path:
        """Return where a part is, counted from 0."""
        return self.folder / f"part-{number:06d}{self.suffix}"

    @abc.abstractmethod
    def save(self, number: int, rows: Rows, facts: PartFacts) -> None:
        """Write a part, whole or not at all; OutputError where it cannot be written."""

    @abc.abstractmethod
    def rows_of(self, number: int) -> Rows:
        """Read a part; OutputError where it is damaged."""

    @abc.abstractmethod
    def _facts(self, path: Path) -> PartFacts | None:
        """Return what is known of a part; None where it is missing or damaged."""


class NpzParts(Parts):
    """Parts as .npz files, which one .npz is made of in the end."""

    suffix = ".npz"

    def __init__(self, output: Path) -> None:
        super().__init__(output.with_name(f"{output.name}.parts"), "job.json")

    def save(self, number: int, rows: Rows, facts: PartFacts) -> None:
        """Write a part; see `Parts.save`."""
        with (
            replaced_file(self.path(number)) as temporary,
            zipfile.ZipFile(temporary, "w") as archive,
        ):
            for name, values in (*rows.numbers.items(), *rows.latents.items()):
                write_array(archive, name, values.dtype, values.shape, [values])
            for name in TEXTS:
                texts = np.array(rows.texts[name], np.str_)
                write_array(archive, name, texts.dtype, texts.shape, [texts])
            write_value(archive, "facts", [facts.count, facts.failed, facts.unread])
            write_value(archive, "listing", facts.listing)

    def rows(self, count: int, *names: str) -> Iterator[Rows]:
        """Read the first so many parts, one after another; OutputError where one is damaged.

        Where columns are named, no more than these and `reasons` are read.
        """
        for number in range(count):
            yield self.rows_of(number, *names)

    def rows_of(self, number: int, *names: str) -> Rows:
        """Read a part, or some columns of it; see `Parts.rows_of`."""
        path = self.path(number)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                read = {*held.files} & {*names, "reasons"} if names else {*held.files}
                return Rows(
                    {name: held[name].tolist() for name in TEXTS if name in read},
                    {name: held[name] for name in NUMBERS if name in read},
                    {name: held[name] for name in ("mu", "log_var") if name in read},
                )
        except _UNREADABLE as error:
            raise damaged(path) from error

    def _facts(self, path: Path) -> PartFacts | None:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                count, failed, unread = map(int, held["facts"])
                return PartFacts(count, failed, str(held["listing"]), unread)
        except _UNREADABLE:
            return None


def begun(
    parts: Parts, job: Job, *, restart: bool, is_size_asked: bool, retries: bool = False
) -> Job:
    """Return the job to do: that of parts which are there, where it is the same one.

    An earlier result is set aside, unless one `retries` its failures. ConfigError where the parts
    are of another job; with `restart` they are deleted.
    """
    if restart:
        parts.clear()
        return job
    earlier = parts.job()
    if earlier is None or (earlier.is_complete and not retries):
        parts.drop_from(0)  # nobody knows of which model and data they are
        return job
    chosen = frozenset() if is_size_asked else frozenset(("batch_size",))
    if others := earlier.differences(job, but=chosen):
        what = "a result" if earlier.is_complete else "a run that was cut off,"
        raise ConfigError(
            f"{parts.folder} holds {what} with another {', '.join(others)}: "
            f"finish it with the same options; {RESTART}"
        )
    return earlier.with_engines(job.engines)


def set_aside_complete(
    parts: Parts, output: Path, *, restart: bool, retries: bool = False
) -> Path | None:
    """Rename a folder of Parquet files that is whole, or is nobody's; return its new name.

    One that is whole stays where one `retries` its failures. ConfigError where nobody can tell
    which it is, unless it is to `restart`; or where there is nothing that could be retried.
    """
    if retries and output.exists() and parts.job() is None:
        raise ConfigError(
            f"{output} is there, and nothing of it is known that another try may read: leave "
            "--retry-failures out to encode all of it anew"
        )
    if isinstance(parts, NpzParts) or not output.exists() or retries:
        return None
    try:
        job = parts.job()
    except ConfigError:
        if not restart:
            raise
        job = None
    return set_aside(output, or_folder=True) if job is None or job.is_complete else None


def damaged(path: Path) -> OutputError:
    """Return the error of a part that is."""
    return OutputError(f"{path} is damaged: delete it, and run again")


_UNREADABLE = (
    *(OSError, ValueError, KeyError, EOFError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
