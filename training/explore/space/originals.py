"""Thumbnails of the images that rows of latents are of, from where those were encoded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import numpy.typing as npt

from ....runtime.core.frame import Gap
from ....runtime.core.spec import Color, ModelSpec
from ....runtime.core.text import printable
from ....runtime.pixels.convert import Pixels, image_from_picture
from ....runtime.pixels.picture import MAX_PICTURE
from ....runtime.sources.base import CaptureRequest, fitted_from_item
from ....runtime.sources.open import open_source
from ....runtime.sources.spec import SourceSpec

SIDE = 96
"""Of a thumbnail, in pixels: enough to tell a van from a bus."""
_WHITE = 255


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """Small pictures of N images.

    Attributes:
        images: (N, 96, 96, 3) uint8 BGR, the whole picture on white; white where there is none.
        found: (N,) bool, whether there is one.
    """

    images: npt.NDArray[np.uint8]
    found: npt.NDArray[np.bool_]

    @property
    def missing(self) -> int:
        """How many images have none."""
        return int((~self.found).sum())


def no_thumbnails(count: int) -> Thumbnails:
    """Return what stands for the thumbnails of images that nobody can find."""
    images = np.full((count, SIDE, SIDE, 3), _WHITE, np.uint8)
    return Thumbnails(images, np.zeros(count, np.bool_))


def thumbnails_of_pictures(pictures: Pixels, color: Color) -> Thumbnails:
    """Return those of pictures (N, H, W) or (N, 3, H, W) uint8, as a model takes them."""
    found = no_thumbnails(len(pictures))
    for picture, thumbnail in zip(pictures, found.images, strict=True):
        image = image_from_picture(picture, color)
        height, width = image.shape[:2]
        scale = SIDE / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        small = np.asarray(cv2.resize(image, size, interpolation=kind))
        left, top = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
        place = thumbnail[top : top + size[1], left : left + size[0]]
        place[:] = small[:, :, None] if small.ndim == 2 else small
    return Thumbnails(found.images, np.ones(len(pictures), np.bool_))


def thumbnails_of_names(
    names: Sequence[str], data: str, *, max_picture: float = MAX_PICTURE
) -> Thumbnails:
    """Return those of the images that `data`, a folder, a pattern or a video, has by these names.

    Names are as `motorvae-encode` and a run write them: relative paths, or the number of a frame,
    as in `street.avi#000123` or `frame-000123`. A file name without its folder will do where only
    one image has it. SourceError where `data` cannot be opened.
    """
    rows = {name: row for row, name in enumerate(names)}
    ends = Counter(PurePosixPath(name).name for name in names)
    by_end = {PurePosixPath(name).name: row for name, row in rows.items()}

    def row_of(*called: str) -> int | None:
        row = next((rows[name] for name in called if name in rows), None)
        end = PurePosixPath(called[0]).name
        return by_end.get(end) if row is None and ends[end] == 1 else row

    def is_named(path: Path) -> bool:
        return row_of(printable(path.relative_to(named.location).as_posix())) is not None

    named = SourceSpec.local(data)
    if named.kind == "images":  # others are not decoded
        named = replace(named, paths=tuple(filter(is_named, named.paths)))
    found = no_thumbnails(len(names))
    spec = ModelSpec(image_size=SIDE, color="bgr", fit="letterbox")
    with open_source(named, CaptureRequest(spec=spec, max_picture=max_picture)) as source:
        while (item := source.read()) is not None and not found.found.all():
            frame = f"{item.index:06d}"
            called = [item.name] if item.name else [f"{source.name}#{frame}", f"frame-{frame}"]
            row = row_of(*called)
            picture = None if row is None else fitted_from_item(item, spec)
            if row is not None and picture is not None and not isinstance(picture, Gap):
                found.images[row] = image_from_picture(picture, spec.color)
                found.found[row] = True
    return found


def data_beside(names: Sequence[str], file: Path) -> str | None:
    """Return the folder or video that the names of rows lead to, or None where they lead nowhere.

    They are looked for beside the file that holds them, and where the command runs.
    """
    if not names:
        return None
    first, _, frame = names[0].partition("#")
    for folder in dict.fromkeys([file.absolute().parent, Path.cwd()]):
        if os.path.isfile(folder / first):  # noqa: PTH113  # what cannot be a name is no file
            return str(folder / first if frame.isdigit() else folder)
    return None


def words_on_missing(thumbnails: Thumbnails, data: str | None) -> str | None:
    """Return one line on images without a picture, or None where all have one."""
    if not thumbnails.missing:
        return None
    count = len(thumbnails.found)
    if data is None:
        return (
            f"no pictures of the {count} images: say where they are with --images, as "
            "motorvae-encode was called"
        )
    return f"{thumbnails.missing} of {count} images are not in {printable(data)}, or do not decode"
