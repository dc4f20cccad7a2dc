"""The segments of a JPEG before its first scan; without OpenCV, as names are sorted before it."""

from __future__ import annotations

from collections.abc import Iterator

_MOST_MARKERS = 4096
JPEG_SCAN, JPEG_RESTART_INTERVAL = 0xDA, 0xDD
_END = 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}  # TEM, RST0 to RST7, SOI


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of the content of each segment of a JPEG, up to its first scan's.

    Ends early where the bytes are no JPEG, are cut short, or hold more markers than any camera
    writes (ITU-T T.81, annex B).
    """
    place = 2
    for _ in range(_MOST_MARKERS):
        if place + 4 > len(data) or data[place] != 0xFF:
            return
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
        elif marker in _WITHOUT_LENGTH:
            place += 2
        elif marker == _END:
            return
        else:
            end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
            yield marker, place + 4, min(end, len(data))
            if marker == JPEG_SCAN:
                return
            place = max(end, place + 4)
