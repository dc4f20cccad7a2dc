"""NpzSink: every column as a numpy array, in one .npz that is whole or absent."""

from __future__ import annotations

import itertools
import json
import tempfile
import zipfile
from typing import Any

import numpy as np

from ..core.atomic_files import replaced_file, set_aside
from ..core.row import COLUMNS, SCHEMA, Row, RunFacts
from .base import Sink, summary_json

BLOCK_ROWS = 1024
BUFFER_BYTES = 1 << 20
_DTYPES = {int: "<i8", float: "<f8", bool: "<i1"}
_UNKNOWN = {int: 0, float: np.nan, bool: -1}
_NUMBERS = {name: kind for name, kind in COLUMNS.items() if kind is not str}
_TEXTS = [name for name in COLUMNS if name not in _NUMBERS]


class NpzSink(Sink):
    """Rows as arrays with one entry a row: what `numpy.load` reads without pickle.

    Until the end rows wait in two files without a name beside the output, numbers as records and
    texts as lines of JSON, so that memory does not grow. They are gone with the process, however
    it ends. Numbers that are not known are NaN, truths -1, texts empty; `mu` is (N, D) float32.
    """

    def __init__(self, output: str, facts: RunFacts) -> None:
        self._facts = facts
        fields: list[Any] = [(name, _DTYPES[kind]) for name, kind in _NUMBERS.items()]
        self._record = np.zeros(1, [*fields, ("mu", "<f4", (facts.latent_size,))])
        self._no_latents = np.full(facts.latent_size, np.nan, np.float32)
        self._widths = [1] * len(_TEXTS)
        self._summary = ""
        with self._writing():
            self._path = self._new_path(output)
            folder = self._path.parent
            self._spool, self._text_spool = (
                tempfile.TemporaryFile("w+b", BUFFER_BYTES, dir=folder)  # noqa: SIM115  # by `close`
                for _ in range(2)
            )

    def write(self, row: Row) -> None:
        """Keep one row until the end; see `Sink.write`."""
        values = [(getattr(row, name), kind) for name, kind in _NUMBERS.items()]
        numbers = [_UNKNOWN[kind] if value is None else value for value, kind in values]
        self._record[0] = (*numbers, self._no_latents if row.mu is None else row.mu)
        texts = [getattr(row, name) or "" for name in _TEXTS]
        with self._writing():
            self._spool.write(self._record.tobytes())
            self._text_spool.write(json.dumps(texts).encode() + b"\n")
        self._widths = list(map(max, self._widths, map(len, texts)))
        self._summary = summary_json(row) or self._summary
        self.rows += 1

    def close(self) -> None:
        """Write the .npz, which may take as long as reading it; where it fails, none is left."""
        if self._spool.closed:
            return
        with self._writing(), self._spool, self._text_spool:
            rows, self.rows = self.rows, 0  # none is in the output before all are
            set_aside(self._path)  # what came there meanwhile is not overwritten either
            with replaced_file(self._path) as path, zipfile.ZipFile(path, "w") as archive:
                self._save(archive, rows)
            self.rows = rows

    def _save(self, archive: zipfile.ZipFile, rows: int) -> None:
        records = self._record[:0]
        if rows:
            records = np.memmap(self._spool, self._record.dtype, "r", shape=(rows,))
        columns: dict[str, Any] = {name: records[name] for name in (*_NUMBERS, "mu")}
        columns["schema_version"], columns["summary"] = SCHEMA, self._summary
        columns["weights_sha256"] = self._facts.weights_sha256
        for name, column in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.save(member, column)  # reads a memory map 16 MiB at a time
        for position, (name, width) in enumerate(zip(_TEXTS, self._widths, strict=True)):
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            self._text_spool.seek(0)
            lines = itertools.islice(self._text_spool, rows)
            with archive.open(info, "w", force_zip64=True) as member:
                # As `numpy.save` does, block by block:
                # https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
                dtype = f"<U{width}"
                header = {"descr": dtype, "fortran_order": False, "shape": (rows,)}
                np.lib.format.write_array_header_1_0(member, header)
                while block := [*itertools.islice(lines, BLOCK_ROWS)]:
                    texts = [json.loads(line)[position] for line in block]
                    member.write(np.array(texts, dtype).tobytes())
