"""A JPEG's pixels by libjpeg-turbo, whose warnings tell damage from the habits of encoders."""

from __future__ import annotations

import contextlib
import math
import re
from concurrent.futures import wait
from typing import NamedTuple

import numpy as np
import simplejpeg

from ..core.errors import ImageError
from ..core.spec import Color
from ..core.system.other_core import other_core
from .jpeg_segments import JPEG_RESTART_INTERVAL, JPEG_SCAN, jpeg_segments
from .orientation import Pixels

_DAMAGE = ("premature end of data", "bad Huffman code", "instead of RST")
"""Words of libjpeg-turbo for damage; its other warnings may be about an encoder's habit."""
_LEFT_OVER = re.compile(r"(\d{1,9}) extraneous bytes before marker 0x([0-9a-f]{2})")
"""The picture is complete, and its scan goes on: padding, or the rest of another picture."""
_END, _END_MARKER = b"\xff\xd9", "d9"
_COMMENT = b"\xff\xfe\x00\x02"
"""An empty one. libjpeg's decoder of codes often meets a marker before its reader of markers looks
for it: what was too much before it is then told at the next marker that the reader does find."""
_NOT_FRAMES = {0xC4, 0xC8, 0xCC}
_ONE_SCAN = {0xC0, 0xC1}
_MOST_SCANS = 256
_MOST_LEFT_OVER = 3
_MOST_LETTERS = 2  # different bytes of a padding
_RESTART, _RESTARTS = 0xD0, 8  # RST0, and how many there are before they begin anew
_LEAST_HALF = 0.3
"""Of the bytes: where one half has less, it is not worth waking a thread for it."""
_LEAST_BYTES = 100_000
"""Of a picture that is decoded in halves, which is 0.5 ms for each half here."""
_LONG_S = 0.5  # for half a picture


