"""NpzSink: every column as a numpy array, in one .npz that is whole or absent."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.atomic_files import put_new
from ..core.npz_archive import Block, write_array, write_value
from ..core.row import COLUMNS, SCHEMA, Row, RunFacts
from ..core.system.temporaries import temporary_beside
from .base import Sink, summary_json

BLOCK_ROWS = 1024
_DTYPES = {int: "<i8", float: "<f8", bool: "<i1"}
_UNKNOWN = {int: 0, float: np.nan, bool: -1}
_NUMBERS = {name: kind for name, kind in COLUMNS.items() if kind is not str}
_TEXTS = [name for name in COLUMNS if name not in _NUMBERS]


class NpzSink(Sink):
    """Rows as arrays with one entry a row: what `numpy.load` reads without pickle.

    Until the end rows wait in a file without a name beside the output, block by block and there
    column by column, so that memory does not grow and the end reads each byte once. That file is
    gone with the process, however it ends. Numbers that are not known are NaN, truths -1, texts
    empty; `mu` is (N, D) float32, each row of the shape in `latent_shape`.
    """

    def __init__(self, output: str, facts: RunFacts) -> None:
        self._facts = facts
        fields: list[Any] = [(name, _DTYPES[kind]) for name, kind in _NUMBERS.items()]
        self._block = np.zeros(BLOCK_ROWS, [*fields, ("mu", "<f4", (facts.latent_size,))])
        self._texts = [[""] * BLOCK_ROWS for _ in _TEXTS]
        self._widths = [1] * len(_TEXTS)
        # Of each block in the file: where each column begins, and where the last one ends.
        self._bounds: list[npt.NDArray[np.int64]] = []
        self._no_latents = np.full(facts.latent_size, np.nan, np.float32)
        self._summary = ""
        with self._writing():
            self._path = self._new_path(output)
            self._stays_at(self._path.parent)
            self._spool = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115  # by `close`

    def write(self, row: Row) -> None:
        """Keep one row until the end; see `Sink.write`."""
        at = self.rows % BLOCK_ROWS
        values = [(getattr(row, name), kind) for name, kind in _NUMBERS.items()]
        numbers = [_UNKNOWN[kind] if value is None else value for value, kind in values]
        self._block[at] = (*numbers, self._no_latents if row.mu is None else row.mu)
        for position, name in enumerate(_TEXTS):
            text = self._texts[position][at] = getattr(row, name) or ""
            self._widths[position] = max(self._widths[position], len(text))
        if at == BLOCK_ROWS - 1:
            with self._writing():
                self._spool_rows(BLOCK_ROWS)
        self._summary = summary_json(row) or self._summary
        self.rows += 1

    def close(self) -> None:
        """Write the .npz, which may take as long as reading it; where it fails, none is left."""
        if self._spool.closed:
            return
        with self._writing(), self._spool:
            rows, self.rows = self.rows, 0  # none is in the output before all are
            if left := rows % BLOCK_ROWS:
                self._spool_rows(left)
            with temporary_beside(self._path) as path:
                with zipfile.ZipFile(path, "w") as archive:
                    self._save(archive, rows)
                put_new(path, self._path)  # what came there meanwhile is not overwritten either
            self._stays_at(self._path)
            self.rows = rows

    def _spool_rows(self, count: int) -> None:
        columns = [self._block[name][:count].tobytes() for name in self._block.dtype.names or ()]
        columns += [json.dumps(texts[:count]).encode() for texts in self._texts]
        start = self._bounds[-1][-1] if self._bounds else 0
        bounds = np.cumsum([start, *map(len, columns)])
        rest = memoryview(b"".join(columns))
        while rest:
            rest = rest[os.pwrite(self._spool.fileno(), rest, bounds[-1] - len(rest)) :]
        self._bounds.append(bounds)

    def _save(self, archive: zipfile.ZipFile, rows: int) -> None:
        """Write each column, block by block."""
        dtypes = {name: self._block.dtype[name] for name in (*_NUMBERS, "mu")}
        dtypes |= {
            name: np.dtype(f"<U{size}") for name, size in zip(_TEXTS, self._widths, strict=True)
        }
        for position, (name, dtype) in enumerate(dtypes.items()):
            blocks: Iterator[Block] = self._spooled(position)
            if name in _TEXTS:
                blocks = (np.array(json.loads(data), dtype) for data in self._spooled(position))
            write_array(archive, name, dtype, (rows, *dtype.shape), blocks)
        once: dict[str, Any] = {
            "weights_sha256": self._facts.weights_sha256,
            "summary": self._summary,
        }
        once |= {"schema_version": SCHEMA, "latent_shape": self._facts.latent_shape}
        for name, value in once.items():
            write_value(archive, name, value)

    def _spooled(self, position: int) -> Iterator[bytes]:
        """Read one column of all blocks."""
        for bounds in self._bounds:
            start, end = bounds[position : position + 2]
            data = os.pread(self._spool.fileno(), end - start, start)
            if len(data) < end - start:
                raise OSError(errno.EIO, "the file of waiting rows was cut short")
            yield data
