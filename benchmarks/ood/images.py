"""Images for the out-of-distribution benchmark: fresh vehicles, a user's video and pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...runtime.core.errors import ConfigError, SourceError
from ...runtime.core.frame import Gap
from ...runtime.core.spec import ModelSpec
from ...runtime.pixels.convert import fitted_luma, luma_from_image
from ...runtime.sources.open import open_source
from ...runtime.sources.synthetic.plan import SYNTHETIC_SIZE
from ...runtime.sources.synthetic.vehicles import RANGES, MovingVehicles, vehicle

Luma = npt.NDArray[np.uint8]

MOVING_FPS = 10


def vehicles(seed: int, count: int, spec: ModelSpec) -> Luma:
    """Draw vehicles as training draws them: (N, S, S) uint8."""
    return np.stack([vehicle(seed, index, spec.image_size)[0] for index in range(count)])


def moving_vehicles(seed: int, count: int, spec: ModelSpec) -> tuple[Luma, Luma]:
    """See vehicles drive by for `count` frames, as `--camera synthetic` does.

    Returns:
        Two of (N, S, S) uint8: the frames whose vehicle stands where training had vehicles, and
        those whose vehicle is further out, down to none at all.
    """
    world = MovingVehicles(seed, SYNTHETIC_SIZE)
    frames = np.empty((count, spec.image_size, spec.image_size), np.uint8)
    inside = np.zeros(count, np.bool_)
    for index in range(count):
        time_s = index / MOVING_FPS
        factors = world.factors(time_s)
        low, high = RANGES[factors.body]["x"]
        inside[index] = low <= factors.x <= high
        frames[index] = fitted_luma(world.image(time_s), spec)
    return frames[inside], frames[~inside]


def images_from_source(text: str, count: int, spec: ModelSpec) -> Luma:
    """Read a video or a folder of images through the path that a camera's frames take.

    Args:
        text: As `open_source` takes it.
        count: At most so many frames are kept, evenly apart.
        spec: Gives the side S and the fit.

    Returns:
        (N, S, S) uint8.

    Raises:
        ConfigError: The source is live and has no end.
        SourceError: It cannot be opened, or nothing in it decodes.
    """
    kept: list[Luma] = []
    apart, frames = 1, 0
    with open_source(text) as source:
        if source.live:
            raise ConfigError(f"{source.name} is live and has no end: record it and name the file")
        while (item := source.read()) is not None:
            if isinstance(item, Gap):
                continue
            if frames % apart == 0:
                kept.append(fitted_luma(luma_from_image(item.image), spec).copy())
            frames += 1
            if len(kept) == 2 * count:  # how many will come is not always known
                kept, apart = kept[::2], 2 * apart
        if not kept:
            raise SourceError(f"nothing in {source.name} decodes: name other images or video")
    evenly = np.linspace(0, len(kept) - 1, min(count, len(kept))).round().astype(np.int64)
    return np.stack([kept[place] for place in evenly])
