"""A JPEG's luma by libjpeg-turbo, whose warnings tell damage from the habits of encoders."""

from __future__ import annotations

import re

import numpy as np
import simplejpeg

from ..core.errors import ImageError
from .orientation import JPEG_SCAN, Luma, jpeg_segments

_DAMAGE = ("premature end of data", "bad Huffman code", "instead of RST")
"""Words of libjpeg-turbo for damage; its other warnings may be about an encoder's habit."""
_LEFT_OVER = re.compile(r"(\d{1,9}) extraneous bytes before marker 0x([0-9a-f]{2})")
"""The picture is complete, and its scan goes on: padding, or the rest of another picture."""
_END, _END_MARKER = b"\xff\xd9", "d9"
_MOST_LEFT_OVER = 3
_MOST_LETTERS = 2  # different bytes of a padding


def jpeg_scan(data: bytes) -> int | None:
    """Return where the first scan of a JPEG starts, or None where there is none."""
    segments = jpeg_segments(data)
    return next((start - 4 for marker, start, _ in segments if marker == JPEG_SCAN), None)


def grey_of_jpeg(
    data: bytes, height: int = 0, width: int = 0, *, problem: str = "frame does not decode"
) -> Luma | None:
    """Decode luma, (H / n, W / n) uint8, at the smallest scale of at least that height and width.

    None where this is better left to another decoder: rare kinds of JPEG, and a flaw that is
    damage in one camera and habit in the next. A damaged picture is an ImageError, which begins
    with `problem`.
    """
    try:
        grey = simplejpeg.decode_jpeg(data, "GRAY", min_height=height, min_width=width)
    except ValueError as error:
        if damage := _damage_in(str(error), data):
            raise ImageError(f"{problem}: {damage}") from error
        return None
    return np.asarray(grey[:, :, 0], np.uint8)


def _damage_in(warning: str, data: bytes) -> str | None:
    """Return what a warning says of damage, if it does."""
    if any(words in warning for words in _DAMAGE):
        return warning
    found = _LEFT_OVER.search(warning)
    if found is None or int(found[1]) <= _MOST_LEFT_OVER:
        return None
    end = data.rfind(_END)
    rest = data[max(0, end - int(found[1])) : end]
    is_padding = found[2] == _END_MARKER and len({*rest}) <= _MOST_LETTERS
    return None if is_padding else warning
