"""The verbs of `motorvae explore` for Python, as `motorvae.explore.VERB(...)`.

    import motorvae as mv

    found = mv.explore.samples("runs/latest", output="explore")
    print(found.numbers["mixture"], found.files)

Each writes what the command writes, prints nothing, and returns a `Result`. Where `model` is left
out, it is runs/latest, or else bundle. An image is a path, "held-out:N" or "vehicle:N", counted
from 0; `images` names others than the held-out ones that a model came with: a folder, a pattern, a
video, or "vehicles". Every error is a `MotorVAEError`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from .keywords import PathLike, spelled_for_python
from .runtime.pixels.picture import MAX_PICTURE
from .training.explore.cli import VERBS, explored
from .training.explore.options import OutputOptions
from .training.explore.results import Result

__all__ = (
    "Result",
    "arithmetic",
    "average",
    "factors",
    "history",
    "interpolate",
    "live",
    "map",
    "neighbours",
    "reconstructions",
    "samples",
    "traversals",
)

_PATHS = ("model", "output", "labels", "compare", "latents", "view")
_TEXTS = ("images", "image", "camera")


@spelled_for_python()
def reconstructions(
    model: PathLike | None = None,
    *,
    output: PathLike = "explore",
    images: PathLike | None = None,
    max_picture: float = MAX_PICTURE,
    count: int = 8,
) -> Result:
    """Rank all held-out images by the error of their reconstruction; show both ends and the middle.

    Args:
        model: A training run or a bundle.
        output: Folder that the files go to.
        images: Other images than the held-out ones.
        max_picture: Megapixels that an image file may have.
        count: How many of the best, of the median and of the worst are shown.
    """
    return _explored("reconstructions", locals())


@spelled_for_python()
def samples(
    model: PathLike | None = None,
    *,
    output: PathLike = "explore",
    images: PathLike | None = None,
    max_picture: float = MAX_PICTURE,
    count: int = 24,
    components: Sequence[int] = (1, 2, 4, 8, 16, 32),
    seed: int = 0,
) -> Result:
    """Sample the prior, and a Gaussian mixture fitted to the training latents.

    Args:
        model: A training run or a bundle.
        output: Folder that the files go to.
        images: Other images than those that the model came with.
        max_picture: Megapixels that an image file may have.
        count: How many samples of each are shown.
        components: How many Gaussians the mixture may have.
        seed: Of the samples and of the fit.
    """
    return _explored("samples", locals())


@spelled_for_python()
def traversals(
    image: PathLike | None = None,
    *,
    model: PathLike | None = None,
    output: PathLike = "explore",
    images: PathLike | None = None,
    max_picture: float = MAX_PICTURE,
    dimensions: int = 8,
    steps: int = 9,
    span: float = 3.0,
    animation: Literal["gif", "mp4"] = "gif",
) -> Result:
    """Move one latent dimension at a time, and rank all of them by what that does.

    Args:
        image: Whose latent is changed; by default the mean latent of the training images.
        model: A training run or a bundle.
        output: Folder that the files go to.
        images: Other images than those that the model came with.
        max_picture: Megapixels that an image file may have.
        dimensions: How many get a sheet and an animation of their own.
        steps: Pictures a dimension on the sheets.
        span: How far it moves to each side, in standard deviations of the aggregate posterior.
        animation: What animations are written as.
    """
    return _explored("traversals", locals())


@spelled_for_python()
def interpolate(
    start: PathLike,
    end: PathLike,
    *,
    model: PathLike | None = None,
    output: PathLike = "explore",
    images: PathLike | None = None,
    max_picture: float = MAX_PICTURE,
    steps: int = 9,
    spherical: bool = False,
    animation: Literal["gif", "mp4"] = "gif",
) -> Result:
    """Go from one image to another through latent space.

    Args:
        start: An image.
        end: Another one.
        model: A training run or a bundle.
        output: Folder that the files go to.
        images: Other images than the held-out ones, for "held-out:N".
        max_picture: Megapixels that an image file may have.
        steps: Pictures on the sheet, both ends included.
        spherical: Along a great circle around the origin, instead of a straight line.
        animation: What the animation is written as.
    """
    given = locals()
    ends = (os.fspath(given.pop("start")), os.fspath(given.pop("end")))
    return _explored("interpolate", given | {"ends": ends})


@spelled_for_python()
def arithmetic(
    plus: Sequence[PathLike],
    minus: Sequence[PathLike] = (),
    *,
    model: PathLike | None = None,
    output: PathLike = "explore",
    images: PathLike | None = None,
    max_picture: float = MAX_PICTURE,
) -> Result:
    """Add and subtract the latents of images, and decode the sum.

    Args:
        plus: Images that are added.
        minus: Images that are subtracted.
        model: A training run or a bundle.
        output: Folder that the files go to.
        images: Other images than the held-out ones, for "held-out:N".
        max_picture: Megapixels that an image file may have.
    """
    given = locals()
    signed = [("+", one) for one in given.pop("plus")] + [("-", one) for one in given.pop("minus")]
    terms = tuple(word for sign, image in signed for word in (sign, os.fspath(image)))
    return _explored("arithmetic", given | {"terms": terms})


@spelled_for_python()
def average(
    of: Sequence[PathLike] = (),
    *,
    model: PathLike | None = None,
    output: PathLike = "explore",
    images: PathLike | None = None,
    max_picture: float = MAX_PICTURE,
) -> Result:
    """Decode the mean latent of images, and show it beside the mean of their pixels.

    Args:
        of: Images, folders, patterns or videos; by default all held-out images.
        model: A training run or a bundle.
        output: Folder that the files go to.
        images: Other images than the held-out ones.
        max_picture: Megapixels that an image file may have.
    """
    given = locals()
    words = tuple(os.fspath(one) for one in given.pop("of"))
    return _explored("average", given | {"of": words})


@spelled_for_python()
def history(
    runs: Sequence[PathLike] = (),
    *,
    output: PathLike = "explore",
    animation: Literal["gif", "mp4"] = "gif",
) -> Result:
    """Show a run's images through its epochs, or compare the metrics of several runs.

    Args:
        runs: Training runs, finished or not; by default runs/latest.
        output: Folder that the files go to.
        animation: What the animation of a single run is written as.
    """
    given = locals()
    folders = tuple(Path(one).expanduser() for one in given.pop("runs"))
    return _explored("history", given | {"runs": folders})


@spelled_for_python()
def factors(
    model: PathLike | None = None,
    *,
    output: PathLike = "explore",
    images: PathLike | None = None,
    max_picture: float = MAX_PICTURE,
    labels: PathLike | None = None,
    compare: PathLike | None = None,
    count: int = 2000,
    seed: int = 1_000_003,
) -> Result:
    """Measure how well latents hold known factors: linear probes, MIG, DCI, active units, rate.

    Args:
        model: A training run or a bundle.
        output: Folder that the files go to.
        images: The images that `labels` is of, where those are not the held-out ones.
        max_picture: Megapixels that an image file may have.
        labels: A CSV file: names of images, and a column for each factor. By default the factors
            are those of built-in vehicles, drawn anew.
        compare: Another training run or bundle to put beside.
        count: How many built-in vehicles are drawn.
        seed: Of the vehicles, and of how images are split.
    """
    return _explored("factors", locals())


@spelled_for_python()
def neighbours(
    image: PathLike = "held-out:0",
    *,
    model: PathLike | None = None,
    output: PathLike = "explore",
    images: PathLike | None = None,
    max_picture: float = MAX_PICTURE,
    latents: PathLike | None = None,
    count: int = 12,
) -> Result:
    """Find the images that are nearest to one in latent space.

    Args:
        image: Which one.
        model: A training run or a bundle.
        output: Folder that the files go to.
        images: Among which images; with `latents`, where the images of those lie.
        max_picture: Megapixels that an image file may have.
        latents: An .npz file that `encode` wrote with the same model, to search instead.
        count: How many of the nearest.
    """
    return _explored("neighbours", locals())


@spelled_for_python()
def map(  # noqa: A001  # the verb's name; the module itself has no use for the builtin
    model: PathLike | None = None,
    *,
    output: PathLike = "explore",
    images: PathLike | None = None,
    max_picture: float = MAX_PICTURE,
    method: Literal["umap", "tsne", "pca"] | None = None,
    labels: PathLike | None = None,
    color_by: str | None = None,
    seed: int = 0,
) -> Result:
    """Draw the latent space in two dimensions, as a picture and as a page to look around in.

    Args:
        model: An .npz file that `encode` wrote, or a training run or a bundle.
        output: Folder that the files go to.
        images: Other images than the held-out ones; of an .npz file, where its images lie.
        max_picture: Megapixels that an image file may have.
        method: By default the first of the three whose package is installed.
        labels: A CSV file: names of images, and columns.
        color_by: The column that colours the points; of built-in vehicles also a factor.
        seed: Of the method's random numbers.
    """
    return _explored("map", locals())


@spelled_for_python()
def live(
    camera: PathLike = "0",
    *,
    model: PathLike | None = None,
    output: PathLike = "explore",
    images: PathLike | None = None,
    max_picture: float = MAX_PICTURE,
    latents: PathLike | None = None,
    method: Literal["umap", "tsne", "pca"] = "pca",
    view: PathLike | None = None,
    max_frames: int | None = None,
    realtime: bool = False,
    seed: int = 0,
) -> Result:
    """Show what a stream sees in the latent map, in the Rerun view, until it ends.

    In the main thread the first Ctrl-C ends the stream, and the result is still returned.

    Args:
        camera: Where frames come from, as of `stream`.
        model: A bundle; by default "bundle".
        output: Folder that the files go to.
        images: Known images of the map in place of those that the bundle keeps.
        max_picture: Megapixels that an image file may have.
        latents: An .npz file of known images, that `encode` wrote with the same model.
        method: "pca" or "umap", which can place new points.
        view: Record to this .rrd file; by default the Rerun viewer opens.
        max_frames: Stop after this many frames.
        realtime: Play a recording at its own frame rate.
        seed: Of UMAP's random numbers.
    """
    return _explored("live", locals())


def _explored(verb: str, given: dict[str, Any]) -> Result:
    """Run a verb with options as its dataclass has them; paths may be of any kind."""
    asked = dict(given)
    for name in (*_PATHS, *_TEXTS):
        if asked.get(name) is not None:
            text = os.path.expanduser(os.fspath(asked[name]))  # noqa: PTH111  # or a pattern
            asked[name] = Path(text) if name in _PATHS else text
    if "components" in asked:
        asked["components"] = tuple(asked["components"])
    options: OutputOptions = VERBS[verb].options(**asked)
    return explored(verb, options)
