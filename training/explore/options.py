"""Every option of `motorvae explore`, one frozen dataclass a verb."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...runtime.core.errors import ConfigError
from ...runtime.pixels.picture import MAX_PICTURE

Animation = Literal["gif", "mp4"]
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


def check_range(options: object, **ranges: tuple[float, float]) -> None:
    """Raise a ConfigError for the first of these options that is not from lowest to highest."""
    for name, (least, most) in ranges.items():
        value = getattr(options, name)
        if not least <= value <= most:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag}={value}: take {least:g} to {most:g}")
