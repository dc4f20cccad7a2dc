"""Options of motorvae-export about Triton Inference Server."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

import tyro

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.errors import ConfigError

Platform = Literal["onnxruntime", "openvino", "tensorrt"]
Device = Literal["auto", "cpu", "gpu"]

PLATFORMS: tuple[Platform, ...] = get_args(Platform)
MOST_BATCH = 1024
_MOST_INSTANCES, _MOST_DELAY_US, _MOST_VERSION = 256, 10_000_000, 2**31 - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class TritonOptions:
    """What a model repository of Triton holds, and how its server runs it."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {}

    triton: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Also write a model repository of Triton Inference Server into this folder, whole or not at
    all: encoders, decoder, and ensembles that reconstruct."""
    triton_platform: Platform = "onnxruntime"
    """Which of the server's backends runs the models. tensorrt takes the bundle's engines, which
    fit the GPU and the version of TensorRT that they were built with."""
    triton_precision: Annotated[Precision | None, tyro.conf.arg(metavar="fp32|fp16|bf16|int8")] = (
        None
    )
    """Of the models; by default fp32, and with tensorrt that of the engines, FP16 first."""
    triton_name: str = "motorvae"
    """How the names of the models begin: two bundles on one server need two."""
    triton_version: int = 1
    """The version that clients see, and the only one that is served of these models."""
    triton_batch: int | None = None
    """Most images per run, gathered from several requests; by default 16, fewer where images are
    large, and as the engines have it. OpenVINO takes requests as they come, unless this is given:
    then it pads each run to so many."""
    triton_delay_us: int = 0
    """Microseconds that a request may wait for others to run with; 0 takes what is waiting."""
    triton_instances: int = 1
    """Copies of each model that run at the same time, on each GPU or on the CPU."""
    triton_device: Device = "auto"
    """Where they run: auto is the server's GPUs, or the CPU where it has none."""

    def check_triton(self) -> None:
        """Refuse, with a ConfigError, options that contradict one another or are out of range."""
        if self.triton is None:
            given = [one.name for one in fields(TritonOptions) if self._is_given(one.name)]
            if given:
                name = given[0].replace("_", "-")
                raise ConfigError(f"--{name} is for --triton: add that, or leave it out")
            return
        limits: dict[str, tuple[int | None, int, int]] = {
            "triton_version": (self.triton_version, 1, _MOST_VERSION),
            "triton_batch": (self.triton_batch, 1, MOST_BATCH),
            "triton_delay_us": (self.triton_delay_us, 0, _MOST_DELAY_US),
            "triton_instances": (self.triton_instances, 1, _MOST_INSTANCES),
        }
        for name, (value, least, most) in limits.items():
            if value is not None and not least <= value <= most:
                raise ConfigError(f"{name}={value} is out of range: take {least} to {most}")
        if not _NAME.fullmatch(self.triton_name):
            raise ConfigError(
                f"triton_name={self.triton_name!r}: take up to 64 letters, digits, and _ . - after "
                "the first"
            )
        self._check_platform()

    def _check_platform(self) -> None:
        platform, device = self.triton_platform, self.triton_device
        if platform == "openvino" and device == "gpu":
            raise ConfigError(
                "--triton-device gpu: Triton's OpenVINO backend takes models for the CPU only: "
                "leave it out, or take --triton-platform onnxruntime"
            )
        if platform == "tensorrt" and device == "cpu":
            raise ConfigError(
                "--triton-device cpu: TensorRT engines run on GPUs: leave it out, or take "
                "--triton-platform onnxruntime"
            )
        if self.triton_precision == "bf16" and platform != "openvino":
            raise ConfigError(
                "--triton-precision bf16 is an arithmetic of OpenVINO: add --triton-platform "
                "openvino, or take fp16"
            )
        if platform == "tensorrt" and self.triton_batch is not None:
            raise ConfigError(
                f"--triton-batch {self.triton_batch}: engines have their own batch sizes: leave it "
                "out, or build them again with --batch"
            )
        if platform == "openvino" and self.triton_batch is None and self.triton_delay_us:
            raise ConfigError(
                f"--triton-delay-us {self.triton_delay_us}: without --triton-batch OpenVINO runs "
                "each request by itself: add that, or leave this out"
            )

    def _is_given(self, name: str) -> bool:
        return bool(getattr(self, name) != getattr(TritonOptions, name))


TritonOptions.GROUPS = {"triton": tuple(one.name for one in fields(TritonOptions))}
