"""Flaws in packets that FFmpeg's decoders pass over: JPEGs without picture, lost H.264 frames."""

from __future__ import annotations

from collections.abc import Iterator

from ...pixels.jpeg import jpeg_scan

_SLICE, _IDR_SLICE, _SPS = 1, 5, 7
# Profiles whose sequence parameters hold chroma, depth and scaling (H.264, section 7.3.2.1.1).
_HIGH_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}
_HEADER_BYTES = 64
"""Of a slice, enough for its frame number."""


class BitstreamValidator:
    """Looks at each packet of a video, in decoding order, before it is decoded.

    From a JPEG that lacks its scan FFmpeg makes a picture of what its memory last held, and where
    an H.264 frame is missing it predicts from a copy of another one; it reports neither.
    Of other codecs nothing is known. `extradata` is what the container holds about the codec.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._codec = codec
        self._length_size = 0
        self._number_bits: int | None = None
        self._last: int | None = None
        if codec != "h264" or not extradata:
            return
        if extradata[0] == 1 and len(extradata) > 8:  # ISO 14496-15: units have their length first
            self._length_size = (extradata[4] & 3) + 1
            size = int.from_bytes(extradata[6:8], "big")
            self._read_sps(extradata[8 : 8 + size])
        else:
            self.flaw(extradata)  # reads the parameters in it

    def flaw(self, packet: bytes) -> str | None:
        """Say what is wrong with a packet, or None."""
        if self._codec == "mjpeg":
            return None if jpeg_scan(packet) is not None else "frame holds no picture"
        if self._codec != "h264":
            return None
        for unit in _units(packet, self._length_size):
            kind = unit[0] & 31
            if kind == _SPS:
                self._read_sps(unit)
            elif kind in {_SLICE, _IDR_SLICE}:
                return self._missing_before(unit)
        return None

    def _missing_before(self, unit: bytes) -> str | None:
        """Compare a slice's frame number with the last one (H.264, section 7.4.3)."""
        if self._number_bits is None:
            return None
        bits = _Bits(unit[1 : 1 + _HEADER_BYTES])
        bits.skip_golombs(3)  # first macroblock, type, picture parameters
        number, last = bits.take(self._number_bits), self._last
        if unit[0] & 0x60:  # others may be predicted from it
            self._last = number
        if unit[0] & 31 == _IDR_SLICE or last is None:
            return None
        if number in {last, (last + 1) % (1 << self._number_bits)}:
            return None
        return "frame is predicted from one that did not come"

    def _read_sps(self, unit: bytes) -> None:
        """Learn how long frame numbers are, unless they may have gaps."""
        self._number_bits = None
        bits = _Bits(unit[1:])
        profile = bits.take(8)
        bits.take(16)  # constraints, level
        bits.golomb()
        if profile in _HIGH_PROFILES:
            chroma = bits.golomb()
            if chroma == 3 and bits.take(1):
                return  # colour planes of their own: never seen in a camera
            bits.skip_golombs(2)
            bits.take(1)
            if bits.take(1):
                for place in range(8 if chroma != 3 else 12):
                    if bits.take(1):
                        bits.skip_scaling(16 if place < 6 else 64)
        number_bits = bits.golomb() + 4
        order = bits.golomb()
        if order == 0:
            bits.golomb()
        elif order == 1:
            bits.take(1)
            bits.skip_golombs(2)
            bits.skip_golombs(min(255, bits.golomb()))  # more are not allowed
        bits.golomb()
        if not bits.take(1):  # no gaps are allowed
            self._number_bits = number_bits


class _Bits:
    """Reads a unit's bits; behind its end there are only ones, so that every number ends."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\0\0\3", b"\0\0")  # emulation prevention
        self._left = len(plain) * 8
        self._value = int.from_bytes(plain, "big")

    def take(self, count: int) -> int:
        """Return the next bits as a number."""
        value = 0
        for _ in range(count):
            self._left -= 1
            value = value << 1 | (self._value >> self._left & 1 if self._left >= 0 else 1)
        return value

    def golomb(self) -> int:
        """Return an exponential Golomb code as an unsigned number."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def skip_golombs(self, count: int) -> None:
        for _ in range(count):
            self.golomb()

    def skip_scaling(self, size: int) -> None:
        """Skip a scaling list (H.264, section 7.3.2.1.1.1)."""
        last = following = 8
        for _ in range(size):
            if following:
                code = self.golomb()
                following = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
            last = following or last


def _units(packet: bytes, length_size: int) -> Iterator[bytes]:
    """Yield the units of a packet, which lie behind their lengths or behind start codes."""
    start = 0
    while length_size and start + length_size < len(packet):
        size = int.from_bytes(packet[start : start + length_size], "big")
        start += length_size
        if size:
            yield packet[start : start + size]
        start += size
    if not length_size:
        for unit in packet.split(b"\0\0\1")[1:]:
            if unit:
                yield unit
