"""Keyword arguments of the functions of the package: options of the commands by their names."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from .runtime.bundle.graph_key import Precision
from .runtime.core.errors import ConfigError, MotorVAEError
from .runtime.core.spec import Box, Color, Fit, Interpolation, Matrix, Size
from .runtime.engines.open import BackendName

PathLike = str | os.PathLike[str]


class EngineKeywords(TypedDict, total=False):
    """Which engine runs; see `motorvae.Bundle.encoder`."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # as pydantic documents

    precision: Precision | None
    backend: BackendName
    provider: str | None
    threads: int | None
    cuda_graph: bool
    trust: bool


class StreamKeywords(EngineKeywords, total=False):
    """How a stream runs; each is the option of `motorvae-stream` of that name."""

    max_frames: int | None
    policy: Literal["latest", "every"] | None
    realtime: bool
    live: Literal["yes", "no"] | None
    rtsp_transport: Literal["auto", "tcp", "udp"]
    allow_hosts: Sequence[str]
    max_age_ms: float | None
    latency: Literal["lowest", "balanced", "economy"]
    timeout: float
    freeze_after: float | None
    give_up_after: float
    batch_wait_ms: float
    width: int | None
    height: int | None
    fps: float | None
    fourcc: str | None
    accept_mode: bool
    matrix: Matrix | None
    track: int | None
    max_picture: float
    reconstruct: int | str | None
    ood: Literal["both", "mu", "none"]
    ood_above: float
    view: bool | str


class BundleKeywords(TypedDict, total=False):
    """What a bundle is to hold, whatever it is made of."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # as above

    replace: bool
    anyway: bool
    fp16: bool
    keep_float32: bool | str | Sequence[str]
    bf16: bool
    int8: bool | str | Sequence[str]
    calibration: str
    prune_channels: bool
    engine: Literal["auto", "none", "tensorrt", "tensorrt-rtx"]
    batch: str
    workspace_mib: int | None
    tune: bool
    tune_minutes: float | None
    use_dla_core: int | None
    allow_gpu_fallback: bool
    external_data: bool


class ExportKeywords(BundleKeywords, total=False):
    """What an export makes; each is the option of `motorvae-export` of that name."""

    weights: Literal["best", "last"]
    pretrained: str | None
    triton: PathLike | None
    triton_platform: Literal["onnxruntime", "openvino", "tensorrt"]
    triton_precision: Precision | None
    triton_name: str
    triton_version: int
    triton_batch: int | None
    triton_delay_us: int
    triton_instances: int
    triton_device: Literal["auto", "cpu", "gpu"]


class ImportKeywords(BundleKeywords, total=False):
    """What is imported, and what it becomes; each is the option of `motorvae import`."""

    run: PathLike | None
    decoder: PathLike | None
    module: str | None
    weights: PathLike | None
    inputs: Sequence[str]
    outputs: Sequence[str]
    decoder_range: Literal["unit", "network"]
    preset: Literal["original", "none"] | None
    image_size: Size | None
    color: Color | None
    crop_box: Box | None
    fit: Fit | None
    interpolation: Interpolation | None
    matrix: Matrix | None
    value_range: tuple[float, float] | None
    mean: Sequence[float]
    std: Sequence[float]
    held_out: float
    workers: int
    max_picture: float


class VerifyKeywords(TypedDict, total=False):
    """How two graphs are compared; each is the option of `motorvae verify` of that name."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # as above

    size: tuple[int, int] | None
    color: Color | None
    crop_box: Box | None
    fit: Fit
    interpolation: Interpolation
    value_range: tuple[float, float]
    mean: Sequence[float]
    std: Sequence[float]
    most_images: int
    skip_probes: bool
    outputs: Sequence[str]
    candidate_outputs: Sequence[str]
    image_range: tuple[float, float] | None
    encoder: PathLike | None
    candidate_engine: Literal["onnx", "openvino", "tensorrt", "tensorrt-rtx"] | None
    candidate_provider: str | None
    threads: int | None
    trust: bool
    precision: Precision | None
    limits: PathLike | None
    batch_sizes: Sequence[int]


Function = TypeVar("Function", bound=Callable[..., Any])
_COMMAND = r"motorvae-\w+(?: [^;:,]+)?"
_ENGINE = "|".join([*get_args(BackendName), "cpu", "cuda"])
_adapter = functools.cache(TypeAdapter)


def checked_keywords(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments, checked by the types that their TypedDict gives them."""
    try:
        return dict(_adapter(kind).validate_python(dict(given)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = first["loc"][0]
        if first["type"] == "extra_forbidden":
            takes = ", ".join(sorted(get_type_hints(kind)))
            raise ConfigError(f"{name}: no such option, take some of {takes}") from error
        message = first["msg"].replace("Input should be", "take")
        raise ConfigError(f"{name}={given[str(name)]!r}: {message}") from error


@contextlib.contextmanager
def spelled_for_python() -> Iterator[None]:
    """Name options in errors as in Python, except in commands that these suggest.

    `--max-frames=0` becomes `max_frames=0`.
    """

    def spelled(found: re.Match[str]) -> str:
        name = found["name"] and found["name"].replace("-", "_")
        return f"{name}={found['value']!r}" if found["value"] else name or found[0]

    option = rf"--(?P<name>[a-z][a-z0-9-]*)(?: (?P<value>{_ENGINE})\b)?"
    try:
        yield
    except MotorVAEError as error:
        error.args = (re.sub(f"{_COMMAND}|{option}", spelled, str(error)),)
        raise


def spelled_out(kind: type, *options: type) -> Callable[[Function], Function]:
    """Show in a function's signature what its `**keywords` are, and name them so in its errors.

    They are unpacked from the TypedDict `kind`; the dataclasses `options` hold their defaults.
    """

    def decorated(function: Function) -> Function:
        run = spelled_for_python()(function)
        values = {one.name: one.default for kind in options for one in fields(kind)}
        signature = inspect.signature(function)
        *named, _ = signature.parameters.values()
        keywords = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                # An option that takes values or none has no value where it is left out.
                default=False if values[name] is None and bool in get_args(hint) else values[name],
                annotation=hint,
            )
            for name, hint in get_type_hints(kind).items()
        ]
        shown = signature.replace(parameters=[*named, *keywords])
        run.__signature__ = shown  # type: ignore[attr-defined]
        return run

    return decorated
