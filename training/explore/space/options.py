"""Options of the verbs that look at the latent space: neighbours, map and live."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ....runtime.core.errors import ConfigError
from ..options import ModelOptions, check_range
from .projection import Method

LATENTS_SUFFIX = ".npz"


@dataclass(frozen=True)
class NeighboursOptions(ModelOptions):
    """The images that are nearest to one image in latent space."""

    image: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")] = "held-out:0"
    """A path; held-out:N for one of the model's own images, vehicle:N for a built-in one."""
    latents: Annotated[Path | None, tyro.conf.arg(aliases=["--in"])] = None
    """Among which images: latents.npz as motorvae-encode wrote it with the same model; by default
    the model's own, or those of --images. With it, --images says where its images lie, where their
    names alone do not lead there."""
    count: int = 12
    """How many of the nearest."""

    def check(self) -> None:
        """Raise a ConfigError for the first option that is out of range."""
        check_range(self, count=(1, 200))
        check_latents(self.latents, "--latents")


@dataclass(frozen=True)
class MapOptions(ModelOptions):
    """A map of the latent space in two dimensions, as a picture and as a page to look around in."""

    model: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="LATENTS|MODEL")] = (
        None
    )
    """latents.npz as motorvae-encode wrote it, or a training run or a bundle with the images that
    it keeps; by default runs/latest, or else bundle. Of an .npz file --images says where its images
    lie, where their names alone do not lead there."""
    method: Method | None = None
    """umap, tsne or pca; by default the first whose package is installed."""
    labels: Path | None = None
    """A CSV file with a header: its first column has the names of the images, the others what is
    known of them."""
    color_by: str | None = None
    """The column that colours the points: numbers by a scale, all else by classes. Of built-in
    vehicles also a factor, such as body, without --labels."""
    seed: int = 0
    """Of the method's random numbers."""

    def check(self) -> None:
        """Raise a ConfigError for the first option that is out of range."""
        check_range(self, seed=(0, 2**32 - 1))
        if self.labels is not None and self.color_by is None:
            raise ConfigError("--labels: name one of its columns with --color-by")


def check_latents(path: Path | None, flag: str) -> None:
    """Raise a ConfigError where this is no name of a file of latents."""
    if path is not None and path.suffix != LATENTS_SUFFIX:
        raise ConfigError(f"{flag}={path}: name an {LATENTS_SUFFIX} file of motorvae-encode")
