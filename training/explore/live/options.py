"""Options of the verb that shows a stream in the latent map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ....runtime.core.errors import ConfigError
from ....runtime.stream.options import StreamOptions
from ..options import ModelOptions, check_range
from ..space.options import check_latents
from ..space.projection import Method


@dataclass(frozen=True)
class LiveOptions(ModelOptions):
    """What a stream sees in the latent space: a point that moves as the camera does."""

    camera: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CAMERA")] = "0"
    """Where frames come from, as of motorvae-stream: a device index, a video, a URL, synthetic."""
    model: Path | None = None
    """The bundle that motorvae-export wrote; by default bundle."""
    latents: Annotated[Path | None, tyro.conf.arg(aliases=["--in"])] = None
    """The known images of the map: latents.npz as motorvae-encode wrote it with the same model, or
    a run's train_latents.npz; by default the images that the bundle keeps, or those of --images."""
    method: Method = "pca"
    """pca or umap, which can place new points; t-SNE cannot."""
    view: Path | None = None
    """Record to this .rrd file; by default the Rerun viewer opens."""
    max_frames: int | None = None
    """Stop after this many frames; by default when the camera ends, or on Ctrl-C."""
    realtime: bool = False
    """Play a recording at its own frame rate, as a camera would deliver it."""
    seed: int = 0
    """Of UMAP's random numbers."""

    def check(self) -> None:
        """Raise a ConfigError for the first option that is out of range."""
        check_latents(self.latents, "--latents")
        check_range(self, seed=(0, 2**32 - 1))
        if self.method == "tsne":
            raise ConfigError("--method=tsne: t-SNE cannot place new points, take pca or umap")

    def stream_options(self) -> StreamOptions:
        """Return what the stream is opened with."""
        return StreamOptions(
            camera=(self.camera,),
            max_frames=self.max_frames,
            realtime=self.realtime,
            max_picture=self.max_picture,
            view=() if self.view is None else (str(self.view),),
        )
