"""Lists of pictures: lines of a text, and a column of a Parquet table; read as they are needed."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from ..core.documents import opened_regular
from ..core.errors import SourceError, needed_for

LIST_SUFFIXES = frozenset((".txt", ".lst", ".list"))
TABLE_SUFFIX = ".parquet"
_LONGEST = 1 << 16
_AGAIN = "give one path or address in each line, as UTF-8"


def listed_lines(path: Path) -> Generator[str, None, None]:
    """Yield the lines of a text that are not empty; SourceError where it is none."""
    with opened_regular(path, most_bytes=None, error=SourceError, again=_AGAIN) as file:
        number = 0
        while line := file.readline(_LONGEST):
            number += 1
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
            except UnicodeDecodeError as error:
                raise SourceError(f"{path}: line {number} is no UTF-8: {_AGAIN}") from error
            if len(line) == _LONGEST:
                raise SourceError(f"{path}: line {number} has {_LONGEST} bytes or more: {_AGAIN}")
            if text.strip():
                yield text


def listed_table(path: Path, column: str) -> Generator[str, None, None]:
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
        for batch in table.to_batches(columns=[column], batch_size=8192):
            yield from (text or "" for text in batch.column(0).to_pylist())
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, SourceError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"cannot read {path}: {reason}; give a Parquet file") from error
