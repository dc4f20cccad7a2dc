"""Bits: numbers in the headers of codecs; units, what a packet of H.264 or HEVC is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SPOILT = re.compile(rb"\0\0[\0-\2]")


class Bits:
    """Reads a unit's bits; behind its end there are only ones, so that every number ends."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\0\0\3", b"\0\0")  # emulation prevention
        self._digits = f"{int.from_bytes(plain, 'big'):0{8 * len(plain)}b}" if plain else ""
        self._place = 0

    def take(self, count: int) -> int:
        """Return the next bits as a number."""
        digits = self._digits[self._place : self._place + count]
        self._place += count
        return int(f"0{digits.ljust(count, '1')}", 2)

    def golomb(self) -> int:
        """Return an exponential Golomb code as an unsigned number."""
        one = self._digits.find("1", self._place)
        zeros = max(0, len(self._digits) - self._place) if one < 0 else one - self._place
        self._place += zeros + 1
        return (1 << zeros) - 1 + self.take(zeros)

    def skip_golombs(self, count: int) -> None:
        """Skip so many exponential Golomb codes."""
        for _ in range(count):
            self.golomb()

    def skip_scaling(self, size: int) -> None:
        """Skip a scaling list (H.264, section 7.3.2.1.1.1)."""
        scale = 8
        for _ in range(size):
            code = self.golomb()
            scale = (scale + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
            if scale == 0:
                return  # the rest is as the one before


def units(packet: bytes, length_size: int) -> Iterator[bytes]:
    """Yield the units of a packet, which lie behind their lengths or behind start codes."""
    if not length_size:
        yield from filter(None, packet.split(b"\0\0\1")[1:])
        return
    start = 0
    while start + length_size < len(packet):
        size = int.from_bytes(packet[start : start + length_size], "big")
        start += length_size
        if size:
            yield packet[start : start + size]
        start += size


def is_spoilt(unit: bytes) -> bool:
    """Whether a unit holds bytes that none may hold (H.264, section 7.4.1.1): start codes."""
    return _SPOILT.search(unit.rstrip(b"\0")) is not None  # some writers fill up