class JpegHeader(NamedTuple):
    """What a JPEG says of itself before its first scan (ITU-T T.81, B.2.2)."""

    scan: int  # where that starts
    kind: int  # the marker of its frame
    bits: int  # a sample
    height: int
    width: int
    samples: tuple[tuple[int, int], ...]  # across and down, of each component in a block
    components_in_scan: int
    frame: int  # where the content of its frame starts
    restart_interval: int  # blocks of all components together between two markers; 0 without those

    @property
    def is_one_scan(self) -> bool:
        """Whether it is sequential, by Huffman codes, and all components are in one scan."""
        return self.kind in _ONE_SCAN and self.components_in_scan == len(self.samples)

    @property
    def block(self) -> tuple[int, int]:
        """Height and width of what is coded together; of one component that is 8 x 8 (A.2.2)."""
        if len(self.samples) == 1:
            return 8, 8
        return (
            8 * max((down for _, down in self.samples), default=1),
            8 * max((across for across, _ in self.samples), default=1),
        )

    @property
    def bytes_per_pixel(self) -> float:
        """What decoding its luma takes: coefficients of all of it where there are more scans."""
        if self.is_one_scan:
            return 1.0
        largest = max((max(across, 1) * max(down, 1) for across, down in self.samples), default=1)
        return 1 + 2 * sum(across * down for across, down in self.samples) / largest

    def check_scans(self, data: bytes) -> None:
        """ImageError where a JPEG has so many that decoding takes a time without relation."""
        if self.bytes_per_pixel > 1 and data.count(b"\xff\xda") > _MOST_SCANS:
            raise ImageError(f"it is a JPEG of more than {_MOST_SCANS} scans")


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Return what comes before the first scan of a JPEG; None where that or its frame is not."""
    kind, frame, place, interval = 0, b"", 0, 0
    for marker, start, end in jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
            kind, frame, place = marker, data[start:end], start
        elif marker == JPEG_RESTART_INTERVAL:
            interval = int.from_bytes(data[start:end][:2], "big")
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
                frame=place,
                restart_interval=interval,
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


def grey_in_halves(data: bytes, header: JpegHeader, divisor: int) -> Pixels | None:
    """Decode a large JPEG with restart markers to luma at 1 / n, on two cores at once.

    It is the same (H / n, W / n) uint8 as of `pixels_of_jpeg`. None where there is nothing to cut
    it at, or libjpeg-turbo warns of anything: whoever decodes it whole finds out what that is. A
    divisor that does not divide height and width gives None, too.
    """
    height, width = header.height, header.width
    beside = None if len(data) < _LEAST_BYTES else other_core()
    if beside is None or height % divisor or width % divisor or _may_blend_rows(data, header):
        return None
    halves = _halves(data, header)
    if halves is None:
        return None
    first, second, upper, both = halves
    pixels = np.empty((height // divisor, width // divisor, 1), np.uint8)

    def decode(half: bytes, into: Pixels) -> tuple[int, ...]:
        rows, columns, _ = into.shape
        found = simplejpeg.decode_jpeg(
            half, "GRAY", min_height=rows, min_width=columns, buffer=into
        )
        return (*found.shape,)

    # Rows that are in both are written twice: the same, unless either complains.
    parts = pixels[: (upper + both) // divisor], pixels[upper // divisor :]
    other = beside.submit(decode, second, parts[1])
    if other is None:
        return None
    own: tuple[int, ...] = ()
    try:
        with contextlib.suppress(ValueError, MemoryError):
            own = decode(first, parts[0])
    finally:  # it writes into memory that is handed out, or let go
        if not wait([other], _LONG_S).done:
            beside.calm()
            wait([other])
    try:
        shapes = own, other.result()
    except (ValueError, MemoryError):
        return None
    return pixels[:, :, 0] if shapes == tuple(part.shape for part in parts) else None


def _may_blend_rows(data: bytes, header: JpegHeader) -> bool:
    """Whether luma may be computed of rows above and below: of planes that are less tall, of RGB.

    libjpeg takes luma as it is from YCbCr, and computes it from RGB, for which it enlarges such
    planes. It takes a picture for RGB by an Adobe segment or its components' names
    (`default_decompress_parms` of its jdapimin.c).
    """
    if len({down for _, down in header.samples}) < 2:
        return False
    names = data[header.frame + 6 : header.frame + 6 + 3 * len(header.samples) : 3]
    return names == b"RGB" or b"Adobe" in data[: header.scan]


def _halves(data: bytes, header: JpegHeader) -> tuple[bytes, bytes, int, int] | None:
    """Cut a JPEG into two of their own; return them, the rows above the cut, and those in both.

    That is at the restart marker nearest to the middle that ends a row of blocks, as what follows
    on one is predicted from nothing before (ITU-T T.81, E.1.4). The second begins behind it, with
    the markers numbered anew, from RST0. The first goes on up to the next such marker: libjpeg
    looks for bytes too many before a restart marker, and not before an end, so that each marker is
    to be within one of both. Of those that it has not told of, it tells at the end of the first.
    None where there is no such place, or markers are missing or out of order.
    """
    tall, wide = header.block
    interval = header.restart_interval
    if not (header.is_one_scan and interval and tall and wide and header.width):
        return None
    across, down = -(-header.width // wide), -(-header.height // tall)
    start = header.scan + 2 + int.from_bytes(data[header.scan + 2 : header.scan + 4], "big")
    codes = np.frombuffer(data, np.uint8, offset=min(start, len(data)))
    count = -(-across * down // interval) - 1  # others may lie behind the picture
    marks = np.flatnonzero(codes[:-1] == 0xFF)
    marks = marks[codes[marks + 1] & ~np.uint8(_RESTARTS - 1) == _RESTART][:count]
    numbers = _RESTART + np.arange(count, dtype=np.uint8) % _RESTARTS
    if len(marks) < count or np.any(codes[marks + 1] != numbers):
        return None
    step = across // math.gcd(interval, across)
    ends = marks[step - 1 :: step]
    if len(ends) < 2:
        return None
    nearest = int(np.abs(ends[:-1] + ends[1:] - marks[-1]).argmin())
    end, last, before = int(ends[nearest]), int(ends[nearest + 1]), (nearest + 1) * step
    both = step * interval // across * tall
    upper = (nearest + 1) * both
    if end / len(codes) < _LEAST_HALF or last / len(codes) > 1 - _LEAST_HALF:
        return None
    rest = codes[end + 2 :].copy()
    rest[marks[before:] - end - 1] = numbers[: count - before]
    tail = _COMMENT + _END
    return (
        _of_height(data, header, start, upper + both) + data[start : start + last] + tail,
        _of_height(data, header, start, header.height - upper) + rest.tobytes(),
        upper,
        both,
    )


def _of_height(data: bytes, header: JpegHeader, end: int, height: int) -> bytes:
    """Return a JPEG up to where its codes start, with another height (ITU-T T.81, B.2.2)."""
    return data[: header.frame + 1] + height.to_bytes(2, "big") + data[header.frame + 3 : end]


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
