"""McapSink: rows as JSON messages in an MCAP file, for robotics recorders and viewers."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import orjson
from mcap.writer import Writer

from ..core.row import COLUMNS, Row, RunFacts, facts_of
from .base import NUMPY_TOO, Sink, metadata_of

END_TOPIC = "/end"
_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}
_REQUIRED = ("index", "captured_ns", "dropped", "status", "schema")


class McapSink(Sink):
    """One topic `/CAMERA/latents` a camera, logged at `captured_ns`; the last row is in `/end`.

    Keys whose value is not known are left out of a message, `mu` and `age_ms` among them, since
    viewers want one type a key. Rows are in the file once their chunk is, at each flush; a file
    without its end reads up to its last whole chunk.
    """

    def __init__(self, output: str, facts: RunFacts) -> None:
        self._whole_bytes = self._whole_rows = 0
        with self._writing():
            # Without a buffer of its own: what the writer could not write must not come later.
            path = self._new_path(output)
            self._file = path.open("xb", buffering=0)
            self._stays_at(path)
        self._writer = Writer(self._file)
        with self._writing(self._cut_off):
            self._writer.start()
            self._writer.add_metadata("motorvae", metadata_of(facts))
            schema = self._writer.register_schema(
                "motorvae.LatentRow", "jsonschema", orjson.dumps(json_schema_of(facts))
            )
            topics = {camera: f"/{camera.strip('/')}/latents" for camera in facts.cameras}
            self._channels: dict[str | None, int] = {
                camera: self._writer.register_channel(topic, "json", schema)
                for camera, topic in [*topics.items(), (None, END_TOPIC)]
            }
            self._end_chunk()

    def write(self, row: Row) -> None:
        """Take one row; it is in the file at the next flush, or when a chunk is full."""
        message = facts_of(row)
        if row.age_ms is None:
            del message["age_ms"]
        if row.mu is not None:
            message["mu"] = row.mu
        now_ns = time.time_ns()
        self.rows += 1
        with self._writing(self._cut_off):
            self._writer.add_message(
                self._channels[row.camera],
                log_time=now_ns if row.status == "end" else row.captured_ns,
                data=orjson.dumps(message, option=NUMPY_TOO),
                publish_time=now_ns,
                sequence=self.rows & 0xFFFFFFFF,
            )

    def flush(self) -> None:
        """End the chunk, so that its rows are in the file, or lost if that fails."""
        if self.rows != self._whole_rows and not self._file.closed:
            with self._writing(self._cut_off):
                self._end_chunk()

    def close(self) -> None:
        """Write the index and close the file; calling it again does nothing."""
        if self._file.closed:
            return
        self.flush()
        with self._writing(self._cut_off):
            self._writer.finish()  # type: ignore[no-untyped-call]
            self._writer.flush()  # type: ignore[no-untyped-call]
        self._file.close()

    def _end_chunk(self) -> None:
        self._writer.flush()  # type: ignore[no-untyped-call]
        self._whole_bytes, self._whole_rows = self._file.tell(), self.rows

    def _cut_off(self) -> None:
        """Cut the file after its last whole chunk, and close it for good."""
        self.rows = self._whole_rows
        with contextlib.suppress(OSError):  # the disk itself may be gone
            os.ftruncate(self._file.fileno(), self._whole_bytes)
        self._file.close()


def json_schema_of(facts: RunFacts) -> dict[str, Any]:
    """Return the JSON Schema of a message."""
    properties: dict[str, Any] = {name: {"type": _TYPES[kind]} for name, kind in COLUMNS.items()}
    size = facts.latent_size
    properties |= {
        "schema": {"type": "integer"},
        "summary": {"type": "object"},
        "mu": {
            "type": "array",
            "description": f"row-major, of shape {list(facts.latent_shape)}",
            "items": {"type": "number"},
            "minItems": size,
            "maxItems": size,
        },
    }
    return {
        "title": "motorvae.LatentRow",
        "type": "object",
        "properties": properties,
        "required": list(_REQUIRED),
    }
