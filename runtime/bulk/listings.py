"""Lists of pictures: lines of a text, and a column of a Parquet table; read as they are needed."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from ..core.documents import opened_regular
from ..core.errors import SourceError, needed_for

LIST_SUFFIXES = frozenset((".txt", ".lst", ".list"))
TABLE_SUFFIX = ".parquet"
_LONGEST = 1 << 16
_TRIED = 64
_AGAIN = "give one path or address in each line, as UTF-8"


class BadLine(NamedTuple):
    """A line of a list, or a row of a table, that names nothing, counted from 1; and why."""

    number: int
    reason: str


def listed_lines(path: Path) -> Generator[str | BadLine, None, None]:
    """Yield the lines of a text that are not empty.

    SourceError where it is none: where more than half of its first lines are bad.
    """
    with opened_regular(path, most_bytes=None, error=SourceError, again=_AGAIN) as file:
        lines = _lines(file)
        first = list(itertools.islice(lines, _TRIED))
        bad = [line for line in first if isinstance(line, BadLine)]
        if len(bad) * 2 > len(first):
            raise SourceError(f"{path}: line {bad[0].number} {bad[0].reason}: {_AGAIN}")
        yield from first
        yield from lines


def _lines(file: IO[bytes]) -> Iterator[str | BadLine]:
    for number in itertools.count(1):
        if not (line := file.readline(_LONGEST)):
            return
        if len(line) == _LONGEST and not line.endswith(b"\n"):
            while (rest := file.readline(_LONGEST)) and not rest.endswith(b"\n"):
                pass
            yield BadLine(number, f"has {_LONGEST} bytes or more")
            continue
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
        except UnicodeDecodeError:
            yield BadLine(number, "is no UTF-8")
            continue
        if "\0" in text:
            yield BadLine(number, "holds a NUL, as no text does")
        elif text.strip():
            yield text


def listed_table(path: Path, column: str) -> Generator[str | BadLine, None, None]:
    """Yield the texts in a column of a Parquet file or folder of them, "" where there is none."""
    with needed_for("listings in Parquet", extra="parquet"):
        import pyarrow as pa  # noqa: PLC0415  # optional
        import pyarrow.dataset as ds  # noqa: PLC0415
    try:
        table = ds.dataset(path, format="parquet")
        if column not in table.schema.names:
            raise SourceError(
                f"{path} has no column {column!r}, but {', '.join(table.schema.names)[:200]}: "
                "name one with --column"
            )
        kind = table.schema.field(column).type
        text = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(text) or pa.types.is_large_string(text)):
            raise SourceError(f"{path}: column {column!r} is {kind}, no text: name another one")
        number = 0
        for batch in table.to_batches(columns=[column], batch_size=8192):
            for value in batch.column(0):
                number += 1
                try:
                    yield value.as_py() or ""
                except UnicodeDecodeError:  # Parquet's files are not checked for that
                    yield BadLine(number, "is no UTF-8")
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, SourceError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"cannot read {path}: {reason}; give a Parquet file") from error
