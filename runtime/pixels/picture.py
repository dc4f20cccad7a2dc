"""A decoded picture, and the limit that is checked before one is decoded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import ImageError
from ..core.spec import ModelSpec
from .window import LARGEST_CANVAS

if TYPE_CHECKING:
    from .orientation import Pixels

MAX_PICTURE = 200.0
"""Megapixels. The largest sensors of phones have as many, those of cameras 150."""
_BYTES_PER_PIXEL = 4
_LONGEST = 1 << 17
_LARGE_BYTES = 1 << 27
_ONE_LARGE = threading.Lock()

SEVERAL = "holds several frames or pages, and only the first is taken; make it a video to take all"
"""What is said of a file with more pictures than the one that is meant by it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it is meant to be seen, and what to know of it."""

    pixels: Pixels  # (H, W) luma or (H, W, 3) BGR uint8, turned the right way up
    remarks: tuple[str, ...] = ()  # each a clause to follow the file's name


@dataclass(frozen=True, slots=True)
class FittedPicture:
    """A picture as a model takes it, and what to know of it."""

    pixels: Pixels  # uint8 of the spec's `picture_shape`
    shape: tuple[int, int]  # height and width that the picture had, as it is meant to be seen
    remarks: tuple[str, ...] = ()  # as of `Picture`


@dataclass(frozen=True, slots=True)
class PictureLimit:
    """How large a picture may be, in pixels and in what decoding it takes."""

    megapixels: float = MAX_PICTURE
    # Height and width of the shape that it is padded to afterwards, in any unit; none is not.
    padded: tuple[int, int] | None = None

    @property
    def most_bytes(self) -> int:
        """How many bytes a picture may take, its file included."""
        return round(self.megapixels * 1e6 * _BYTES_PER_PIXEL)

    @property
    def most_pixels(self) -> int:
        """How many pixels a picture may have."""
        return round(self.megapixels * 1e6)

    def check(self, shape: tuple[int, int], bytes_per_pixel: float, file_bytes: int = 0) -> float:
        """Return how many bytes decoding takes at its peak; ImageError where that is too much.

        `shape` is (width, height); `bytes_per_pixel` counts all copies that there are at once,
        the picture among them.
        """
        width, height = shape
        size = f"it has {width} x {height} pixels"
        needed = width * height * bytes_per_pixel + file_bytes
        if width < 1 or height < 1:
            raise ImageError(size, fix="replace or remove it")
        if max(shape) > _LONGEST:
            raise ImageError(f"{size}; a side may have {_LONGEST}", fix="cut it into parts")
        if self.padded and (canvas := self._canvas(width, height, *self.padded)) > LARGEST_CANVAS:
            is_square = self.padded[0] == self.padded[1]
            to = "a square" if is_square else f"the shape of {self.padded[0]} x {self.padded[1]}"
            raise ImageError(
                f"{size}, {canvas / 1e6:.0f} million when padded to {to}",
                fix="cut it into parts, or use a model of another --fit",
            )
        if width * height > self.megapixels * 1e6:
            what = f"{size}, and {self.megapixels:g} megapixels are allowed"
        elif needed > self.most_bytes:
            most = f"{self.most_bytes / 1e6:.0f} are allowed"
            what = f"{size} and takes {needed / 1e6:.0f} MB to decode, and {most}"
        else:
            return needed
        enough = max(width * height, needed / _BYTES_PER_PIXEL) / 1e6
        raise ImageError(what, fix=f"if you trust it, take it with --max-picture {enough + 1:.0f}")

    @staticmethod
    def _canvas(width: int, height: int, tall: int, wide: int) -> int:
        """Return how many pixels it has once padded, the way up that has fewer."""
        return min(
            max(one, other * wide // tall) * max(other, one * tall // wide)
            for one, other in ((width, height), (height, width))
        )

    @contextlib.contextmanager
    def room_for(
        self, shape: tuple[int, int], bytes_per_pixel: float, file_bytes: int = 0
    ) -> Iterator[None]:
        """Check, and let one large picture at a time be decoded, however many threads decode."""
        needed = self.check(shape, bytes_per_pixel, file_bytes)
        with _ONE_LARGE if needed > _LARGE_BYTES else contextlib.nullcontext():
            yield


USUAL_LIMIT = PictureLimit()


def limit_for(spec: ModelSpec | None, megapixels: float) -> PictureLimit:
    """Return the limit of pictures for a model, where one is given."""
    pads = spec is not None and spec.fit == "pad"
    return PictureLimit(megapixels, (spec.height, spec.width) if spec and pads else None)
