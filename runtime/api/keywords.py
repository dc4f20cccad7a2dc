"""Keyword arguments of `stream`, `encode` and `export`: options of the commands by their names."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from .runtime.bundle.graph_key import Precision
from .runtime.core.errors import ConfigError
from .runtime.engines.open import BackendName


class EngineKeywords(TypedDict, total=False):
    """Which engine runs; see `motorvae.Bundle.encoder`."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # as pydantic documents

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

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # as above

    replace: bool
    weights: Literal["best", "last"]
    anyway: bool
    fp16: bool
    bf16: bool
    int8: bool | str | Sequence[str]
    calibration: str
    engine: Literal["auto", "none", "tensorrt", "tensorrt-rtx"]
    batch: str
    workspace_mib: int | None


PathLike = str | os.PathLike[str]


@functools.cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def checked_keywords(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments, held against the types that their TypedDict gives them.

    Raises:
        ConfigError: There is no such keyword, or it takes another type or one of a few values.
    """
    try:
        return dict(_adapter(kind).validate_python(dict(given)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = first["loc"][0]
        if first["type"] == "extra_forbidden":
            takes = ", ".join(sorted(_adapter(kind).json_schema()["properties"]))
            raise ConfigError(f"{name}: no such option, take some of {takes}") from error
        message = first["msg"].replace("Input should be", "take")
        raise ConfigError(f"{name}={given[str(name)]!r}: {message}") from error
