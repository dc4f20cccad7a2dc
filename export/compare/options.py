"""Every option of motorvae verify with its default and help."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

import tyro

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.command import ValuesLike
from ...runtime.core.errors import ConfigError
from ...runtime.core.spec import Box, Color, Fit, Interpolation
from ..verify.batches import BATCH_SIZES
from ..verify.reference import JUDGED_IMAGES
from .result import OutputKind

CompareEngine = Literal["onnx", "openvino", "tensorrt", "tensorrt-rtx"]
MOST_BATCH = 1024
MOST_IMAGES = 65536
_NUMBERS = ValuesLike(r"-?[\d.]+(e-?\d+)?")
_NONE = tyro.conf.arg(help_behavior_hint="")  # no default to show
_Pair = tuple[float, float]


def output_of(word: str) -> tuple[OutputKind | None, str]:
    """Return kind and name of a word of `--outputs`; a name may hold any character."""
    kind, equals, name = word.partition("=")
    for known in get_args(OutputKind):
        if equals and name and kind == known:
            return known, name
    return None, word


@dataclass(frozen=True)
class VerifyOptions:
    """Options of motorvae verify."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "images": (
            *("size", "color", "crop_box", "fit", "interpolation", "value_range", "mean", "std"),
            *("most_images", "skip_probes"),
        ),
        "outputs": ("outputs", "candidate_outputs", "image_range", "encoder"),
        "engine": ("candidate_engine", "candidate_provider", "threads", "trust"),
        "limits": ("precision", "limits", "batch_sizes"),
    }

    reference: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REFERENCE")]
    """The .onnx file that is right; it runs in ONNX Runtime on the CPU."""
    candidate: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CANDIDATE")]
    """The .onnx file that is judged, or a TensorRT .engine; the same file again to judge another
    engine."""
    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """A folder or a pattern of images, a list of them, or a video; of decoders an .npy or .npz file
    of latents, or the images of --encoder."""
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE|-")] = None
    """Write the result as JSON as well, - to standard output."""
    size: tuple[int, int] | None = None
    """Height and width of the input, where the graphs leave them free."""
    color: Color | None = None
    """In which order a graph takes three channels; by default rgb, and grey for one channel."""
    crop_box: Annotated[Box | None, tyro.conf.arg(aliases=("--crop",))] = None
    """Left, top, right and bottom of what is taken of an image: fractions, or pixels, where a right
    or bottom of 0 and below counts from the far edge."""
    fit: Fit = "stretch"
    """How an image of another shape becomes that of the input: stretch, crop (keep the centre),
    pad (with white) or letterbox (with white once it is resized)."""
    interpolation: Interpolation = "area"
    """How images are resized."""
    value_range: _Pair = (0.0, 1.0)
    """What black and white are to the graphs. A graph of uint8 takes pixels as they are."""
    mean: Annotated[tuple[float, ...], _NUMBERS, _NONE] = ()
    """Subtracted from each channel after that; none is 0."""
    std: Annotated[tuple[float, ...], _NUMBERS, _NONE] = ()
    """Each channel is divided by it after that; none is 1."""
    most_images: int = JUDGED_IMAGES
    """So many images judge at most, taken evenly from all where their number is known."""
    skip_probes: bool = False
    """Leave out the 23 probe images, such as black, noise and stripes, on which graphs that are
    right for your images alone are found out."""
    outputs: Annotated[tuple[str, ...], _NONE] = ()
    """Which outputs are judged, by name, and as what: mu=NAME and log_var=NAME for a posterior,
    latent=NAME, image=NAME. By default all that both graphs have, by what their names say."""
    candidate_outputs: Annotated[tuple[str, ...], _NONE] = ()
    """What those outputs are called in the candidate, in the same order, where it calls them
    otherwise."""
    image_range: _Pair | None = None
    """Black and white of images that the graphs give; by default as in --value-range."""
    encoder: Path | None = None
    """An encoder whose mu of the images is decoded, where the graphs are decoders."""
    candidate_engine: CompareEngine | None = None
    """What runs the candidate: ONNX Runtime (onnx), openvino, or for an .engine tensorrt or
    tensorrt-rtx; by default onnx and tensorrt."""
    candidate_provider: str | None = None
    """Run the candidate on this provider of ONNX Runtime: cpu, cuda, tensorrt, or a full name."""
    threads: int | None = None
    """Threads of one run on a CPU; by default one for each core."""
    trust: bool = False
    """Load the .engine: a TensorRT engine is a program, and whoever built it can do anything that
    you can."""
    precision: Precision | None = None
    """Whose limits hold; by default those of the precision that the candidate's file has."""
    limits: Path | None = None
    """A JSON file of limits by their names that hold instead; docs/verify.md has the names."""
    batch_sizes: Annotated[tuple[int, ...], _NONE] = ()
    """Images per run of the candidate, in turn; by default 1 to 8 and 16, or the batch that a graph
    is fixed to."""

    def check(self) -> None:
        """Refuse, with a ConfigError, what is out of range or contradicts another option."""
        if not 1 <= self.most_images <= MOST_IMAGES:
            raise ConfigError(
                f"most_images={self.most_images} is out of range: take 1 to {MOST_IMAGES}"
            )
        if any(not 1 <= size <= MOST_BATCH for size in self.batch_sizes):
            raise ConfigError(
                f"batch_sizes={self.batch_sizes} is out of range: take 1 to {MOST_BATCH} each"
            )
        self._check_outputs()
        engine = self.candidate_engine
        if engine not in {None, *get_args(CompareEngine)}:
            known = ", ".join(get_args(CompareEngine))
            raise ConfigError(f"candidate_engine={engine!r}: take {known}")
        if self.candidate_provider is not None and engine not in {None, "onnx"}:
            raise ConfigError(
                f"--candidate-provider is for ONNX Runtime, and --candidate-engine {engine} was "
                "asked for: leave one of them out"
            )
        is_plan = self.candidate.suffix == ".engine"
        if is_plan and engine in {"onnx", "openvino"}:
            raise ConfigError(
                f"{self.candidate} is a TensorRT engine, which {engine} does not run: leave "
                "--candidate-engine out, or name the .onnx file"
            )
        if not is_plan and engine in {"tensorrt", "tensorrt-rtx"}:
            raise ConfigError(
                f"{self.candidate} is no .engine: build one with trtexec on the machine that runs "
                "it and name that, or use --candidate-provider tensorrt"
            )
        if is_plan and self.precision is None:
            raise ConfigError(
                f"{self.candidate}: an engine does not say what precision it was built for: name "
                "one with --precision"
            )
        if is_plan and not self.trust:
            raise ConfigError(
                f"{self.candidate}: a TensorRT engine is a program that can do anything that you "
                "can: add --trust where you know who built it"
            )

    def _check_outputs(self) -> None:
        for option, words in (
            ("outputs", tuple(output_of(word)[1] for word in self.outputs)),
            ("candidate_outputs", self.candidate_outputs),
        ):
            if twice := [name for index, name in enumerate(words) if name in words[:index]]:
                raise ConfigError(f"{option}={words}: {twice[0]!r} is there twice, name it once")
        if self.candidate_outputs and len(self.candidate_outputs) != len(self.outputs):
            raise ConfigError(
                f"candidate_outputs={self.candidate_outputs}: give one for each of --outputs "
                f"({len(self.outputs)}), in their order"
            )
        if self.image_range is not None:
            low, high = self.image_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ConfigError(
                    f"image_range={self.image_range}: give black and white, the lower one first"
                )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Images per run where a graph takes any number."""
        return self.batch_sizes or BATCH_SIZES
