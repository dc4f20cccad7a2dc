"""GraphKey: the one name of a graph, from the exporter to the table of a benchmark."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ..core.spec import ModelSpec, StrictModel
from .frame_format import FRAME, LAYOUTS, FrameFormat

BATCH = "batch"
ENGINES = "engines"

Part = Literal["encoder", "decoder"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""bf16 is no file of its own: an engine computes the float32 graph in it."""
Variant = Literal["full", "luma", "mu", "phases", "nv12", "bgr"]
"""`full` has the contract's inputs and outputs; `luma` takes 8-bit luma, and `mu` does so and gives
`mu` only; `phases` is a decoder without its last transposed convolution, or, where it is made for
one engine, without most or all of them.
`nv12` and `bgr` take whole frames of that layout, whose size and colours their entries hold."""
Target = Literal["onnx", "openvino", "tensorrt"]
"""Engines that a graph may be made for; TensorRT-RTX counts as TensorRT."""

PARTS: tuple[Part, ...] = get_args(Part)
TARGETS: tuple[Target, ...] = get_args(Target)
LEANEST_FIRST: tuple[Variant, ...] = ("mu", "luma", "phases", "full")
OUTPUTS: dict[Part, tuple[str, ...]] = {
    "encoder": ("mu", "log_var"),
    "decoder": ("reconstruction",),
}


class Tensor(StrictModel):
    """One input or output of a graph; a dimension is a number or the name of a free axis."""

    name: str
    dtype: Literal["float32", "uint8"]
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class GraphKey:
    """Names one graph."""

    part: Part  # which half of the model
    precision: Precision = "fp32"  # of weights and arithmetic
    variant: Variant = "full"  # what it takes and gives
    target: Target | None = None  # the engine it is made for; None where every one runs it well

    @property
    def title(self) -> str:
        """What it is in words, such as "encoder int8 mu for openvino"."""
        variant = "" if self.variant == "full" else f" {self.variant}"
        target = f" for {self.target}" if self.target else ""
        return f"{self.part} {self.precision}{variant}{target}"

    @property
    def fields(self) -> dict[str, Any]:
        """The same as documents on disk spell it."""
        names = ("graph", "precision", "variant", "made_for")
        return dict(zip(names, astuple(self), strict=True))

    @property
    def for_any(self) -> GraphKey:
        """The same, whatever engine it is made for: an engine is named by its package."""
        return replace(self, target=None)

    @property
    def onnx_file(self) -> str:
        """Its file's name: what goes without saying is left out, as in `encoder.onnx`."""
        # bf16 is an arithmetic of the engine, which reads the float32 file.
        precision = None if self.precision in {"fp32", "bf16"} else self.precision
        target = None if self.precision == "bf16" else self.target
        parts = (self._form, precision, target, "onnx")
        return ".".join(part for part in parts if part)

    def engine_file(self, package: str) -> str:
        """Return the name of the engine that a TensorRT package builds from it."""
        return f"{self._form}.{self.precision}.{package}.engine"

    def engine_paths(self, folder: Path, package: str) -> tuple[Path, Path]:
        """Return where that engine lies in a bundle, and its engine manifest beside it."""
        path = folder / ENGINES / self.engine_file(package)
        return path, path.with_suffix(".json")

    @property
    def takes_frames(self) -> bool:
        """Whether it takes whole frames, and does the pixel work itself."""
        return self.variant in LAYOUTS

    def inputs(self, spec: ModelSpec, frame: FrameFormat | None = None) -> tuple[Tensor, ...]:
        """Return what it takes for a model of these sizes, and where it does for such frames.

        A ValueError where the frame is none that it takes.
        """
        if self.takes_frames != (frame is not None):
            raise ValueError(f"{self.title} takes {'frames' if frame is None else 'no frames'}")
        if frame is not None:
            if self.part == "decoder" or frame.layout != self.variant:
                raise ValueError(f"{self.title} takes no frames of {frame}")
            return (Tensor(name=FRAME, dtype="uint8", shape=(BATCH, *frame.shape)),)
        if self.part == "decoder":
            return (Tensor(name="z", dtype="float32", shape=(BATCH, spec.latent_size)),)
        shape = (BATCH, *spec.input_shape)
        dtype: Literal["float32", "uint8"] = "float32" if self.variant == "full" else "uint8"
        return (Tensor(name="image", dtype=dtype, shape=shape),)

    def outputs(self, spec: ModelSpec) -> tuple[Tensor, ...]:
        """Return what it gives for a model of these sizes."""
        names = OUTPUTS[self.part]
        if self.part == "encoder" and (self.variant == "mu" or not spec.has_log_var):
            names = ("mu",)
        shape: tuple[int | str, ...] = (BATCH, spec.latent_size)
        if self.part == "decoder":
            shape = (BATCH, *spec.input_shape)
        return tuple(Tensor(name=name, dtype="float32", shape=shape) for name in names)

    @property
    def _form(self) -> str:
        return self.part if self.variant == "full" else f"{self.part}.{self.variant}"
