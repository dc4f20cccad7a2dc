"""Rows as lines of text: JSON Lines in a file or on standard output, and CSV."""

from __future__ import annotations

import abc
import contextlib
import csv
import io
import os
import sys

import numpy as np
import orjson

from ..core.errors import OutputError
from ..core.row import COLUMNS, SCHEMA, Row, RunFacts, json_from_row
from ..core.text import spreadsheet_cell
from .base import NUMPY_TOO, STANDARD_OUTPUT, Sink

_LINE_END = "\r\n"  # the csv module quotes a cell that has one of these, so it must know both


class LinesSink(Sink):
    """One line a row; every line that was written is whole and stays so.

    Each line goes to the system in one write as soon as it is there. Where a write stops in
    the middle of a line, as on a full disk, that line is cut off again. The `head` is a first line
    that is no row.
    """

    def __init__(self, output: str, _facts: RunFacts, head: bytes = b"") -> None:
        self._whole_bytes = 0
        self._is_file = output != STANDARD_OUTPUT
        if not self._is_file:
            if sys.__stdout__ is None:
                raise OutputError("standard output is closed: name a file for the rows")
            self.name, self._handle = "standard output", sys.stdout.fileno()
            return
        with self._writing():
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
            path = self._new_path(output)
            self._handle = os.open(path, flags, 0o666)
            self._stays_at(path)
        try:
            self._write_whole(head)
        except OutputError:
            self.close()
            raise

    def write(self, row: Row) -> None:
        """Write one row; see `Sink.write`."""
        self._write_whole(self._line_of(row))
        self.rows += 1

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        if self._is_file and self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    @abc.abstractmethod
    def _line_of(self, row: Row) -> bytes:
        """Return a row with the newline that ends it."""

    def _write_whole(self, line: bytes) -> None:
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError:
            with self._writing(self._cut_off):  # only here, as a row should cost no context manager
                raise
        self._whole_bytes += len(line)

    def _cut_off(self) -> None:
        """Leave only whole lines in a file."""
        if self._is_file:
            with contextlib.suppress(OSError):  # the disk itself may be gone
                os.ftruncate(self._handle, self._whole_bytes)


class JsonLinesSink(LinesSink):
    """Rows as JSON objects, whose key `schema` is the version of the fields.

    A latent of several axes has its shape beside it, as `latent_shape`.
    """

    def __init__(self, output: str, facts: RunFacts) -> None:
        shape = orjson.dumps({"latent_shape": facts.latent_shape})[1:]
        self._end = b"," + shape + b"\n" if len(facts.latent_shape) > 1 else b"}\n"
        super().__init__(output, facts)

    def _line_of(self, row: Row) -> bytes:
        return json_from_row(row)[:-1] + (b"}\n" if row.mu is None else self._end)


class CsvSink(LinesSink):
    """Rows as a table: the columns of a row, `schema`, and `mu_0` to the last latent.

    Of a latent of several axes the columns have its indices, as in `mu_3_31_31`.

    What is not known is empty. Numbers are the shortest that read back equal. A text that a
    spreadsheet would take for a formula, as file names may be, begins with an apostrophe.
    """

    def __init__(self, output: str, facts: RunFacts) -> None:
        self._text = io.StringIO()
        self._csv = csv.writer(self._text, lineterminator=_LINE_END)
        indices = np.ndindex(*facts.latent_shape)
        latents = ["_".join(map(str, ("mu", *index))) for index in indices]
        self._no_latents = b"," * facts.latent_size + b"\n"
        super().__init__(output, facts, self._cells([*COLUMNS, "schema", *latents]) + b"\n")

    def _line_of(self, row: Row) -> bytes:
        values = [getattr(row, name) for name in COLUMNS]
        cells = self._cells([*map(_cell, values), SCHEMA])
        if row.mu is None:
            return cells + self._no_latents
        return cells + b"," + orjson.dumps(row.mu, option=NUMPY_TOO)[1:-1] + b"\n"

    def _cells(self, values: list[object]) -> bytes:
        self._text.seek(0)
        self._text.truncate()
        self._csv.writerow(values)
        return self._text.getvalue().removesuffix(_LINE_END).encode()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()  # as in JSON
    return spreadsheet_cell(value) if isinstance(value, str) else value
