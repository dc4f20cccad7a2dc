"""Every option of motorvae import with its default and help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from ...runtime.core.command import ValuesLike
from ...runtime.core.errors import ConfigError
from ...runtime.core.spec import Box, Color, Fit, Interpolation, Matrix, Size
from ...runtime.pixels.picture import MAX_PICTURE
from ..options import DEFAULT_OUTPUT, BundleOptions, PrecisionOptions

Preset = Literal["original", "none"]
Range = Literal["unit", "network"]
OUTPUTS = ("mu", "log_var", "moments", "reconstruction")
INPUTS = ("image", "z")

_NUMBERS = ValuesLike(r"-?[\d.]+(e-?\d+)?")
_NONE = tyro.conf.arg(help_behavior_hint="")  # no default to show
_PREPARATION: dict[str, Any] = {
    "fit": "stretch",
    "crop_box": None,
    "interpolation": "area",
    "matrix": "auto",
}
_ORIGINAL: dict[str, Any] = {
    "fit": "letterbox",
    "crop_box": (5.0, 20.0, -25.0, -20.0),
    "interpolation": "lanczos",
    "matrix": "auto",
}
"""The preparation of the original project's own notebook."""


@dataclass(frozen=True)
class ImportOptions(BundleOptions):
    """Options of motorvae import."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "weights": ("decoder", "module", "weights", "inputs", "outputs", "decoder_range"),
        "images": (
            *("preset", "image_size", "color", "crop_box", "fit", "interpolation", "matrix"),
            *("value_range", "mean", "std", "held_out", "workers", "max_picture"),
        ),
        **PrecisionOptions.GROUPS,
    }

    what: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")] = None
    """An encoder as an .onnx file, a folder of an autoencoder of diffusers, or a checkpoint of the
    original motorVAE project (.pth, .pt or .safetensors). Left out with --module."""
    images: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Images of what the model is for: a folder, a pattern of them or a video. Needed: graphs are
    compared on some of them, and the others say which images are known."""
    run: Path | None = None
    """Of a checkpoint, the training run that it becomes; by default runs/ and the file's name. A
    bundle is written as well where --output, a precision or an engine is asked for."""
    decoder: Path | None = None
    """The decoder that belongs to an .onnx encoder."""
    module: Annotated[str | None, tyro.conf.arg(metavar="PACKAGE.MODULE:FACTORY")] = None
    """Import a torch module, which this function of yours gives: one with encode(x) and decode(z).
    Its code runs, from the current folder as well."""
    weights: Path | None = None
    """What --module loads: a .safetensors file, or a .pth or .pt of tensors alone."""
    inputs: Annotated[tuple[str, ...], tyro.conf.arg(metavar="image=NAME [z=NAME]"), _NONE] = ()
    """Which inputs of .onnx files are meant, where they have several."""
    outputs: Annotated[tuple[str, ...], tyro.conf.arg(metavar="mu=NAME [log_var=NAME]"), _NONE] = ()
    """Which outputs of .onnx files are mu, log_var and reconstruction, where their names do not
    say it; moments=NAME is mu and log_var one after another."""
    decoder_range: Range = "network"
    """What the decoder gives: images in the range that the encoder takes (network), or in [0, 1]
    whatever that is (unit)."""
    preset: Preset | None = None
    """How images are prepared. original: as the original project did, by default for its
    checkpoints; none: by the options below alone."""
    image_size: Annotated[
        Size | None,
        tyro.conf.arg(aliases=("--size", "--imgsz"), metavar="SIDE|HEIGHT WIDTH"),
    ] = None
    """The input's height and width in pixels, where the weights do not say it."""
    color: Color | None = None
    """What the model sees; by default grey for one channel, and rgb for three."""
    crop_box: Annotated[
        Box | None, tyro.conf.arg(aliases=("--crop",), metavar="LEFT TOP RIGHT BOTTOM")
    ] = None
    """What is taken of each image before it is fitted: fractions from 0 to 1, or whole pixels,
    where a right or bottom of 0 and below counts from the far edge. All of it where left out."""
    fit: Fit | None = None
    """How an image of another shape becomes that of the input: stretch (the default), crop (keep
    the centre), pad (with white) or letterbox (with white once it is resized)."""
    interpolation: Interpolation | None = None
    """How it is resized; by default area, as motorvae-train."""
    matrix: Matrix | None = None
    """Which matrix video has that names none; by default auto: BT.709 from 1280 pixels across or
    more than 576 down, and BT.601 below."""
    value_range: tuple[float, float] | None = None
    """What black and white are to the network; by default 0 and 1, and -1 and 1 for diffusers."""
    mean: Annotated[tuple[float, ...], _NUMBERS, _NONE] = ()
    """Subtracted from each channel after that; none is 0."""
    std: Annotated[tuple[float, ...], _NUMBERS, _NONE] = ()
    """Each channel is divided by it after that; none is 1."""
    held_out: float = 0.5
    """Fraction of the images that graphs are compared on; the others say which are known."""
    workers: int = 0
    """Threads that decode images; 0 takes one per core."""
    max_picture: float = MAX_PICTURE
    """Megapixels that an image may have; a larger one is skipped before it is decoded."""

    @property
    def bundle(self) -> Path:
        """The bundle to write."""
        return self.output or DEFAULT_OUTPUT

    @property
    def wants_bundle(self) -> bool:
        """Whether a checkpoint, too, is to become a bundle."""
        return bool(self.output or self.precisions or self.engine_precisions)

    def preparation(self, *, is_original: bool = False, **sizes: Any) -> dict[str, Any]:
        """Return the fields of a spec that say how an image becomes input, and `sizes`.

        `is_original` says that the weights are of the original project.
        """
        preset = self.preset or ("original" if is_original else "none")
        found = dict(_ORIGINAL if preset == "original" else _PREPARATION)
        found |= {name: given for name in found if (given := getattr(self, name)) is not None}
        found |= {"mean": self.mean, "std": self.std}
        if self.value_range is not None:
            found["value_range"] = self.value_range
        return found | sizes

    def names_of(self, option: Literal["inputs", "outputs"]) -> dict[str, str]:
        """Return ours to the graph's names of an option; a ConfigError for one that we lack."""
        known = INPUTS if option == "inputs" else OUTPUTS
        words: Sequence[str] = getattr(self, option)
        found = {}
        for word in (part for one in words for part in one.split(",") if part):
            ours, equals, name = word.partition("=")
            if not equals and option == "inputs":
                ours, name = "image", word
            if ours not in known or not name:
                raise ConfigError(
                    f"--{option} {word}: give NAME of the graph as {' or '.join(known)}, such as "
                    f"{known[0]}=NAME"
                )
            found[ours] = name
        return found

    def check(self) -> None:
        """Refuse, with a ConfigError, options that contradict one another or are out of range."""
        self.check_precisions()
        if (self.what is None) == (self.module is None):
            raise ConfigError(
                "name what to import: an encoder.onnx, a folder of diffusers, a checkpoint, or "
                "--module PACKAGE.MODULE:FACTORY"
                + (", and not two of them" if self.what is not None else "")
            )
        if self.images is None:
            raise ConfigError(
                "--images is missing: without images of what the model is for, nothing could be "
                "verified; name a folder of them"
            )
        if self.weights is not None and self.module is None:
            raise ConfigError("--weights is what --module loads: name the file itself, or --module")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"--held-out={self.held_out}: it must be between 0 and 1")
        if self.workers < 0 or not self.max_picture > 0:
            raise ConfigError("--workers must be 0 or more, and --max-picture megapixels above 0")
        self.names_of("inputs")
        self.names_of("outputs")
