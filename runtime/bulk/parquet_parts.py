"""ParquetParts: a result as a folder of Parquet files, one row for each item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.atomic_files import replaced_file
from ..core.spec import ModelSpec
from .parts import PartFacts, Parts, damaged
from .rows import NUMBERS, UNKNOWN, Rows

JOB = "_job.json"
"""Readers of Parquet folders pass over what begins with an underscore."""


class ParquetParts(Parts):
    """Parts as Parquet files, which are the result; what a row holds is in docs/encode.md.

    Latents are lists of float32 and null where there is none, and so are `ood_score` and `is_ood`;
    `height` and `width` are null where they are not known.
    """

    suffix = ".parquet"

    def __init__(self, output: Path, spec: ModelSpec, weights_sha256: str) -> None:
        super().__init__(output, JOB)
        latents = ["mu", "log_var"] if spec.has_log_var else ["mu"]
        shape = spec.latent_shape or (spec.latent_size,)
        self._width = spec.latent_size
        self._metadata = {
            "motorvae.weights_sha256": weights_sha256,
            "motorvae.latent_shape": " ".join(map(str, shape)),
        }
        self._schema = pa.schema(
            [
                *((name, pa.string()) for name in ("name", "sha256", "status", "reason")),
                *((name, pa.int32()) for name in ("width", "height")),
                # Not a list of fixed size: pyarrow before 26 does not read one that may be null.
                *((name, pa.list_(pa.float32())) for name in latents),
                ("ood_score", pa.float32()),
                ("is_ood", pa.bool_()),
            ]
        )

    def save(self, number: int, rows: Rows, facts: PartFacts) -> None:
        """Write a part; see `Parts.save`."""
        own = {
            "motorvae.items": str(facts.count),
            "motorvae.failed": str(facts.failed),
            "motorvae.unread": str(facts.unread),
            "motorvae.listing": facts.listing,
        }
        schema = self._schema.with_metadata(self._metadata | own)
        columns = _columns(rows)
        table = pa.table([columns[name] for name in schema.names], schema=schema)
        with replaced_file(self.path(number)) as temporary:
            pq.write_table(table, temporary, use_dictionary=["status", "reason"])

    def _facts(self, path: Path) -> PartFacts | None:
        try:
            found = pq.read_metadata(path).metadata or {}
            count, failed, unread = (
                int(found[f"motorvae.{one}".encode()]) for one in ("items", "failed", "unread")
            )
            return PartFacts(count, failed, found[b"motorvae.listing"].decode(), unread)
        except _UNREADABLE:
            return None

    def rows_of(self, number: int) -> Rows:
        """Read a part; see `Parts.rows_of`."""
        path = self.path(number)
        try:
            table = pq.ParquetFile(path).read().combine_chunks()
            columns = {name: table[name].combine_chunks() for name in self._schema.names}
        except _UNREADABLE as error:
            raise damaged(path) from error
        return _rows(columns, self._width)


_UNREADABLE = (OSError, ValueError, KeyError, pa.ArrowException)


def _columns(rows: Rows) -> dict[str, Any]:
    is_failed = ~rows.is_ok
    columns: dict[str, Any] = {
        "name": pa.array(rows.texts["names"], pa.string()),
        "sha256": pa.array([one or None for one in rows.texts["sha256"]], pa.string()),
        "status": pa.array(["failed" if one else "ok" for one in is_failed], pa.string()),
        "reason": pa.array([one or None for one in rows.texts["reasons"]], pa.string()),
    }
    for name in ("width", "height"):
        values = rows.numbers[name]
        columns[name] = pa.array(values, pa.int32(), mask=values == 0)
    for name, latents in rows.latents.items():
        offsets = np.arange(len(rows) + 1, dtype=np.int32) * latents.shape[1]
        columns[name] = pa.ListArray.from_arrays(
            offsets, pa.array(latents.ravel()), mask=pa.array(is_failed)
        )
    score, is_ood = rows.numbers["ood_score"], rows.numbers["is_ood"]
    columns["ood_score"] = pa.array(score, pa.float32(), mask=np.isnan(score))
    columns["is_ood"] = pa.array(is_ood == 1, pa.bool_(), mask=is_ood < 0)
    return columns


def _rows(columns: dict[str, Any], width: int) -> Rows:
    """Return what `_columns` made columns of."""
    texts = {"names": "name", "sha256": "sha256", "reasons": "reason"}
    numbers = {}
    for name, dtype in NUMBERS.items():
        values = columns[name].to_pylist()
        known = [UNKNOWN[name] if one is None else one for one in values]
        numbers[name] = np.array(known, dtype)
    latents = {}
    for name in ("mu", "log_var"):
        if name in columns:
            values = np.full((len(columns[name]), width), np.nan, np.float32)
            is_ok = np.asarray(columns[name].is_valid())
            values[is_ok] = columns[name].drop_null().flatten().to_numpy().reshape(-1, width)
            latents[name] = values
    held = {name: [one or "" for one in columns[of].to_pylist()] for name, of in texts.items()}
    return Rows(held, numbers, latents)
