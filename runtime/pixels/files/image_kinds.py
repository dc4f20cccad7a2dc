"""What a file is by its first bytes, whatever it is called; and what pictures tend to be called."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Literal

from ..jpeg_segments import JPEG_SCAN, jpeg_segments

ImageKind = Literal["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PNM", "JPEG2000", "AVIF", "HEIF"]
COMMON_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".avif")
IMAGE_SUFFIXES = frozenset(
    (
        *COMMON_SUFFIXES,
        *(".jpe", ".jfif", ".jif", ".mpo", ".apng", ".dib", ".gif", ".heif", ".hif", ".heics"),
        *(".heifs", ".avifs", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpc"),
        *(".jpf", ".jpx"),
    )
)
"""A file of another name is a picture too if its bytes are one's."""
PNG_START, JPEG_START, JPEG_END = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd9"
_STARTS: dict[bytes, ImageKind] = {
    PNG_START: "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
_JPEG_LS = 0xF7
_APP2 = 0xE2
_PNM = re.compile(rb"P[1-6](?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])+[0-9]")
KIND_BYTES = 64
"""As many from the start say what kind a picture is of."""
_FILM_HEAD = 1 << 26


def kind_of_bytes(data: bytes) -> ImageKind | None:
    """Return what kind of picture some bytes begin; None where they begin none."""
    for start, kind in _STARTS.items():
        if data.startswith(start):
            return kind
    if data.startswith(JPEG_START):
        return None if data[3:4] == bytes([_JPEG_LS]) else "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _kind_of_brands(data)
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return "PNM" if _PNM.match(data[:KIND_BYTES]) else None


def kind_of_file(path: Path) -> ImageKind | None:
    """Return what kind of picture a regular file holds; None for all else, films among it.

    A file of one JPEG behind another is a film, unless its first says that it is a photograph with
    others beside it (CIPA DC-007). OSError where it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123  # a pipe would hold Path.open up
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return None
        head = file.read(KIND_BYTES)
        kind = kind_of_bytes(head)
        if kind == "JPEG" and is_film(head + file.read(min(facts.st_size, _FILM_HEAD))):
            return None
    return kind


def counts_others(data: bytes) -> bool:
    """Whether a JPEG that begins so is a photograph with others beside it, such as a gain map."""
    segments = jpeg_segments(data)
    return any(m == _APP2 and data[start:end].startswith(b"MPF\0") for m, start, end in segments)


def is_film(data: bytes) -> bool:
    """Whether three JPEGs at least lie one behind the other, and the first counts none of them."""
    start = next((at for marker, at, _ in jpeg_segments(data) if marker == JPEG_SCAN), -1)
    if start < 0 or counts_others(data):
        return False
    for _ in range(2):
        start = data.find(JPEG_END, start)
        if start < 0 or data[start + 2 : start + 5] != JPEG_START:
            return False
        start += 2
    return True


def _kind_of_brands(data: bytes) -> ImageKind | None:
    """Go by the major brand of an ISO base media file, and where that is general by the others."""
    size = min(int.from_bytes(data[:4], "big"), KIND_BYTES)
    major, *others = (data[place : place + 4] for place in (8, *range(16, size, 4)))
    is_general = major in {b"mif1", b"msf1", b"mif2"}
    if major in _AVIF_BRANDS or (is_general and not _AVIF_BRANDS.isdisjoint(others)):
        return "AVIF"
    return "HEIF" if is_general or major in _HEIF_BRANDS else None
