"""Every option of motorvae-export with its default and help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from ..runtime.bundle.manifest import HELD_OUT
from .tensorrt.add_engines import EngineChoice

DEFAULT_CHECKPOINT = Path("runs/latest")
DEFAULT_OUTPUT = Path("bundle")


@dataclass(frozen=True)
class ExportOptions:
    """Options of motorvae-export."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "precision": ("fp16", "bf16", "int8", "calibration"),
        "engine": ("engine", "batch", "workspace_mib"),
    }

    checkpoint: Annotated[
        Path | None,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RUN", help_behavior_hint="(also: --checkpoint RUN)"),
    ] = None
    """A finished training run; by default runs/latest. Needs torch."""
    output: Path | None = None
    """The bundle to write; by default bundle. An earlier one there is replaced in one step."""
    replace: bool = False
    """Replace a bundle that holds precisions or engines which this export does not make again.
    Without it, that is refused; where the weights are the same, they are kept."""
    weights: Literal["best", "last"] = "best"
    """Weights of the run's best epoch by its held-out images, or of its last."""
    anyway: bool = False
    """Export a model that has learned too little, with a warning, and a remark in the manifest."""
    model: Annotated[Path | None, tyro.conf.arg(aliases=("--bundle",))] = None
    """Add precisions to this bundle instead of exporting a checkpoint. Needs no torch."""
    fp16: bool = False
    """Add graphs whose weights and arithmetic are FP16; their outputs stay float32."""
    bf16: bool = False
    """Let OpenVINO compute the float32 graphs in bf16. Needs a processor that does."""
    int8: Annotated[
        tuple[str, ...] | None, tyro.conf.arg(metavar="[{onnx,openvino,tensorrt} ...]")
    ] = None
    """Add INT8 graphs, one set for each engine that is named: onnx, openvino and tensorrt, or with
    none named all three. A set that does not pass is left out, with exit code 1."""
    calibration: str = HELD_OUT
    """What INT8 ranges come from: a third of the held-out images, at most 128, or a folder of
    images or a video of what the camera will see."""
    engine: EngineChoice = "auto"
    """Who builds TensorRT engines. auto: with --fp16 or --int8, whichever this machine has,
    TensorRT on its GPU first, then TensorRT-RTX, which needs no GPU; where there is neither, the
    graphs alone. One by name: it or exit code 1; without a precision it builds float32 engines."""
    batch: str = "1,1,8"
    """Images per run that engines are built for: fewest, best, most."""
    workspace_mib: int | None = None
    """Most scratch memory that an engine may take, in MiB; by default up to 1024, less where the
    GPU shares the computer's memory."""
