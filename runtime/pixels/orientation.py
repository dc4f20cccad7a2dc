"""Which way up a picture is meant: orientation 1 to 8 as EXIF counts it, read and applied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from .jpeg_segments import jpeg_segments

Pixels = npt.NDArray[np.uint8]

UPRIGHT = 1
EXIF_START = b"Exif\0\0"
TiffValue = tuple[int, int]  # a number, and where it lies
_ORIENTATION = 0x0112
_WIDTHS = {1: 1, 3: 2, 4: 4}  # bytes of BYTE, SHORT and LONG
_MOST_ENTRIES, _MOST_DIRECTORIES = 1000, 1000
_APP1 = 0xE1


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Turn (H, W) or (H, W, C) uint8 as stored into what is meant, by an EXIF orientation.

    What is upright is returned as it is, not copied; so is what has a number that EXIF does not
    know (EXIF 2.32, table 6: 2 to 4 are mirrored, half a turn, both; 5 to 8 swap height and width).
    """
    if orientation == 2:
        found = cv2.flip(pixels, 1)
    elif orientation == 3:
        found = cv2.rotate(pixels, cv2.ROTATE_180)
    elif orientation == 4:
        found = cv2.flip(pixels, 0)
    elif orientation == 5:
        found = cv2.transpose(pixels)
    elif orientation == 6:
        found = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
    elif orientation == 7:
        found = cv2.flip(cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE), 0)
    elif orientation == 8:
        found = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
    else:
        return pixels
    return found.astype(np.uint8, copy=False)


def orientation_of_jpeg(data: bytes) -> int:
    """Return the orientation that a JPEG's EXIF segment names, 1 to 8; 1 where there is none.

    Reads the markers before the first scan, a bounded number of them, and never raises.
    """
    for marker, start, end in jpeg_segments(data):
        if marker == _APP1 and data[start : start + len(EXIF_START)] == EXIF_START:
            return orientation_of_exif(data[start:end])
    return UPRIGHT


def orientation_of_exif(data: bytes) -> int:
    """Return the orientation in the first directory of an EXIF block, with or without its prefix.

    It is 1 where there is none, or none from 1 to 8. Never raises.
    """
    if data[: len(EXIF_START)] == EXIF_START:
        data = data[len(EXIF_START) :]
    return orientation_in(next(tiff_directories(data), {}))


def orientation_in(directory: dict[int, TiffValue]) -> int:
    """Return the orientation, 1 to 8, that a directory of a TIFF or an EXIF block names, or 1."""
    found = directory.get(_ORIENTATION, (UPRIGHT, 0))[0]
    return found if 1 <= found <= 8 else UPRIGHT


def tiff_directories(data: bytes) -> Iterator[dict[int, TiffValue]]:
    """Yield the whole numbers in each directory of a TIFF, BigTIFF or EXIF block, by their tags.

    Of a tag with several numbers it is the first where all fit into the entry, as those of one
    do. A bounded number of directories and entries is read; a loop ends. Never raises.
    """
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    magic = data[2:4] if order == "big" else data[3:1:-1]
    if data[:2] not in {b"II", b"MM"} or magic not in {b"\0*", b"\0+"}:
        return

    def number(place: int, size: int) -> int:
        return int.from_bytes(data[place : place + size], order)

    head, counter, size, offset = (8, 8, 20, 8) if magic == b"\0+" else (4, 2, 12, 4)
    place, seen = number(head, offset), set[int]()
    while 0 < place < len(data) and place not in seen and len(seen) < _MOST_DIRECTORIES:
        seen.add(place)
        count, place = number(place, counter), place + counter
        values = {}
        for entry in range(place, min(place + size * min(count, _MOST_ENTRIES), len(data)), size):
            if width := _WIDTHS.get(number(entry + 2, 2)):
                at = entry + size - offset
                values[number(entry, 2)] = number(at, width), at
        yield values
        place = number(place + size * count, offset)
