"""PacketLog: when each frame of a video arrived, and which are predicted from a damaged one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import av


@dataclass(frozen=True, slots=True)
class Arrival:
    """One packet of a video with the time at which it came.

    Attributes:
        number: Position in decoding order.
        key: The `number` of the key packet at which decoding could start to get this one.
        captured_ns: Unix time in nanoseconds.
        grabbed_ns: The same moment on the monotonic clock.
    """

    number: int
    key: int
    captured_ns: int
    grabbed_ns: int


class Shown(Protocol):
    """A frame that came out of a decoder."""

    @property
    def pts(self) -> int | None:
        """When it is to be shown, in the stream's units."""


class PacketLog:
    """Remembers packets until their frames come out, which may be in another order.

    A codec that predicts frames from others carries damage on until the next key packet, and
    decoders do not say so.

    Args:
        intra_only: No frame of this codec is predicted from another.
    """

    def __init__(self, *, intra_only: bool) -> None:
        self._intra_only = intra_only
        self._waiting: dict[int | None, Arrival] = {}
        self._damaged: list[int] = []
        self._missing: set[int] = set()
        self._count = self._key = self._earlier_key = self._captured_ns = 0
        self._key_pts: int | None = None
        self.first_pts = self.end_pts = 0

    @property
    def count(self) -> int:
        """How many packets arrived."""
        return self._count

    def arrived(self, packet: av.Packet[av.VideoStream], grabbed_ns: int) -> Arrival:
        """Note a packet before it is decoded.

        Args:
            packet: What is to be decoded.
            grabbed_ns: When it came, on the monotonic clock.
        """
        captured_ns = time.time_ns() - (time.monotonic_ns() - grabbed_ns)
        # The two clocks are not read at the same moment, and frames may have come at the same.
        captured_ns = self._captured_ns = max(captured_ns, self._captured_ns)
        number, pts = self._count, packet.pts
        self._count += 1
        if packet.is_keyframe or self._intra_only:
            self._earlier_key, self._key, self._key_pts = self._key, number, pts
            oldest = min([self._earlier_key, *(other.key for other in self._waiting.values())])
            self._damaged = [other for other in self._damaged if other >= oldest]
        # What is shown before the key frame it follows may be predicted from across it.
        leading = pts is not None and self._key_pts is not None and pts < self._key_pts
        key = self._earlier_key if leading else self._key
        if pts is not None:
            self.first_pts = pts if number == 0 else min(self.first_pts, pts)
            self.end_pts = max(self.end_pts, pts + (packet.duration or 0))
        self._waiting[pts] = Arrival(number, key, captured_ns, grabbed_ns)
        return self._waiting[pts]

    def damaged(self, arrival: Arrival) -> bool:
        """Note that the frame of this packet is not what was recorded; False where it was noted."""
        if arrival.number in self._damaged:
            return False
        self._damaged.append(arrival.number)
        return True

    def is_damaged(self, arrival: Arrival) -> bool:
        """Whether this very packet is noted as damaged."""
        return arrival.number in self._damaged

    def origin(self, frame: Shown) -> Arrival | None:
        """Return the packet that a frame came in, once; None where that cannot be told."""
        return self._waiting.pop(frame.pts, None)

    def overtaken(self, order: float) -> list[tuple[int, Arrival]]:
        """Forget packets shown before `order` whose frames did not come; return those missing.

        Where nothing is damaged nothing is missing: some packets are not meant to be shown. An
        error can take a whole frame that waits in the decoder along.

        Args:
            order: Time stamp of the frame that came out, in the stream's units.
        """
        passed = [pts for pts in self._waiting if pts is not None and pts < order]
        arrivals = [(pts, self._waiting.pop(pts)) for pts in sorted(passed)]
        missing = [
            (pts, arrival)
            for pts, arrival in arrivals
            if self._damaged and not self.is_damaged(arrival)
        ]
        self._missing.update(pts for pts, _ in missing)
        return missing

    def is_missing(self, frame: Shown) -> bool:
        """Whether a frame that comes out after all was given up, out of order as it is."""
        return frame.pts in self._missing

    def spoiled(self, arrival: Arrival) -> bool:
        """Whether a packet from the key packet that this one goes back to, up to it, is damaged."""
        return any(arrival.key <= number <= arrival.number for number in self._damaged)
