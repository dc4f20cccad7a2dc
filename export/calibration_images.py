"""Images that INT8 ranges come from: half of the held-out ones, or what the user names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..runtime.calibration import HELD_OUT
from ..runtime.camera import open_source
from ..runtime.credentials import without_credentials
from ..runtime.errors import ConfigError, DataError
from ..runtime.frames import Gap, fitted_luma, luma_from_image
from ..runtime.source import Wanted
from ..runtime.spec import ModelSpec

FEWEST = 16
MOST = 128


@dataclass(frozen=True, slots=True)
class CalibrationImages:
    """What INT8 graphs are calibrated on, and what they are judged by.

    Attributes:
        luma: (N, S, S) uint8, fitted.
        origin: Where they come from.
        judges: Which held-out images judge; none of them is in `luma`.
    """

    luma: npt.NDArray[np.uint8]
    origin: str
    judges: slice


def calibration_from_text(
    text: str, held_out: npt.NDArray[np.uint8], spec: ModelSpec
) -> CalibrationImages:
    """Return the images that `--calibration` names.

    Args:
        text: `held-out`, or a folder of images or a video as `open_source` takes it.
        held_out: (N, S, S) uint8, the images that graphs are verified on.
        spec: The model's sizes and frame fit.

    Raises:
        ConfigError: The source is live, or a setting in its text is not allowed.
        SourceError: It cannot be opened or read.
        DataError: There are too few images.
    """
    if text != HELD_OUT:
        luma = _luma_from_source(text, held_out, spec)
        return CalibrationImages(luma, without_credentials(text), slice(None))
    # They lie in the order of hashes, those of one stretch of a video side by side, so that one
    # cut parts one stretch at most.
    cut = (len(held_out) + 1) // 2
    half = _unlike(held_out[:cut], held_out[cut:])
    if min(len(half), len(held_out) - cut) < FEWEST:
        raise DataError(
            f"half of {len(held_out)} held-out images is too few to calibrate on, it takes "
            f"{FEWEST} unlike the others: name a folder of images or a video with --calibration"
        )
    return CalibrationImages(_spread_out(half), HELD_OUT, slice(cut, None))


def _luma_from_source(
    text: str, held_out: npt.NDArray[np.uint8], spec: ModelSpec
) -> npt.NDArray[np.uint8]:
    """Read images that are none of those that judge."""
    found: list[npt.NDArray[np.uint8]] = []
    gaps: list[Gap] = []
    with open_source(text, Wanted(spec=spec)) as source:
        if source.live:
            raise ConfigError(
                f"--calibration {source.name} is live and has no end: name a folder of images or "
                "a video"
            )
        # A video is sampled from its beginning to its end, also one that does not say its length.
        step, position = 1, 0
        while (item := source.read()) is not None:
            if isinstance(item, Gap):
                gaps.append(item)
            elif position % step == 0:
                found.append(np.array(fitted_luma(luma_from_image(item.image), spec)))
            position += 1
            if len(found) == 2 * MOST:
                found, step = found[::2], 2 * step
    usable = _unlike(np.array(found), held_out) if found else found
    if len(usable) < FEWEST:
        unread = f"; {len(gaps)} did not decode, first: {gaps[0].reason}" if gaps else ""
        equal = len(found) - len(usable)
        unread += f"; {equal} are among the held-out ones, which judge" if equal else ""
        raise DataError(
            f"--calibration {without_credentials(text)} has {len(usable)} images and it takes "
            f"{FEWEST}{unread}: name more images or a longer video"
        )
    return _spread_out(np.array(usable))


def _unlike(images: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the images that are not equal to any of the others."""
    known = {image.tobytes() for image in others}
    return images[[image.tobytes() not in known for image in images]]


def _spread_out(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return at most `MOST` images, evenly taken."""
    if len(images) <= MOST:
        return images
    rows = np.linspace(0, len(images) - 1, MOST).round().astype(int)
    evenly: npt.NDArray[np.uint8] = images[rows]
    return evenly
