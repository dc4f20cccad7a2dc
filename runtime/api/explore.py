"""The verbs of `motorvae explore` for Python, as `motorvae.explore.VERB(...)`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .keywords import PathLike, spelled_for_python
from .runtime.pixels.picture import MAX_PICTURE
from .training.explore.cli import VERBS, explored
from .training.explore.options import OutputOptions
from .training.explore.results import Result

__all__ = ("Result", "reconstructions")


@spelled_for_python()
def reconstructions(
    model: PathLike | None = None,
    *,
    output: PathLike = "explore",
    images: PathLike | None = None,
    count: int = 8,
    max_picture: float = MAX_PICTURE,
) -> Result:
    """Rank all held-out images by the error of their reconstruction; show both ends and the middle.

    Args:
        model: A training run or a bundle; by default runs/latest, or else bundle.
        output: Folder that the files go to.
        images: Other images than the held-out ones: a folder, a pattern, a video, or "vehicles".
        count: How many of the best, of the median and of the worst are shown.
        max_picture: Megapixels that an image file may have.

    Raises:
        MotorVAEError: An option is out of range, or something does not open or cannot be written.
    """
    return _explored(
        "reconstructions",
        model=model,
        output=output,
        images=images,
        count=count,
        max_picture=max_picture,
    )


def _explored(verb: str, **given: Any) -> Result:
    """Run a verb with options as its dataclass has them; paths may be of any kind."""
    for name in ("model", "output"):
        if given.get(name) is not None:
            given[name] = Path(given[name]).expanduser()
    if given.get("images") is not None:
        given["images"] = os.path.expanduser(os.fspath(given["images"]))  # noqa: PTH111  # or a pattern
    options: OutputOptions = VERBS[verb].options(**given)
    return explored(verb, options)
