"""Held-out images in three parts: INT8 ranges come from one, one chooses, and one judges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.manifest import HELD_OUT
from ...runtime.core.errors import ConfigError, DataError
from ...runtime.core.frame import Gap
from ...runtime.core.redaction import without_credentials
from ...runtime.core.spec import ModelSpec
from ...runtime.sources.base import CaptureRequest, fitted_from_item
from ...runtime.sources.open import open_source

FEWEST = 16
"""It takes so many images to calibrate, and of held-out ones as many again to choose and judge."""
MOST = 128
"""So many calibrate and so many choose at most; all others judge."""

Luma = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CalibrationImages:
    """What INT8 graphs are calibrated on, chosen by, and judged by; no image is in two of them."""

    luma: Luma  # (N, S, S) uint8, fitted; what ranges come from
    origin: str  # where these come from
    choosing: Luma  # (K, S, S) uint8, held out; candidates are compared on them
    judging: Luma  # (M, S, S) uint8, held out; they judge what was chosen
    remarks: tuple[str, ...] = ()  # what to know of the calibrating ones, a line each


def calibration_from_text(text: str, held_out: Luma, spec: ModelSpec) -> CalibrationImages:
    """Return the images that `--calibration` names, and the parts of the held-out ones.

    Of held-out images a third calibrates, up to 128, a sixth chooses, up to 128, and all others
    judge. Where the user names what calibrates, a third of the held-out ones chooses. These are
    (N, S, S) uint8, in an order that does not depend on what they show.

    Raises:
        ConfigError: The source is live, or a setting in its text is not allowed.
        SourceError: It cannot be opened or read.
        DataError: There are too few images.
    """
    count = len(held_out)
    # They lie in the order of hashes, those of one stretch of a video side by side, so that one
    # cut parts one stretch at most.
    if text == HELD_OUT:
        first = min(MOST, max(FEWEST, count // 3))
        second = first + min(MOST, max(FEWEST, count // 6))
        calibrating, fewest = _unlike(held_out[:first], held_out[first:]), FEWEST
        remarks: tuple[str, ...] = ()
        problem = (
            f", it takes {3 * FEWEST}: {FEWEST} unlike the others to calibrate on, and as many to "
            "choose and to judge; name a folder of images or a video with --calibration, or train "
            "with more images"
        )
    else:
        first, second = 0, min(MOST, max(1, count // 3))
        (calibrating, remarks), fewest = _luma_from_source(text, held_out, spec), 1
        problem = (
            " to choose an INT8 graph by some of them and judge it by others: train with more "
            "images, or leave out --int8"
        )
    judging = held_out[second:]
    choosing = _unlike(held_out[first:second], judging)
    if min(len(calibrating), len(judging)) < fewest or not len(choosing):
        raise DataError(f"{count} held-out images are too few{problem}")
    return CalibrationImages(calibrating, without_credentials(text), choosing, judging, remarks)


def _luma_from_source(text: str, held_out: Luma, spec: ModelSpec) -> tuple[Luma, tuple[str, ...]]:
    """Read images that are none of those that judge, and what the source says of them."""
    found: list[Luma] = []
    gaps: list[Gap] = []
    with open_source(text, CaptureRequest(spec=spec)) as source:
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
                pixels = fitted_from_item(item, spec)
                if isinstance(pixels, Gap):
                    gaps.append(pixels)
                else:
                    found.append(pixels.copy())
            position += 1
            if len(found) == 2 * MOST:
                found, step = found[::2], 2 * step
    usable = _unlike(np.array(found), held_out) if found else found
    if len(usable) < FEWEST:
        unread = f"; {len(gaps)} did not decode, first: {gaps[0].reason}" if gaps else ""
        if equal := len(found) - len(usable):
            unread += f"; {equal} are among the held-out ones, which judge"
        raise DataError(
            f"--calibration {without_credentials(text)} has {len(usable)} images and it takes "
            f"{FEWEST}{unread}: name more images or a longer video"
        )
    evenly = np.linspace(0, len(usable) - 1, min(MOST, len(usable))).round().astype(int)
    taken: Luma = np.array(usable)[evenly]
    return taken, tuple(source.remarks)


def _unlike(images: Luma, others: Luma) -> Luma:
    """Return the images that are not equal to any of the others."""
    known = {image.tobytes() for image in others}
    return images[[image.tobytes() not in known for image in images]]
