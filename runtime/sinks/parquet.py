"""ParquetSink: rows as a folder of Parquet files that can be read at any moment."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..core.row import COLUMNS, Row, RunFacts
from ..core.system.temporaries import sweep, temporary_beside
from .base import Sink, metadata_of, summary_json

PUBLISH_AFTER_S = 0.5
PART_ROWS = 8192
PART_S = 60.0
_TYPES = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
_TEXTS = [*(name for name, kind in COLUMNS.items() if kind is str), "summary"]


class ParquetSink(Sink):
    """Rows as a table: the columns of a row, `mu` as a list of float32, and `summary` as JSON.

    A Parquet file can be read only once its footer is there. So the output is a folder of part
    files, as Spark writes them, and the newest part is written anew under a hidden name and
    renamed over itself until it holds 8192 rows or a minute. A process that is killed loses what
    came within the last second.
    """

    def __init__(self, output: str, facts: RunFacts) -> None:
        fields = [pa.field(name, _TYPES[kind]) for name, kind in COLUMNS.items()]
        # Not a list of fixed size: pyarrow before 26 does not read one that may be null.
        fields += [pa.field("mu", pa.list_(pa.float32())), pa.field("summary", pa.string())]
        metadata = {f"motorvae.{key}": value for key, value in metadata_of(facts).items()}
        self._schema = pa.schema(fields, metadata=metadata)
        self._rows: list[Row] = []
        self._batches: list[pa.RecordBatch] = []
        self._part = self._part_rows = self._published = 0
        self._part_since_s = self._waiting_since_s = time.monotonic()
        with self._writing():
            sweep(Path(output))  # what a killed process left in the folder that is set aside
            self._folder = self._new_path(output, or_folder=True)
            self._folder.mkdir()
            self._stays_at(self._folder)
        self._publish()  # a table without rows can be read too

    def write(self, row: Row) -> None:
        """Take one row; `flush` puts it into the folder."""
        if not self._rows:
            self._waiting_since_s = time.monotonic()
        self._rows.append(row)
        self.rows += 1
        if self._part_rows + len(self._rows) >= PART_ROWS:
            self._publish()

    def flush(self) -> None:
        """Put rows that have waited for half a second into the folder, or lose them if it fails."""
        if self._rows and time.monotonic() - self._waiting_since_s >= PUBLISH_AFTER_S:
            self._publish()

    def close(self) -> None:
        """Put all rows into the folder; calling it again does nothing."""
        if self._rows:
            self._publish()

    def _publish(self) -> None:
        """Replace the newest part by one with the waiting rows."""
        columns = [[getattr(row, name) for row in self._rows] for name in COLUMNS]
        columns += [[row.mu for row in self._rows], [summary_json(row) for row in self._rows]]
        batch = pa.RecordBatch.from_arrays(
            [pa.array(one, of.type) for one, of in zip(columns, self._schema, strict=True)],
            schema=self._schema,
        )
        batches = [*self._batches, batch]
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_batches(batches, self._schema), buffer, use_dictionary=_TEXTS)
        name = f"part-{self._part:06d}.parquet"
        # Readers pass over the hidden folder that the new part is written in.
        with self._writing(self._forget), temporary_beside(self._folder / name) as hidden:
            with hidden.open("wb") as file:
                file.write(memoryview(buffer.getvalue()))
                file.flush()
                os.fsync(file.fileno())  # else a power cut may leave the new name without bytes
            hidden.replace(self._folder / name)
        self._batches, self._rows = batches, []
        self._published = self.rows
        self._part_rows = sum(batch.num_rows for batch in batches)
        if self._part_rows >= PART_ROWS or time.monotonic() - self._part_since_s >= PART_S:
            self._batches, self._part_rows = [], 0
            self._part += 1
            self._part_since_s = time.monotonic()

    def _forget(self) -> None:
        """Give up the rows that wait."""
        self._rows, self.rows = [], self._published
