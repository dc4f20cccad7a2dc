"""The bytes of a picture file to upright pixels, whatever the file is called and holds."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...core.errors import ImageError
from ...core.spec import Color, ModelSpec
from ..convert import Pixels, fitted
from ..picture import USUAL_LIMIT, FittedPicture, Picture, PictureLimit
from .image_kinds import kind_of_bytes
from .opencv_images import (
    CUT_SHORT,
    fitted_from_jpeg_file,
    picture_from_jpeg,
    picture_from_png,
    picture_from_pnm,
    picture_from_webp,
)
from .pillow_images import picture_by_pillow, picture_from_heif

_FIX = "replace or remove it"


def luma_from_file(path: Path, limit: PictureLimit = USUAL_LIMIT) -> Pixels:
    """Decode a file to (H, W) uint8 luma: the right way up, alpha over white.

    A file that cannot be read, is no picture, is cut short or too large is an ImageError.
    """
    return picture_from_file(path, limit).pixels


def picture_from_file(
    path: Path, limit: PictureLimit = USUAL_LIMIT, color: Color = "grey"
) -> Picture:
    """Decode a file for a model of this colour, and say what to know of it."""
    with _named(path):
        return picture_from_bytes(content_of_file(path, limit), limit, color)


def fitted_from_file(
    path: Path, spec: ModelSpec, limit: PictureLimit = USUAL_LIMIT
) -> FittedPicture:
    """Decode a file as `fitted_from_bytes` does; an ImageError names it."""
    with _named(path):
        return fitted_from_bytes(content_of_file(path, limit), spec, limit)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in what is wrong with it."""
    try:
        yield
    except ImageError as error:
        if str(path) in str(error):
            raise
        raise ImageError(
            error.clause(), context=f"cannot decode {path}", fix=error.fix or _FIX
        ) from error
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error


def picture_from_bytes(
    data: bytes, limit: PictureLimit = USUAL_LIMIT, color: Color = "grey"
) -> Picture:
    """Decode the bytes of a picture file, by what they are; ImageError where that fails.

    For a model that takes `grey` the pixels are (H, W) luma, else (H, W, 3) BGR.
    """
    kind = kind_of_bytes(data)
    with _readable_errors():
        if kind == "JPEG":
            return picture_from_jpeg(data, limit, color)
        if kind == "PNG":
            return picture_from_png(data, limit, color)
        if kind == "WEBP" and (still := picture_from_webp(data, limit, color)):
            return still
        if kind == "PNM":
            return picture_from_pnm(data, limit, color)
        if kind == "HEIF":
            return picture_from_heif(data, limit, color)
        if kind is not None:
            return picture_by_pillow(kind, data, limit, color)
    raise ImageError("corrupt, cut short, or not an image" if data else CUT_SHORT)


def fitted_from_bytes(
    data: bytes, spec: ModelSpec, limit: PictureLimit = USUAL_LIMIT
) -> FittedPicture:
    """Decode the bytes of a picture file no larger than a model needs it, and fit it to that.

    What it may differ by from a picture that was decoded whole and then fitted is in
    docs/pixels.md. ImageError where it does not decode, or the model can make nothing of it.
    """
    if kind_of_bytes(data) == "JPEG":
        with _readable_errors():
            return fitted_from_jpeg_file(data, spec, limit)
    picture = picture_from_bytes(data, limit, spec.color)
    shape = picture.pixels.shape[0], picture.pixels.shape[1]
    return FittedPicture(fitted(picture.pixels, spec), shape, picture.remarks)


@contextlib.contextmanager
def _readable_errors() -> Iterator[None]:
    """Turn what decoders raise that were sent anything into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("there is not enough memory for it") from error
    except Exception as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(f"corrupt, cut short, or of a rare kind ({words})") from error


class CountedRemarks:
    """What is said of pictures, a line for each remark: the first picture, and how many more."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, remarks: Iterable[tuple[str, str]]) -> None:
        """Count pairs of a picture's name and what is said of it."""
        for name, remark in remarks:
            self._count[remark] += 1
            self._first.setdefault(remark, name)

    @property
    def lines(self) -> list[str]:
        """A line for each remark so far."""
        return [
            f"{self._first[remark]}{f' and {number - 1} more' if number > 1 else ''}: {remark}"
            for remark, number in self._count.items()
        ]


def counted_remarks(remarks: Iterable[tuple[str, str]]) -> list[str]:
    """Make one line of each remark; see `CountedRemarks`."""
    counted = CountedRemarks()
    counted.add(remarks)
    return counted.lines


def content_of_file(path: Path, limit: PictureLimit) -> bytes:
    """Read a regular file, of which no picture that is allowed is larger than the limit.

    An OSError says why it cannot be read; one that is an ImageError, that it is no such file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123  # a pipe would hold Path.open up
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise ImageError(f"cannot read {path}: it is no regular file")
        if facts.st_size > limit.most_bytes:
            raise ImageError(
                f"the file has {facts.st_size / 1e6:.0f} MB, and "
                f"{limit.most_bytes / 1e6:.0f} are allowed",
                context=f"cannot decode {path}",
                fix="if you trust it, raise --max-picture",
            )
        return file.read(facts.st_size)
