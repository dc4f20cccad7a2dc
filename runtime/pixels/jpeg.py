"""luma_from_jpeg: a JPEG's bytes to fitted luma, decoded in grey and no larger than need be."""

from __future__ import annotations

import simplejpeg

from ..core.errors import ImageError
from ..core.spec import ModelSpec
from .convert import fitted_luma
from .resize import Luma
from .yuv import luma_from_doubtful_jpeg

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA
BLOCKS_PER_PIXEL = {8: 4, 4: 3, 2: 2}
"""Decoding at 1/n averages blocks of n by n pixels, which may lie across the edges of the pixels
averaged next: along one of those there must be so many blocks (measured, see docs/luma.md)."""
_DAMAGE = ("premature end of data", "bad Huffman code", "instead of RST")
"""Words of libjpeg-turbo for damage; its other warnings may be about an encoder's habit."""
_LIMITED_RANGE = b"CS=ITU601"
"""A comment with which FFmpeg marks JPEGs of levels 16 to 235."""
_NO_CODE = b"\xff\x00" * 5
"""40 bits of ones: no code is all ones (ITU-T T.81, annex C), and libjpeg-turbo takes one for 0."""


def luma_from_jpeg(data: bytes, spec: ModelSpec) -> Luma:
    """Turn a JPEG into fitted luma, (S, S) uint8, by FFmpeg where the quick decoder is in doubt.

    Raises:
        ImageError: The picture is damaged.
    """
    grey = grey_from_jpeg(data, spec)
    return luma_from_doubtful_jpeg(data, spec) if grey is None else fitted_luma(grey, spec)


def grey_from_jpeg(
    data: bytes, spec: ModelSpec, shape: tuple[int, int] | None = None
) -> Luma | None:
    """Decode a JPEG's luma at the smallest scale that keeps the model's input exact.

    Where it has no Huffman tables, as in AVI files, the standard ones are meant.

    Returns:
        (H / n, W / n) uint8, such that cropping or padding it cuts no pixel in parts; None where
        this is better left to FFmpeg: another height and width than `shape`, rare kinds of JPEG, or
        a flaw that is damage in one camera and habit in the next.

    Raises:
        ImageError: The picture is damaged.
    """
    scan = jpeg_scan(data)
    if scan is None or _LIMITED_RANGE in data[:scan] or _NO_CODE in data:
        return None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if shape not in {None, (height, width)}:
            return None
        divisor = _divisor(height, width, spec)
        grey: Luma = simplejpeg.decode_jpeg(
            data, "GRAY", min_height=height // divisor, min_width=width // divisor
        )
    except ValueError as error:
        problem = str(error)
        if any(damage in problem for damage in _DAMAGE):
            raise ImageError(f"frame does not decode: {problem}") from error
        return None
    return grey[:, :, 0]


def jpeg_scan(data: bytes) -> int | None:
    """Return where the first scan of a JPEG starts, or None where there is none."""
    start = len(JPEG_START)
    while start + 4 <= len(data) and data[start] == JPEG_END[0]:
        if data[start + 1] == _SCAN:
            return start
        if data[start + 1] == JPEG_END[0]:  # fill byte
            start += 1
        else:
            start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return None


def _divisor(height: int, width: int, spec: ModelSpec) -> int:
    """Return by how much a picture may be decoded smaller, such that blocks end where it does."""
    side = max(height, width) if spec.fit == "pad" else min(height, width)
    offset = 0 if spec.fit == "stretch" else abs(height - width) // 2
    for divisor, blocks in BLOCKS_PER_PIXEL.items():
        whole = not any(length % divisor for length in (height, width, offset))
        if whole and side >= divisor * blocks * spec.image_size:
            return divisor
    return 1
