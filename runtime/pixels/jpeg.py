"""A JPEG's pixels by libjpeg-turbo, whose warnings tell damage from the habits of encoders."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import simplejpeg

from ..core.errors import ImageError
from ..core.spec import Color
from .jpeg_segments import JPEG_SCAN, jpeg_segments
from .orientation import Pixels

_DAMAGE = ("premature end of data", "bad Huffman code", "instead of RST")
"""Words of libjpeg-turbo for damage; its other warnings may be about an encoder's habit."""
_LEFT_OVER = re.compile(r"(\d{1,9}) extraneous bytes before marker 0x([0-9a-f]{2})")
"""The picture is complete, and its scan goes on: padding, or the rest of another picture."""
_END, _END_MARKER = b"\xff\xd9", "d9"
_NOT_FRAMES = {0xC4, 0xC8, 0xCC}
_ONE_SCAN = {0xC0, 0xC1}
_MOST_SCANS = 256
_MOST_LEFT_OVER = 3
_MOST_LETTERS = 2  # different bytes of a padding


class JpegHeader(NamedTuple):
    """What a JPEG says of itself before its first scan (ITU-T T.81, B.2.2)."""

    scan: int  # where that starts
    kind: int  # the marker of its frame
    bits: int  # a sample
    height: int
    width: int
    samples: tuple[tuple[int, int], ...]  # across and down, of each component in a block
    components_in_scan: int

    @property
    def bytes_per_pixel(self) -> float:
        """What decoding its luma takes: coefficients of all of it where there are more scans."""
        if self.kind in _ONE_SCAN and self.components_in_scan == len(self.samples):
            return 1.0
        largest = max((max(across, 1) * max(down, 1) for across, down in self.samples), default=1)
        return 1 + 2 * sum(across * down for across, down in self.samples) / largest

    def check_scans(self, data: bytes) -> None:
        """ImageError where a JPEG has so many that decoding takes a time without relation."""
        if self.bytes_per_pixel > 1 and data.count(b"\xff\xda") > _MOST_SCANS:
            raise ImageError(f"it is a JPEG of more than {_MOST_SCANS} scans")


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Return what comes before the first scan of a JPEG; None where that or its frame is not."""
    kind, frame = 0, b""
    for marker, start, end in jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
            kind, frame = marker, data[start:end]
        elif marker == JPEG_SCAN:
            if len(frame) < 6 or len(frame) < 6 + 3 * frame[5]:
                return None
            return JpegHeader(
                scan=start - 4,
                kind=kind,
                bits=frame[0],
                height=int.from_bytes(frame[1:3], "big"),
                width=int.from_bytes(frame[3:5], "big"),
                samples=tuple((both >> 4, both & 15) for both in frame[7 : 6 + 3 * frame[5] : 3]),
                components_in_scan=data[start] if start < end else 0,
            )
    return None


def jpeg_scan(data: bytes) -> int | None:
    """Return where the first scan of a JPEG starts, or None where there is none."""
    segments = jpeg_segments(data)
    return next((start - 4 for marker, start, _ in segments if marker == JPEG_SCAN), None)


def pixels_of_jpeg(
    data: bytes,
    color: Color,
    height: int = 0,
    width: int = 0,
    *,
    problem: str = "frame does not decode",
) -> Pixels | None:
    """Decode a JPEG at the smallest scale 1 / n of at least that height and width.

    It is (H / n, W / n) luma for a model of grey, else (H / n, W / n, 3) BGR; uint8. None where
    this is better left to another decoder: rare kinds of JPEG, and a flaw that is damage in one
    camera and habit in the next. A damaged picture is an ImageError, which begins with `problem`.
    """
    space = "GRAY" if color == "grey" else "BGR"
    try:
        found = simplejpeg.decode_jpeg(data, space, min_height=height, min_width=width)
    except ValueError as error:
        if damage := _damage_in(str(error), data):
            raise ImageError(f"{problem}: {damage}") from error
        return None
    return np.asarray(found[:, :, 0] if color == "grey" else found, np.uint8)


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
