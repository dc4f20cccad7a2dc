"""Row: one latent with its facts, or the reason why there is none; its columns and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from .spec import ModelSpec

SCHEMA = 2
"""Version of the row's fields, which every sink declares. New fields do not change it."""

Status = Literal["ok", "stale", "lost", "end"]


@dataclass(slots=True)
class Row:
    """What is known of one frame once its latent is ready, or of a frame that has none.

    Attributes:
        index: Position of the frame in its source, counting from 0.
        captured_ns: Unix time of the frame in nanoseconds; `clock` says whose.
        age_ms: From the grab to the latent being ready, on the monotonic clock.
        dropped: Frames of this camera that were overtaken since its last row.
        status: `ok`; `stale`, too old to be used; `lost`, not delivered; `end`, the last row.
        mu: (D,) float32, or None where the status is not `ok`.
        camera: What the source is called; None in the last row.
        clock: Who stamped `captured_ns`: `driver`, `packet` (its arrival), or `host` (our grab).
        duplicate: Whether the encoder's input is the same as in this camera's last frame.
        gap_ms: After a loss, from the last frame that was delivered to this one.
        reason: Why there is no latent.
        media_s: Position in a recording in seconds.
        name: File name of an image.
        capture_ms: From the stamp to the decoded image in hand.
        convert_ms: Luma or colours, and fitting.
        wait_ms: In the mailbox, and for the frames of other cameras in the same run.
        encode_ms: Scaling to [0, 1] and the encoder.
        emit_ms: Checks, statistics and making this row.
        kl: Divergence of the posterior from the standard normal in nats, summed over latents.
        appearance: Distance of what the image looks like from the nearest training image.
        appearance_percentile: The share of known images that are nearer, in percent.
        mahalanobis: Distance of mu from the training latents, in spreads.
        mahalanobis_percentile: The share of known images that are nearer, in percent.
        log_var_distance: Distance of log_var from that of the training images, in spreads.
        log_var_percentile: The share of known images that are nearer, in percent.
        ood_score: How far the image is on the way from known ones, 0, to the limit, 1.
        is_ood: Whether appearance or mahalanobis is past what `--ood-above` allows.
        reconstruction_error: Squared error of the decoded image, averaged over pixels in [0, 1].
        reconstruction_percentile: The share of known images with less error, in percent.
        decode_ms: The decoder and that error; not part of the age.
        unwritten: Rows that this sink dropped just before this one.
        summary: Of the last row: what the run did.
        picture: What was encoded, (H, W) or (3, H, W) uint8; not serialised, and only there where
            it is shown.
        reconstruction: Float32 in [0, 1] of the same shape; likewise.
    """

    index: int
    captured_ns: int
    age_ms: float | None
    dropped: int
    status: Status
    mu: npt.NDArray[np.float32] | None = None
    camera: str | None = None
    clock: str | None = None
    duplicate: bool | None = None
    gap_ms: float | None = None
    reason: str | None = None
    media_s: float | None = None
    name: str | None = None
    capture_ms: float | None = None
    convert_ms: float | None = None
    wait_ms: float | None = None
    encode_ms: float | None = None
    emit_ms: float | None = None
    kl: float | None = None
    appearance: float | None = None
    appearance_percentile: float | None = None
    mahalanobis: float | None = None
    mahalanobis_percentile: float | None = None
    log_var_distance: float | None = None
    log_var_percentile: float | None = None
    ood_score: float | None = None
    is_ood: bool | None = None
    reconstruction_error: float | None = None
    reconstruction_percentile: float | None = None
    decode_ms: float | None = None
    unwritten: int | None = None
    summary: Mapping[str, Any] | None = None
    picture: npt.NDArray[np.uint8] | None = None
    reconstruction: npt.NDArray[np.float32] | None = None


_SCALARS = {"int": int, "float": float, "str": str, "bool": bool, "Status": str}
COLUMNS: dict[str, type] = {
    one.name: _SCALARS[kind]
    for one in fields(Row)
    if (kind := str(one.type).partition(" ")[0]) in _SCALARS
}
"""Every scalar field with its type, in the order of a table's columns; `mu` comes after them."""

ALWAYS = ("index", "captured_ns", "age_ms", "dropped", "status", "mu")
"""Keys that every JSON row has, null or not."""


def facts_of(row: Row) -> dict[str, Any]:
    """Return a row without its arrays for JSON: what is not known is left out.

    `age_ms` stays where it is null; `schema` says which version the keys are of.
    """
    values = ((name, getattr(row, name)) for name in (*COLUMNS, "summary"))
    facts = {name: value for name, value in values if value is not None or name in ALWAYS}
    return {**facts, "schema": SCHEMA}


def json_from_row(row: Row) -> bytes:
    """Return a row as one JSON object; `mu` as the shortest digits that read back equal."""
    ordered = dict.fromkeys(ALWAYS) | facts_of(row) | {"mu": row.mu}
    return orjson.dumps(ordered, option=orjson.OPT_SERIALIZE_NUMPY)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a sink can say once of all rows of a run."""

    model: ModelSpec  # shapes of its latents and pictures
    cameras: tuple[str, ...]  # names of the sources; `Row.camera` is one of them
    weights_sha256: str  # identity of the model
    backend: str  # what encodes
    lossless: bool  # whether a full queue waits (a recording) or drops a row (a live source)

    @property
    def latent_size(self) -> int:
        """D, the length of every `mu`."""
        return self.model.latent_size

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """What is written flat, row by row."""
        return self.model.latent_shape or (self.latent_size,)
