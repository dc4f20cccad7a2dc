"""Pictures to explore with: by a word, of a data set, or those that a run or bundle kept."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...runtime.core.documents import MOST_ARRAYS, Form, arrays_from_npz
from ...runtime.core.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    DataError,
    ImageError,
    MotorVAEError,
)
from ...runtime.core.frame import Gap
from ...runtime.core.spec import ModelSpec
from ...runtime.core.text import printable
from ...runtime.pixels.convert import fitted
from ...runtime.pixels.files.image_files import picture_from_file
from ...runtime.pixels.picture import MAX_PICTURE, limit_for
from ...runtime.sources.base import CaptureRequest, fitted_from_item
from ...runtime.sources.open import open_source
from ...runtime.sources.spec import SourceSpec
from ..dataset import vehicle_for
from ..latent_statistics import HELD_OUT_IMAGES

MOST_PICTURES = 4096
"""Of a data set at most so many pictures are taken, at even distances."""
VEHICLES = 512
"""How many pictures the word `vehicles` stands for: those from number 0 on, of seed 0."""
_WORD = re.compile(r"(held-out|vehicle):(\d{1,9})")

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """N pictures as the model takes them.

    Attributes:
        pixels: (N, H, W) luma or (N, 3, H, W) planes in the order of the model's `color`, uint8.
        names: What to call each.
        source: What they are, for a sentence: "157 held-out images".
        remarks: What to know of what was not taken, a line each.
    """

    pixels: Pixels
    names: tuple[str, ...]
    source: str
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)


def kept_pictures(path: Path, spec: ModelSpec, what: str, *, in_bundle: bool) -> Pictures:
    """Read the held-out pictures of a run, or those that a bundle was verified on.

    A CheckpointError or BundleError names the file where it is missing or does not fit.
    """
    error: type[MotorVAEError] = BundleError if in_bundle else CheckpointError
    again = "export it again, or name images with --images"
    if not in_bundle:
        again = "train again, or name images with --images"
    most = max(MOST_ARRAYS, (HELD_OUT_IMAGES + 1) * math.prod(spec.picture_shape))
    forms = {
        "images": Form("u1", ("images", *spec.picture_shape)),
        "names": Form("U", ("images",), needed=False),
    }
    found = arrays_from_npz(path, forms, error=error, again=again, most_bytes=most)
    count = len(found["images"])
    if not count:
        raise error(f"{path} holds no image: {again}")
    names = found.get("names")
    called = [f"image-{row:06d}" for row in range(count)] if names is None else map(str, names)
    if count == 1:
        what = what.replace("images", "image")
    return Pictures(found["images"], tuple(called), f"{count} {what}")


def pictures_of_data(
    data: str,
    spec: ModelSpec,
    *,
    most: int = MOST_PICTURES,
    max_picture: float = MAX_PICTURE,
) -> Pictures:
    """Decode a folder, a pattern, a video, one image, or the word `vehicles`, as streams do.

    Of more than `most` pictures every nth is taken.

    Raises:
        SourceError: It is not there, or does not open.
        DataError: Nothing in it decodes.
        ConfigError: It is live and has no end.
    """
    if data == "vehicles":
        count = min(VEHICLES, most)
        pixels = np.stack([vehicle_for(spec, 0, row) for row in range(count)])
        names = tuple(f"vehicle-{row:06d}" for row in range(count))
        return Pictures(pixels, names, f"{count} built-in vehicles")
    named = SourceSpec.local(data)
    names_found: list[str] = []
    found: list[Pixels] = []
    lost: list[str] = []
    with open_source(named, CaptureRequest(spec=spec, max_picture=max_picture)) as source:
        every = max(1, math.ceil((source.expected or 0) / most))
        row = 0
        while (item := source.read()) is not None and len(found) < most:
            row += 1
            if (row - 1) % every:
                continue
            picture = fitted_from_item(item, spec)
            name = printable(item.name or f"frame-{item.index:06d}")
            if isinstance(picture, Gap):
                lost.append(f"{name}: {picture.reason}")
            else:
                names_found.append(name)
                found.append(picture.copy())
        remarks = [*source.remarks]
    if not found:
        first = f" (first: {lost[0]})" if lost else ""
        raise DataError(f"nothing in {printable(data)} decodes{first}: name other images or video")
    if lost:
        remarks.append(f"{len(lost)} did not decode, first {lost[0]}")
    count = len(found)
    images = f"{count} image{'' if count == 1 else 's'} of {printable(data)}"
    return Pictures(np.stack(found), tuple(names_found), images, tuple(remarks))


def is_image_word(word: str) -> bool:
    """Whether it names an image by its number."""
    return _WORD.fullmatch(word) is not None


def picture_of_word(
    word: str,
    spec: ModelSpec,
    held_out: Callable[[], Pictures],
    *,
    max_picture: float = MAX_PICTURE,
) -> tuple[str, Pixels]:
    """Return name and picture of `held-out:N`, `vehicle:N` (of seed 0), or an image's path.

    Numbers count from 0.

    Raises:
        ConfigError: There is no such held-out image.
        ImageError: The file does not decode.
    """
    if (named := _WORD.fullmatch(word)) is None:
        path = Path(word).expanduser()
        if path.is_dir():
            raise ImageError(f"{path} is a folder: name one image of it")
        picture = picture_from_file(path, limit_for(spec, max_picture), spec.color)
        return printable(path.name), fitted(picture.pixels, spec)
    row = int(named[2])
    if named[1] == "vehicle":
        return f"vehicle {row}", vehicle_for(spec, 0, row)
    known = held_out()
    if row >= len(known):
        raise ConfigError(
            f"{word}: there are {known.source}, take held-out:0 to held-out:{len(known) - 1}"
        )
    return known.names[row], known.pixels[row]
