"""Every option of `motorvae explore`, one frozen dataclass a verb."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...runtime.core.errors import ConfigError, UsageError
from ...runtime.pixels.picture import MAX_PICTURE

Animation = Literal["gif", "mp4"]
IMAGE_WORDS = "an image is a path, held-out:N or vehicle:N"
ModelArgument = Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]


@dataclass(frozen=True)
class OutputOptions:
    """What every verb has."""

    output: Path = Path("explore")
    """Folder that the files go to; it is made where it is not there, and earlier files of the same
    verb are replaced."""

    def check(self) -> None:
        """Raise a ConfigError for the first option that is out of range."""


@dataclass(frozen=True)
class ModelOptions(OutputOptions):
    """What every verb has that looks at one model."""

    model: Path | None = None
    """A training run or a bundle; by default runs/latest, or else bundle."""
    images: str | None = None
    """Images to look at instead of the held-out ones that the model came with: a folder, a pattern,
    a video, or vehicles for the built-in ones; of more than 4096 every nth."""
    max_picture: float = MAX_PICTURE
    """Megapixels that an image file may have; a larger one is not decoded."""


@dataclass(frozen=True)
class ReconstructionsOptions(ModelOptions):
    """Originals over reconstructions: best, median and worst of all held-out images."""

    model: ModelArgument = None
    """A training run or a bundle; by default runs/latest, or else bundle."""
    count: int = 8
    """How many of the best, of the median and of the worst are shown."""

    def check(self) -> None:
        """Raise a ConfigError for the first option that is out of range."""
        check_range(self, count=(1, 64))


@dataclass(frozen=True)
class SamplesOptions(ModelOptions):
    """Samples of the prior, and of a Gaussian mixture fitted to the training latents."""

    model: ModelArgument = None
    """A training run or a bundle; by default runs/latest, or else bundle."""
    count: int = 24
    """How many samples of each are shown."""
    components: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """How many Gaussians the mixture may have; the Bayesian information criterion chooses."""
    seed: int = 0
    """Seed of the samples and of the fit."""

    def check(self) -> None:
        """Raise a ConfigError for the first option that is out of range."""
        check_range(self, count=(1, 256), seed=(0, 2**32 - 1))
        if not self.components or not all(1 <= one <= 256 for one in self.components):
            raise ConfigError(f"--components={self.components}: take numbers from 1 to 256")


@dataclass(frozen=True)
class TraversalsOptions(ModelOptions):
    """What each latent dimension does to an image, all of them ranked by how much they do."""

    image: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")] = None
    """Image whose latent is changed: a path, held-out:N or vehicle:N, counted from 0; by default
    the mean latent of the training images."""
    dimensions: int = 8
    """How many dimensions, from the first of the ranking on, get a sheet and an animation of their
    own."""
    steps: int = 9
    """Pictures a dimension on the sheets."""
    span: float = 3.0
    """How far a dimension moves to each side of its mean, in standard deviations of the aggregate
    posterior."""
    animation: Animation = "gif"
    """What animations are written as."""

    def check(self) -> None:
        """Raise a ConfigError for the first option that is out of range."""
        check_range(self, dimensions=(0, 1 << 20), steps=(2, 64), span=(0.01, 100))


@dataclass(frozen=True)
class InterpolateOptions(ModelOptions):
    """The way from one image to another through latent space."""

    ends: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="A B")] = ()
    """Two images, each a path, held-out:N or vehicle:N, counted from 0."""
    steps: int = 9
    """Pictures on the sheet, both ends included."""
    spherical: bool = False
    """Along a great circle around the origin (slerp), instead of a straight line."""
    animation: Animation = "gif"
    """What the animation is written as."""

    def check(self) -> None:
        """Raise a ConfigError for the first option that is out of range."""
        if len(self.ends) != 2:
            raise UsageError(f"give two images, and not {len(self.ends)}: {IMAGE_WORDS}")
        check_range(self, steps=(2, 256))


@dataclass(frozen=True)
class ArithmeticOptions(ModelOptions):
    """Sums and differences of latents, decoded: A - B + C."""

    terms: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="A - B + C")] = ()
    """Images with + or - between them, each a word of its own; images are paths, held-out:N or
    vehicle:N, counted from 0."""

    def check(self) -> None:
        """Raise a UsageError where these are no sum."""
        _ = self.signed

    @property
    def signed(self) -> tuple[tuple[int, str], ...]:
        """The images, each with 1 or -1; a UsageError where images and signs do not alternate."""
        words = self.terms if self.terms[:1] in {("+",), ("-",)} else ("+", *self.terms)
        signs, images = words[::2], words[1::2]
        fits = len(signs) == len(images) >= 2 and set(signs) <= {"+", "-"}
        if not fits or {"+", "-"} & {*images}:
            given = " ".join(self.terms) or "nothing"
            raise UsageError(
                f"{given}: write images with + or - between them, such as "
                f"held-out:0 - held-out:1 + held-out:2; {IMAGE_WORDS}"
            )
        return tuple(
            (1 if sign == "+" else -1, image) for sign, image in zip(signs, images, strict=True)
        )


@dataclass(frozen=True)
class AverageOptions(ModelOptions):
    """The mean latent of images, decoded, beside the mean of their pixels."""

    of: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES ...")] = ()
    """Images, folders, patterns or videos, held-out:N or vehicle:N, counted from 0; by default all
    held-out images."""


@dataclass(frozen=True)
class HistoryOptions(OutputOptions):
    """How a run came to be, image by image; or several runs in one table and one picture."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")] = ()
    """Training runs, finished or not; by default runs/latest."""
    animation: Animation = "gif"
    """What the animation of a single run is written as."""


def check_range(options: object, **ranges: tuple[float, float]) -> None:
    """Raise a ConfigError for the first of these options that is not from lowest to highest."""
    for name, (least, most) in ranges.items():
        value = getattr(options, name)
        if not least <= value <= most:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag}={value}: take {least:g} to {most:g}")
