"""Keyword arguments of `stream`, `encode` and `export`: options of the commands by their names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from typing_extensions import TypedDict

from .runtime.bundle.graph_key import Precision
from .runtime.engines.request import BackendName


class EngineKeywords(TypedDict, total=False):
    """Which engine runs; see `motorvae.Bundle.encoder`."""

    precision: Precision | None
    backend: BackendName
    provider: str | None
    threads: int | None
    cuda_graph: bool


class StreamKeywords(EngineKeywords, total=False):
    """How a stream runs; each is the option of `motorvae-stream` of that name."""

    max_frames: int | None
    policy: Literal["latest", "every"] | None
    realtime: bool
    max_age_ms: float | None
    timeout: float
    freeze_after: float | None
    give_up_after: float
    batch_wait_ms: float
    width: int | None
    height: int | None
    fps: float | None
    fourcc: str | None
    accept_mode: bool
    reconstruct: int | str | None
    ood: Literal["both", "mu", "none"]
    ood_above: float
    view: bool | str


class ExportKeywords(TypedDict, total=False):
    """What an export makes; each is the option of `motorvae-export` of that name."""

    replace: bool
    weights: Literal["best", "last"]
    anyway: bool
    fp16: bool
    bf16: bool
    int8: bool | Sequence[str]
    calibration: str
    engine: Literal["auto", "none", "tensorrt", "tensorrt-rtx"]
    batch: str
    workspace_mib: int | None


PathLike = str | os.PathLike[str]
