"""PacketLog: when each frame of a video arrived, and which are lost; flaws that FFmpeg passes."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import NamedTuple

import av

from ...pixels.camera_formats import jpeg_scan
from ..wall_clock import WallClock

_MOST_HELD = 16  # frames that H.264 and H.265 may reorder
_MOST_WAITING = 256  # packets; more than any decoder holds
_SLICE, _IDR_SLICE, _SPS = 1, 5, 7
# Profiles whose sequence parameters hold chroma, depth and scaling (H.264, section 7.3.2.1.1).
_HIGH_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}
_HEADER_BYTES = 64  # of a slice, enough for its frame number
_SPS_BYTES = 4096  # more than all scaling lists and picture orders take
_MOST_NUMBER_BITS = 16
_MOST_SPS = 8  # in one packet: one is usual, and each takes time


class Arrival(NamedTuple):
    """One packet of a video with the time at which it came, in Unix time and monotonic time.

    `number` is its position in decoding order, `key` that of the key packet at which decoding could
    start to get this one, and `pts` when its frame is to be shown, in the stream's units.
    """

    number: int
    key: int
    pts: int | None
    captured_ns: int
    grabbed_ns: int


class PacketLog:
    """Remembers packets until their frames come out, which may be in another order.

    A codec that predicts frames from others carries damage on until the next key packet, which
    decoders do not report.
    """

    def __init__(self, *, intra_only: bool) -> None:
        self._intra_only = intra_only  # no frame of this codec is predicted from another
        self.waiting: dict[int | None, Arrival] = {}  # by time stamp; a frame that comes takes its
        self._gaps: list[tuple[float, int, str, int]] = []
        self._wall = WallClock()
        self._key = self._earlier_key = 0
        self._key_pts: int | None = None
        self.has_key = intra_only  # one came: from here on every frame can be decoded
        self.count = 0  # how many packets arrived
        self.first_pts = self.end_pts = 0  # the least time stamp, and where the last frame ends
        self.damaged: set[int] = set()  # numbers of packets whose frames are not as recorded
        self.missing: set[int] = set()  # time stamps of frames given up, should they come yet

    def arrived(self, packet: av.Packet[av.VideoStream], grabbed_ns: int) -> Arrival:
        """Note a packet that came at `grabbed_ns` on the monotonic clock, before its decoding."""
        captured_ns = self._wall.at(grabbed_ns)
        number, pts = self.count, packet.pts
        self.count += 1
        if packet.is_keyframe or self._intra_only:
            self._earlier_key, self._key, self._key_pts = self._key, number, pts
            self.has_key = True
            oldest = min([self._earlier_key, *(other.key for other in self.waiting.values())])
            self.damaged = {other for other in self.damaged if other >= oldest}
        # What is shown before the key frame it follows may be predicted from across it.
        leading = pts is not None and self._key_pts is not None and pts < self._key_pts
        key = self._earlier_key if leading else self._key
        if pts is not None:
            self.first_pts = pts if number == 0 else min(self.first_pts, pts)
            self.end_pts = max(self.end_pts, pts + (packet.duration or 0))
        self.waiting[pts] = Arrival(number, key, pts, captured_ns, grabbed_ns)
        if len(self.waiting) > _MOST_WAITING:
            del self.waiting[next(iter(self.waiting))]
        return self.waiting[pts]

    def lose(self, arrival: Arrival, reason: str) -> None:
        """Note a gap, whose turn comes where the packet's frame would have been shown."""
        self.damaged.add(arrival.number)
        self._add_gap(arrival, reason)

    def gaps_before(self, order: float) -> Iterator[tuple[str, int]]:
        """Forget packets shown before `order`; give reason and Unix time of each gap up to there.

        An error can take a whole frame that waits in the decoder along. Where nothing is damaged
        nothing is missing: some packets are not meant to be shown.
        """
        for pts in sorted(pts for pts in self.waiting if pts is not None and pts < order):
            arrival = self.waiting.pop(pts)
            if self.damaged and arrival.number not in self.damaged:
                self.missing.add(pts)
                self._add_gap(arrival, "frame is missing after a damaged one")
        while self._gaps and self._gaps[0][0] <= order:
            yield heapq.heappop(self._gaps)[2:]

    def overdue_gaps(self) -> Iterator[tuple[str, int]]:
        """Give the gaps that no frame can come before any more, also where no frame comes at all.

        A decoder that reorders holds frames for as many packets as their codec allows, at most.
        """
        held = (one.number for one in self.waiting.values() if one.number not in self.damaged)
        oldest = next(held, self.count)
        while self._gaps and self._gaps[0][1] < max(oldest, self.count - _MOST_HELD):
            order, _, reason, captured_ns = heapq.heappop(self._gaps)
            if self.waiting.pop(None if order == -math.inf else int(order), None) is not None:
                self.missing.add(int(order))
            yield reason, captured_ns

    def spoiled(self, arrival: Arrival) -> bool:
        """Whether a packet from the key packet that this one goes back to, up to it, is damaged."""
        return any(arrival.key <= number <= arrival.number for number in self.damaged)

    def _add_gap(self, arrival: Arrival, reason: str) -> None:
        order = -math.inf if arrival.pts is None else arrival.pts
        heapq.heappush(self._gaps, (order, arrival.number, reason, arrival.captured_ns))


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
        self._sps = b""
        if codec != "h264" or not extradata:
            return
        if extradata[0] == 1 and len(extradata) > 8:  # ISO 14496-15: units have their length first
            self._length_size = (extradata[4] & 3) + 1
            size = int.from_bytes(extradata[6:8], "big")
            self._read_sps(extradata[8 : 8 + size])
        else:
            self.flaw(extradata)  # reads the parameters in it

    def flaw(self, packet: bytes) -> str | None:
        """Name what is wrong with a packet, or return None."""
        if self._codec == "mjpeg":
            return None if jpeg_scan(packet) is not None else "frame holds no picture"
        if self._codec != "h264":
            return None
        parameters = 0
        for unit in _units(packet, self._length_size):
            kind = unit[0] & 31
            if kind == _SPS:
                parameters += 1
                if parameters > _MOST_SPS:
                    return "frame holds too many parameter sets"
                if unit != self._sps:  # cameras repeat it
                    self._sps = unit
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
        bits = _Bits(unit[1 : 1 + _SPS_BYTES])
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
        if not bits.take(1) and number_bits <= _MOST_NUMBER_BITS:  # no gaps are allowed
            self._number_bits = number_bits


class _Bits:
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


def _units(packet: bytes, length_size: int) -> Iterator[bytes]:
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
