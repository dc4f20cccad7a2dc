"""NpzSink: every column as a numpy array, in one .npz that is whole or absent."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ..core.atomic_files import replaced_file, set_aside
from ..core.row import COLUMNS, SCHEMA, Row, RunFacts
from .base import Sink

BLOCK_ROWS = 1024
_DTYPES = {int: "<i8", float: "<f8", bool: "<i1"}
_UNKNOWN = {int: 0, float: np.nan, bool: -1}
_TEXTS = [name for name, kind in COLUMNS.items() if kind is str]


class NpzSink(Sink):
    """Rows as arrays with one entry a row: what `numpy.load` reads without pickle.

    Until the end rows wait in a file without a name beside the output, block by block, column by
    column, so that memory does not grow. That file is gone with the process, however it ends.
    Numbers that are not known are NaN, truths -1, texts empty; `mu` is (N, D) float32.

    Args:
        output: A path ending in `.npz`.
        facts: Gives D and the model's identity.

    Raises:
        OutputError: Nothing can be written there.
    """

    def __init__(self, output: str, facts: RunFacts) -> None:
        self.name = output
        self._path, self._facts = Path(output), facts
        self._block: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(BLOCK_ROWS, _DTYPES[kind])
            for name, kind in COLUMNS.items()
            if kind is not str
        }
        self._block["mu"] = np.zeros((BLOCK_ROWS, facts.latent_size), "<f4")
        self._texts = {name: [""] * BLOCK_ROWS for name in _TEXTS}
        self._widths = dict.fromkeys(_TEXTS, 1)
        self._ends = [0]  # of each block in the file: its numbers, then its texts as JSON
        self._summary = ""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.set_aside_as = set_aside(self._path)
            self._spool = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115  # by `close`
        except OSError as error:
            raise self._failed(error) from error

    def write(self, row: Row) -> None:
        """Keep one row until the end.

        Raises:
            OutputError: The file of waiting rows cannot grow; the row is not among them.
        """
        at = self.rows - (len(self._ends) - 1) * BLOCK_ROWS
        for name, kind in COLUMNS.items():
            value = getattr(row, name)
            if kind is str:
                self._texts[name][at] = value or ""
                self._widths[name] = max(self._widths[name], len(value or ""))
            else:
                self._block[name][at] = _UNKNOWN[kind] if value is None else value
        self._block["mu"][at] = np.nan if row.mu is None else row.mu
        if at == BLOCK_ROWS - 1:
            try:
                self._spool_block()
            except OSError as error:
                raise self._failed(error) from error
        if row.summary is not None:
            self._summary = orjson.dumps(row.summary, option=orjson.OPT_SERIALIZE_NUMPY).decode()
        self.rows += 1

    def close(self) -> None:
        """Write the .npz, which may take as long as reading it; calling it again does nothing.

        Raises:
            OutputError: There is no room for it; none is left behind.
        """
        if self._spool.closed:
            return
        with self._spool:
            try:
                self._spool_block()
                set_aside(self._path)  # what came there meanwhile is not overwritten either
                with replaced_file(self._path) as path, zipfile.ZipFile(path, "w") as archive:
                    self._save(archive)
            except OSError as error:
                self.rows = 0
                raise self._failed(error) from error

    def _spool_block(self) -> None:
        offset = self._ends[-1]
        rest = memoryview(
            b"".join(
                [
                    *(column.tobytes() for column in self._block.values()),
                    json.dumps(self._texts).encode(),
                ]
            )
        )
        while rest:
            written = os.pwrite(self._spool.fileno(), rest, offset)
            rest, offset = rest[written:], offset + written
        self._ends.append(offset)

    def _save(self, archive: zipfile.ZipFile) -> None:
        offset = 0
        for name, column in self._block.items():
            self._add(archive, name, self._spooled_numbers(name, offset))
            offset += column.nbytes
        for name in _TEXTS:
            self._add(archive, name, self._spooled_texts(name, offset))
        for name, value in (
            ("schema_version", SCHEMA),
            ("weights_sha256", self._facts.weights_sha256),
            ("summary", self._summary),
        ):
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, np.array(value))

    def _spooled_numbers(self, name: str, offset: int) -> Iterator[npt.NDArray[Any]]:
        column = self._block[name]
        for start in self._ends[:-1]:
            data = os.pread(self._spool.fileno(), column.nbytes, start + offset)
            yield np.frombuffer(data, column.dtype).reshape(column.shape)

    def _spooled_texts(self, name: str, offset: int) -> Iterator[npt.NDArray[np.str_]]:
        for start, end in itertools.pairwise(self._ends):
            data = os.pread(self._spool.fileno(), end - start - offset, start + offset)
            yield np.array(json.loads(data)[name], f"<U{self._widths[name]}")

    def _add(self, archive: zipfile.ZipFile, name: str, blocks: Iterator[npt.NDArray[Any]]) -> None:
        """Write one member as `numpy.save` does, block by block; texts are compressed.

        https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
        """
        first = next(blocks)  # there is one at least
        info = zipfile.ZipInfo(f"{name}.npy")
        info.compress_type = zipfile.ZIP_DEFLATED if name in _TEXTS else zipfile.ZIP_STORED
        header = {
            "descr": np.lib.format.dtype_to_descr(first.dtype),
            "fortran_order": False,
            "shape": (self.rows, *first.shape[1:]),
        }
        left = self.rows
        with archive.open(info, "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for block in itertools.chain([first], blocks):
                member.write(block[:left].tobytes())
                left = max(0, left - BLOCK_ROWS)
