"""PacketLog: when each frame of a video arrived, and which frames are lost to damage."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import av


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
        self._waiting: dict[int | None, Arrival] = {}
        self._gaps: list[tuple[float, int, str, int]] = []
        self._key = self._earlier_key = self._captured_ns = 0
        self._key_pts: int | None = None
        self.count = 0  # how many packets arrived
        self.first_pts = self.end_pts = 0  # the least time stamp, and where the last frame ends
        self.damaged: set[int] = set()  # numbers of packets whose frames are not as recorded
        self.missing: set[int] = set()  # time stamps of frames given up, should they come yet

    def arrived(self, packet: av.Packet[av.VideoStream], grabbed_ns: int) -> Arrival:
        """Note a packet that came at `grabbed_ns` on the monotonic clock, before its decoding."""
        captured_ns = time.time_ns() - (time.monotonic_ns() - grabbed_ns)
        # The two clocks are not read at the same moment, and frames may have come at the same.
        captured_ns = self._captured_ns = max(captured_ns, self._captured_ns)
        number, pts = self.count, packet.pts
        self.count += 1
        if packet.is_keyframe or self._intra_only:
            self._earlier_key, self._key, self._key_pts = self._key, number, pts
            oldest = min([self._earlier_key, *(other.key for other in self._waiting.values())])
            self.damaged = {other for other in self.damaged if other >= oldest}
        # What is shown before the key frame it follows may be predicted from across it.
        leading = pts is not None and self._key_pts is not None and pts < self._key_pts
        key = self._earlier_key if leading else self._key
        if pts is not None:
            self.first_pts = pts if number == 0 else min(self.first_pts, pts)
            self.end_pts = max(self.end_pts, pts + (packet.duration or 0))
        self._waiting[pts] = Arrival(number, key, pts, captured_ns, grabbed_ns)
        return self._waiting[pts]

    def lose(self, arrival: Arrival, reason: str) -> None:
        """Note a gap, whose turn comes where the packet's frame would have been shown."""
        self.damaged.add(arrival.number)
        self._add_gap(arrival, reason)

    def origin(self, pts: int | None) -> Arrival | None:
        """Return the packet that the frame of a time stamp came in, once; None if not known."""
        return self._waiting.pop(pts, None)

    def gaps_before(self, order: float) -> Iterator[tuple[str, int]]:
        """Forget packets shown before `order`; give reason and Unix time of each gap up to there.

        An error can take a whole frame that waits in the decoder along. Where nothing is damaged
        nothing is missing: some packets are not meant to be shown.
        """
        for pts in sorted(pts for pts in self._waiting if pts is not None and pts < order):
            arrival = self._waiting.pop(pts)
            if self.damaged and arrival.number not in self.damaged:
                self.missing.add(pts)
                self._add_gap(arrival, "frame is missing after a damaged one")
        while self._gaps and self._gaps[0][0] <= order:
            yield heapq.heappop(self._gaps)[2:]

    def spoiled(self, arrival: Arrival) -> bool:
        """Whether a packet from the key packet that this one goes back to, up to it, is damaged."""
        return any(arrival.key <= number <= arrival.number for number in self.damaged)

    def _add_gap(self, arrival: Arrival, reason: str) -> None:
        order = -math.inf if arrival.pts is None else arrival.pts
        heapq.heappush(self._gaps, (order, arrival.number, reason, arrival.captured_ns))
