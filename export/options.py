"""Every option of motorvae-export with its default and help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from ..runtime.bundle.graph_key import TARGETS, Precision, Target
from ..runtime.bundle.manifest import HELD_OUT
from ..runtime.core.command import ValuesLike
from ..runtime.core.errors import ConfigError
from .tensorrt.add_engines import EngineChoice, profile_from_text
from .triton.options import TritonOptions

DEFAULT_CHECKPOINT = Path("runs/latest")
DEFAULT_OUTPUT = Path("bundle")
MOST_WORKSPACE_MIB = 1 << 20
MOST_TUNE_MINUTES = 24 * 60
DEFAULT_TUNE_MINUTES = 10.0
NO_ROUTES = (
    "TensorRT-RTX finishes its engines on the target and has no build routes: leave out --tune, or "
    "use --engine tensorrt"
)


@dataclass(frozen=True)
class PrecisionOptions:
    """Which precisions and engines a bundle gets, of whatever model."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "precision": ("fp16", "keep_float32", "bf16", "int8", "calibration", "prune_channels"),
        "engine": (
            "engine",
            "batch",
            "workspace_mib",
            "tune",
            "tune_minutes",
            "use_dla_core",
            "allow_gpu_fallback",
        ),
    }

    fp16: bool = False
    """Add graphs whose weights and arithmetic are FP16; their outputs stay float32."""
    keep_float32: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[auto | NAME ...]")] = (
        None
    )
    """What of the FP16 graphs stays in float32: auto, or with no name, what FP16 would overflow in;
    or nodes and modules by name. The manifest lists them."""
    bf16: bool = False
    """Let OpenVINO compute the float32 graphs in bf16. Needs a processor that does."""
    int8: Annotated[
        tuple[str, ...] | None,
        tyro.conf.arg(metavar="[{onnx,openvino,tensorrt} ...]"),
        ValuesLike("onnx|openvino|tensorrt", is_path=True),
    ] = None
    """Add INT8 graphs, one set for each engine that is named: onnx, openvino and tensorrt, or with
    none named all three. A set that does not pass is left out, with exit code 1."""
    calibration: str = HELD_OUT
    """What INT8 ranges come from: a third of the held-out images, at most 128, or a folder of
    images or a video of what the camera will see."""
    prune_channels: bool = False
    """Leave channels out of the INT8 encoders that hardly move the latents of the calibration
    images: as many as cost a fifth of the gate's limit. Faster and smaller. Pictures unlike those
    may lose more, and no stream would notice: calibrate with all that the camera will see."""
    engine: EngineChoice = "auto"
    """Who builds TensorRT engines. auto: with --fp16 or --int8, whichever this machine has,
    TensorRT on its GPU first, then TensorRT-RTX, which needs no GPU; where there is neither, the
    graphs alone. One by name: it or exit code 1; without a precision it builds float32 engines."""
    batch: str = "1,1,8"
    """Images per run that engines are built for: fewest, best, most."""
    workspace_mib: int | None = None
    """Most scratch memory that an engine may take, in MiB; by default up to 1024, less where the
    GPU shares the computer's memory."""

    tune: bool = False
    """Build each TensorRT engine in several ways, by settings of our own and by TensorRT 11's
    tuner, and keep the fastest that passes the gate. Needs the GPU, and takes many builds."""
    tune_minutes: float | None = None
    """Most minutes that --tune may take for one engine; by default 10."""
    use_dla_core: int | None = None
    """Build TensorRT engines that run on this DLA core of an Orin, with TensorRT 11.4.1 and JetPack
    7.2.2 or newer, for one batch size. Layers that it cannot run are named, and the engine is
    refused."""
    allow_gpu_fallback: bool = False
    """Let the GPU run what the DLA core cannot. The layers are named all the same."""

    external_data: bool = True
    """Keep the weights of all graphs in one file, weights.bin, each of them once. Without it each
    .onnx file has its own inside, also FP16 ones, which other programs cannot read otherwise; with
    --model alone, a bundle that is there is rewritten so."""

    @property
    def minutes_to_tune(self) -> float | None:
        """Most minutes that build routes are tried for each engine; None where only one is."""
        if not self.tune:
            return None
        return DEFAULT_TUNE_MINUTES if self.tune_minutes is None else self.tune_minutes

    @property
    def targets(self) -> tuple[Target, ...]:
        """The engines that INT8 graphs are asked for: all where `--int8` names none."""
        if self.int8 is None:
            return ()
        names = [name for text in self.int8 for name in text.split(",") if name]
        if unknown := [name for name in names if name not in TARGETS]:
            raise ConfigError(
                f"--int8 {unknown[0]}: no such engine, name some of {', '.join(TARGETS)}, or none "
                "for all"
            )
        return tuple(target for target in TARGETS if not names or target in names)

    @property
    def kept(self) -> tuple[str, ...]:
        """What is to stay in float32, if anything."""
        return () if self.keep_float32 is None else self.keep_float32 or ("auto",)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The graphs that are asked for beside float32."""
        asked: dict[Precision, object] = {"fp16": self.fp16, "bf16": self.bf16, "int8": self.int8}
        return tuple(name for name, value in asked.items() if value not in {False, None})

    @property
    def engine_precisions(self) -> tuple[Precision, ...]:
        """The precisions that TensorRT engines are to be built of, where this machine can."""
        if self.engine == "none":
            return ()
        left_out = {"bf16", *(() if "tensorrt" in self.targets else ("int8",))}
        found = tuple(name for name in self.precisions if name not in left_out)
        return found or (() if self.engine == "auto" else ("fp32",))

    def check_precisions(self) -> None:
        """Refuse, with a ConfigError, options that contradict one another or are out of range."""
        if self.workspace_mib is not None and not 1 <= self.workspace_mib <= MOST_WORKSPACE_MIB:
            raise ConfigError(
                f"workspace_mib={self.workspace_mib} is out of range: take 1 to "
                f"{MOST_WORKSPACE_MIB}"
            )
        if self.keep_float32 is not None and not self.fp16:
            raise ConfigError("--keep-float32 is for FP16 graphs: add --fp16, or leave it out")
        if self.calibration != HELD_OUT and self.int8 is None:
            raise ConfigError("--calibration is for INT8 graphs: add --int8, or leave it out")
        if self.prune_channels and self.int8 is None:
            raise ConfigError("--prune-channels is for INT8 graphs: add --int8, or leave it out")
        self._check_engines()

    def _check_engines(self) -> None:
        minutes = self.tune_minutes
        if minutes is not None and not 0 < minutes <= MOST_TUNE_MINUTES:
            raise ConfigError(
                f"tune_minutes={minutes:g} is out of range: take up to {MOST_TUNE_MINUTES}"
            )
        if minutes is not None and not self.tune:
            raise ConfigError("--tune-minutes is for --tune: add that, or leave it out")
        if self.tune and self.engine == "tensorrt-rtx":
            raise ConfigError(NO_ROUTES)
        if self.tune and not self.engine_precisions:
            raise ConfigError(
                "--tune is for TensorRT engines, and none is asked for: add --fp16, or leave it out"
            )
        if self.allow_gpu_fallback and self.use_dla_core is None:
            raise ConfigError(
                "--allow-gpu-fallback is for DLA engines: add --use-dla-core, or leave it out"
            )
        if self.use_dla_core is not None:
            self._check_dla(self.use_dla_core)

    def _check_dla(self, core: int) -> None:
        if core < 0:
            raise ConfigError(f"use_dla_core={core} is no core: they are numbered from 0")
        if self.engine in {"tensorrt-rtx", "none"}:
            raise ConfigError(
                f"--use-dla-core {core} builds with TensorRT, and --engine {self.engine} was asked "
                "for: leave one of them out"
            )
        if not self.engine_precisions or "fp32" in self.engine_precisions:
            raise ConfigError(
                f"--use-dla-core {core}: DLA computes in FP16 and INT8 only: add --fp16 or --int8"
            )
        profile = profile_from_text(self.batch)
        if not profile.min == profile.opt == profile.max:
            raise ConfigError(
                f"--use-dla-core {core} takes one batch size, and --batch is {self.batch}: add "
                "--batch 1,1,1"
            )


@dataclass(frozen=True)
class BundleOptions(PrecisionOptions):
    """Which bundle a command writes, and what with."""

    output: Path | None = None
    """The bundle to write; by default bundle. An earlier one there is replaced in one step."""
    replace: bool = False
    """Replace a bundle that holds precisions or engines which this export does not make again, or
    what --triton names where it serves other weights or was changed. Without it, that is refused;
    where the weights are the same, they are kept."""
    anyway: bool = False
    """Export a model that has learned too little, with a warning, and a remark in the manifest."""


@dataclass(frozen=True)
class ExportOptions(TritonOptions, BundleOptions):
    """Options of motorvae-export."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "precision": (*PrecisionOptions.GROUPS["precision"], "whole_frame"),
        "engine": PrecisionOptions.GROUPS["engine"],
        **TritonOptions.GROUPS,
    }

    checkpoint: Annotated[
        Path | None,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RUN", help_behavior_hint="(also: --checkpoint RUN)"),
    ] = None
    """A finished training run; by default runs/latest. Needs torch."""
    pretrained: Annotated[str | None, tyro.conf.arg(metavar="NAME|FOLDER")] = None
    """Export this model instead: one that comes with motorVAE, by its name, such as vehicles, or
    one in a folder in Hugging Face form. Where it has no held-out images, vehicles are drawn that
    it was not trained on."""
    output: Path | None = None
    """The bundle to write; by default bundle. An earlier one there is replaced in one step. With
    --whole-frame and --model, the .onnx file to write beside the bundle instead."""
    weights: Literal["best", "last"] = "best"
    """Weights of the run's best epoch by its held-out images, or of its last."""
    model: Annotated[Path | None, tyro.conf.arg(aliases=("--bundle",))] = None
    """Add precisions to this bundle instead of exporting a checkpoint. Needs no torch."""
    whole_frame: Annotated[str | None, tyro.conf.arg(metavar="LAYOUT:SIZE")] = None
    """Add an encoder that takes a camera's own frames and does the pixel work itself, such as
    nv12:1920x1080, nv12:1280x720:bt709:full or bgr:640x480, in float32 and in FP16 with --fp16 or
    where the bundle has it. Of frames of any size, such as bgr:free, it is written to the .onnx
    file that --output names, with a .json beside it."""

    @property
    def adds(self) -> bool:
        """Whether precisions or engines are asked for."""
        return bool(self.precisions or self.engine_precisions)

    def _check_whole_frame(self) -> None:
        if self.model is None:
            raise ConfigError(
                f"--whole-frame {self.whole_frame} adds to a bundle: name one with --model, such "
                f"as --model {DEFAULT_OUTPUT}"
            )
        others = {
            "--bf16": self.bf16,
            "--int8": self.int8 is not None,
            "--checkpoint": self.checkpoint is not None,
            "--pretrained": self.pretrained is not None,
            "--engine": self.engine not in {"auto", "none"},
            "--anyway": self.anyway,
            "--calibration": self.calibration != HELD_OUT,
            "--prune-channels": self.prune_channels,
            "--tune": self.tune,
            "--use-dla-core": self.use_dla_core is not None,
            "--triton": self.triton is not None and self.output is not None,
        }
        if given := [name for name, is_given in others.items() if is_given]:
            raise ConfigError(
                f"{given[0]} has no part in --whole-frame: leave it out, or run that apart"
            )

    def _check_pretrained(self, name: str) -> None:
        others = {
            "RUN": self.checkpoint is not None,
            "--model": self.model is not None,
            "--weights": self.weights != "best",
        }
        if given := [other for other, is_given in others.items() if is_given]:
            raise ConfigError(
                f"--pretrained={name} is exported instead of a run: leave out it or {given[0]}"
            )

    def check(self) -> None:
        """Refuse, with a ConfigError, options that contradict one another or are out of range."""
        self.check_triton()
        if self.whole_frame is not None:
            self._check_whole_frame()
        self.check_precisions()
        if self.whole_frame is not None:
            return
        if self.pretrained is not None:
            self._check_pretrained(self.pretrained)
        if self.model is None:
            return
        if self.weights != "best" or self.anyway:
            raise ConfigError(
                "--weights and --anyway are about a checkpoint: leave them out, or leave out "
                "--model"
            )
        if self.checkpoint or self.output:
            raise ConfigError(
                f"--model {self.model} changes that bundle in place: leave out --checkpoint "
                "and --output, or leave out --model"
            )
        if not self.adds and self.triton is None and self.external_data:
            raise ConfigError(
                f"nothing to add to {self.model}: name a precision, such as --fp16, or an --engine"
            )
