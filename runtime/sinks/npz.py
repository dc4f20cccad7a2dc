"""NpzSink: every column as a numpy array, in one .npz that is whole or absent."""

from __future__ import annotations

import os
import struct
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
# A text is kept as its place in a second file, where its length stands before it; 0 is no text.
_DTYPES = {int: "<i8", float: "<f8", bool: "<i1", str: "<u8"}
_UNKNOWN = {int: 0, float: np.nan, bool: -1}
_LENGTH = struct.Struct("<I")
_KNOWN_TEXTS = 4096


class NpzSink(Sink):
    """Rows as arrays with one entry a row: what `numpy.load` reads without pickle.

    Until the end rows wait in files without a name beside the output, block by block and column
    by column, so that memory does not grow and the end reads each byte once. Those files are gone
    with the process, however it ends. Numbers that are not known are NaN, truths -1, texts empty;
    `mu` is (N, D) float32.

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
            name: np.zeros(BLOCK_ROWS, _DTYPES[kind]) for name, kind in COLUMNS.items()
        }
        self._block["mu"] = np.zeros((BLOCK_ROWS, facts.latent_size), "<f4")
        self._block_bytes = sum(column.nbytes for column in self._block.values())
        self._blocks = 0
        self._texts_seen: dict[str, int] = {}
        self._widths = dict.fromkeys((name for name, kind in COLUMNS.items() if kind is str), 1)
        self._summary = ""
        self._is_open = False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.set_aside_as = set_aside(self._path)
            # Without names, and closed by `close`.
            self._spool = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115
            self._texts = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115
            self._texts.write(b"\0")
        except OSError as error:
            raise self._failed(error) from error
        self._is_open = True

    def write(self, row: Row) -> None:
        """Keep one row until the end.

        Raises:
            OutputError: The files of waiting rows cannot grow; the row is not among them.
        """
        at = self.rows - self._blocks * BLOCK_ROWS
        try:
            for name, kind in COLUMNS.items():
                value = getattr(row, name)
                if kind is str:
                    value = self._place_of(name, value)
                self._block[name][at] = _UNKNOWN[kind] if value is None else value
            self._block["mu"][at] = np.nan if row.mu is None else row.mu
            if at == BLOCK_ROWS - 1:
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
        if not self._is_open:
            return
        self._is_open = False
        with self._spool, self._texts:
            try:
                set_aside(self._path)  # what came there meanwhile is not overwritten either
                with replaced_file(self._path) as path, zipfile.ZipFile(path, "w") as archive:
                    self._save(archive)
            except OSError as error:
                self.rows = 0
                raise self._failed(error) from error

    def _save(self, archive: zipfile.ZipFile) -> None:
        for name, column in self._block.items():
            shape = (self.rows, *column.shape[1:])
            blocks = self._blocks_of(name)
            if name in self._widths:
                dtype = np.dtype(f"<U{self._widths[name]}")
                blocks = (self._texts_at(places, dtype) for places in blocks)
                _add_array(archive, name, dtype, shape, blocks, compression=zipfile.ZIP_DEFLATED)
            else:
                _add_array(archive, name, column.dtype, shape, blocks)
        for name, value in (
            ("schema_version", SCHEMA),
            ("weights_sha256", self._facts.weights_sha256),
            ("summary", self._summary),
        ):
            array = np.array(value)
            _add_array(archive, name, array.dtype, (), iter([array]))

    def _spool_block(self) -> None:
        offset = self._blocks * self._block_bytes
        for column in self._block.values():
            rest = memoryview(column.tobytes())
            while rest:
                written = os.pwrite(self._spool.fileno(), rest, offset)
                rest, offset = rest[written:], offset + written
        self._blocks += 1

    def _blocks_of(self, name: str) -> Iterator[npt.NDArray[Any]]:
        column = self._block[name]
        names = list(self._block)
        offset = sum(self._block[before].nbytes for before in names[: names.index(name)])
        for block in range(self._blocks):
            data = os.pread(self._spool.fileno(), column.nbytes, block * self._block_bytes + offset)
            yield np.frombuffer(data, column.dtype).reshape(column.shape)
        yield column[: self.rows - self._blocks * BLOCK_ROWS]

    def _place_of(self, column: str, text: str | None) -> int:
        """Return where a text is kept; the same one is kept once as long as it is remembered."""
        if not text:
            return 0
        self._widths[column] = max(self._widths[column], len(text))
        place = self._texts_seen.get(text)
        if place is None:
            data = text.encode("utf-8", "surrogatepass")
            place = self._texts.seek(0, os.SEEK_END)
            self._texts.write(_LENGTH.pack(len(data)) + data)
            if len(self._texts_seen) >= _KNOWN_TEXTS:
                self._texts_seen.clear()
            self._texts_seen[text] = place
        return place

    def _texts_at(self, places: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        unique, inverse = np.unique(places, return_inverse=True)
        return np.array([self._text_at(int(place)) for place in unique], dtype)[inverse]

    def _text_at(self, place: int) -> str:
        if not place:
            return ""
        self._texts.seek(place)
        (length,) = _LENGTH.unpack(self._texts.read(_LENGTH.size))
        return self._texts.read(length).decode("utf-8", "surrogatepass")


def _add_array(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    blocks: Iterator[npt.NDArray[Any]],
    *,
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """Write one member as `numpy.save` does, block by block.

    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = compression
    with archive.open(info, "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for block in blocks:
            member.write(block.tobytes())
