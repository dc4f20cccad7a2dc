"""NpzSink: every column as a numpy array, in one .npz that is whole or absent."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import zipfile
from typing import IO, Any

import numpy as np

from ..core.atomic_files import replaced_file, set_aside
from ..core.row import COLUMNS, SCHEMA, Row, RunFacts
from .base import Sink, summary_json

BLOCK_ROWS = 1024
_DTYPES = {int: "<i8", float: "<f8", bool: "<i1"}
_UNKNOWN = {int: 0, float: np.nan, bool: -1}
_NUMBERS = {name: kind for name, kind in COLUMNS.items() if kind is not str}
_TEXTS = [name for name in COLUMNS if name not in _NUMBERS]


class NpzSink(Sink):
    """Rows as arrays with one entry a row: what `numpy.load` reads without pickle.

    Until the end rows wait in two files without a name beside the output, numbers as records and
    texts as JSON, so that memory does not grow. They are gone with the process, however it ends.
    Numbers that are not known are NaN, truths -1, texts empty; `mu` is (N, D) float32.
    """

    def __init__(self, output: str, facts: RunFacts) -> None:
        self._facts = facts
        fields: list[Any] = [(name, _DTYPES[kind]) for name, kind in _NUMBERS.items()]
        self._block = np.zeros(BLOCK_ROWS, [*fields, ("mu", "<f4", (facts.latent_size,))])
        self._no_latents = np.full(facts.latent_size, np.nan, np.float32)
        self._texts: list[str] = []  # of the rows in the block, one row after the other
        self._widths = dict.fromkeys(_TEXTS, 1)
        self._spooled_rows, self._text_ends = 0, [0]
        self._summary = ""
        with self._writing():
            self._path = self._new_path(output)
            folder = self._path.parent
            self._spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # by `close`
            self._text_spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # likewise

    def write(self, row: Row) -> None:
        """Keep one row until the end; see `Sink.write`."""
        count = self.rows - self._spooled_rows
        values = [(getattr(row, name), kind) for name, kind in _NUMBERS.items()]
        numbers = [_UNKNOWN[kind] if value is None else value for value, kind in values]
        self._block[count] = (*numbers, self._no_latents if row.mu is None else row.mu)
        texts = [getattr(row, name) or "" for name in _TEXTS]
        self._widths = {
            name: max(self._widths[name], len(t)) for name, t in zip(_TEXTS, texts, strict=True)
        }
        self._texts[count * len(_TEXTS) :] = texts
        if count + 1 == BLOCK_ROWS:
            with self._writing():
                self._spool_block(BLOCK_ROWS)
        self._summary = summary_json(row) or self._summary
        self.rows += 1

    def close(self) -> None:
        """Write the .npz, which may take as long as reading it; where it fails, none is left."""
        if self._spool.closed:
            return
        with self._spool, self._text_spool, self._writing():
            rows, self.rows = self.rows, 0  # none is in the output before all are
            if rows > self._spooled_rows:
                self._spool_block(rows - self._spooled_rows)
            set_aside(self._path)  # what came there meanwhile is not overwritten either
            with replaced_file(self._path) as path, zipfile.ZipFile(path, "w") as archive:
                self._save(archive, rows)
            self.rows = rows

    def _spool_block(self, count: int) -> None:
        text_json = json.dumps(self._texts[: count * len(_TEXTS)]).encode()
        _write_at(
            self._spool, self._block[:count].tobytes(), self._spooled_rows * self._block.itemsize
        )
        _write_at(self._text_spool, text_json, self._text_ends[-1])
        self._spooled_rows += count
        self._text_ends.append(self._text_ends[-1] + len(text_json))
        self._texts.clear()

    def _save(self, archive: zipfile.ZipFile, rows: int) -> None:
        records = self._block[:0]
        if rows:
            records = np.memmap(self._spool, self._block.dtype, "r", shape=(rows,))
        columns: dict[str, Any] = {name: records[name] for name in (*_NUMBERS, "mu")}
        columns["schema_version"], columns["summary"] = SCHEMA, self._summary
        columns["weights_sha256"] = self._facts.weights_sha256
        for name, column in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.save(member, column)  # reads a memory map 16 MiB at a time
        for position, name in enumerate(_TEXTS):
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as member:
                self._save_texts(member, position, rows)

    def _save_texts(self, file: IO[bytes], position: int, rows: int) -> None:
        """Write a column as `numpy.save` does, block by block.

        https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
        """
        dtype = f"<U{self._widths[_TEXTS[position]]}"
        header = {"descr": dtype, "fortran_order": False, "shape": (rows,)}
        np.lib.format.write_array_header_1_0(file, header)
        for start, end in itertools.pairwise(self._text_ends):
            texts = json.loads(os.pread(self._text_spool.fileno(), end - start, start))
            file.write(np.array(texts[position :: len(_TEXTS)], dtype).tobytes())


def _write_at(file: IO[bytes], data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file.fileno(), rest, offset)
        rest, offset = rest[written:], offset + written
