"""PacketLog: when each frame of a video arrived, and which are lost."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from typing import NamedTuple

import av

from ..wall_clock import WallClock
from .codecs.bitstream import MISSING, PacketFacts

_NOBODY = -1  # goes back to what is damaged
_MOST_WAITING = 256  # packets; more than any decoder holds
_MOST_REORDERED = 17  # packets between one and its frame; no decoder keeps more than 16 frames
Order = tuple[int, float]


class Arrival(NamedTuple):
    """One packet of a video with the time at which it came, in Unix time and monotonic time.

    `number` is its position in decoding order and `order` its place in display order; `key` is the
    number of the packet at which decoding could start to get this one, None where none has come.
    """

    number: int
    key: int | None
    order: Order
    captured_ns: int
    grabbed_ns: int
    shown: bool = True  # False: needed for decoding only
    reference: bool = True  # others may be predicted from it


class PacketLog:
    """Remembers packets until their frames come out, which may be in another order.

    A codec that predicts frames from others carries damage on until decoding can start anew, which
    decoders do not report. Damage to a frame that is shown before the entry which it follows
    in the stream stays among those. What came before the first entry of all was never meant to be
    decoded: a recording that was cut there begins at the entry.
    """

    def __init__(self, *, intra_only: bool, timed: bool = True) -> None:
        self._intra_only = intra_only  # no frame of this codec is predicted from another
        self._waiting: dict[int, Arrival] = {}  # by number; a frame that comes takes its own
        self._gaps: list[tuple[Order, int, str, int]] = []
        self._key: int | None = None
        self._earlier_key: int | None = None
        self._wall = WallClock()
        self._key_order: Order = (0, 0.0)
        self._timed = timed  # packets say when they are to be shown
        self._dts: int | None = None
        self._part = 0  # how often time stamps began anew
        self._bad: dict[int, int | None] = {}  # by number, the key of what is not as recorded
        self._unlinked: set[int] = set()  # of these, those that are not damaged themselves
        self._given_up: set[int] = set()  # numbers of those whose frames did not come in time
        self._links: dict[int, int | None] = {}  # entries whose leading frames are, by number
        self.count = 0  # how many packets arrived
        # The least time stamp, the greatest, and where the last frame ends.
        self.first_pts = self.last_pts = self.end_pts = 0
        self.begin_pts: int | None = None  # the least of a frame that is meant to be shown

    def arrived(
        self, packet: av.Packet[av.VideoStream], grabbed_ns: int, facts: PacketFacts
    ) -> Arrival:
        """Note a packet that came at `grabbed_ns` on the monotonic clock, before its decoding."""
        captured_ns = self._wall.at(grabbed_ns)
        number, pts, order = self.count, packet.pts, self._order_of(packet)
        self.count += 1
        if self._intra_only or (facts.entry and not self._renewed_badly(number, facts.refreshed)):
            self._earlier_key, self._key, self._key_order = self._key, number, order
            self._forget()
            if facts.broken:
                self._links[number] = self._earlier_key
        leading = facts.leading
        if leading is None:
            leading = self._timed and self._key_order[0] == order[0] and order < self._key_order
        key = self._earlier_key if leading and not self._intra_only else self._key
        arrival = Arrival(
            number,
            key,
            order,
            captured_ns,
            grabbed_ns,
            shown=not packet.is_discard,
            reference=facts.reference,
        )
        if pts is not None and arrival.shown and key is not None:
            self.begin_pts = pts if self.begin_pts is None else min(self.begin_pts, pts)
        self._waiting[number] = arrival
        if len(self._waiting) > _MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        return arrival

    @property
    def has_key(self) -> bool:
        """Whether an entry came: from here on every frame can be decoded."""
        return self._key is not None or self._intra_only

    def flushed(self, grabbed_ns: int) -> Arrival:
        """Stand for the packet of a frame whose own is not known, once all have come."""
        order = (self._part, float(self.count))
        return Arrival(self.count, self._key, order, time.time_ns(), grabbed_ns)

    def take(self, arrival: Arrival) -> bool:
        """Note that a packet's frame came; False where it was given up, and its gap is out."""
        self._waiting.pop(arrival.number, None)
        return arrival.number not in self._given_up

    def as_shown(self, arrival: Arrival) -> Arrival:
        """Return a packet with the times of the first that came of those shown no earlier.

        A camera sends a frame that others are predicted from before those, and has seen it later:
        they are no younger than it. To be asked once `gaps_before` has forgotten what comes before.
        """
        oldest = next(iter(self._waiting.values()), None)
        if not self._timed or oldest is None or oldest.number > arrival.number:
            return arrival
        return arrival._replace(
            captured_ns=min(arrival.captured_ns, oldest.captured_ns),
            grabbed_ns=min(arrival.grabbed_ns, oldest.grabbed_ns),
        )

    def lose(self, arrival: Arrival, reason: str, *, missing: bool = False) -> None:
        """Note a gap, whose turn comes where the packet's frame would have been shown.

        The packet itself is damaged, or what it is predicted from is `missing`.
        """
        if not self.is_lost(arrival):
            key = arrival.key
            carried_on = key is None or missing or arrival.reference
            self._bad[arrival.number] = key if carried_on else _NOBODY
            if missing:
                self._unlinked.add(arrival.number)
            self._add_gap(arrival, reason)

    def is_lost(self, arrival: Arrival) -> bool:
        """Whether a packet's gap is noted."""
        return arrival.number in self._bad

    def gaps_before(self, arrival: Arrival | None) -> Iterator[tuple[str, int]]:
        """Forget packets shown before one, or all; give reason and Unix time of gaps up to there.

        An error can take a whole frame that waits in the decoder along. Where nothing is damaged
        nothing is missing: some packets are not meant to be shown.
        """
        damaged = any(key is not None for key in self._bad.values())
        for other in [other for other in self._waiting.values() if self._is_before(other, arrival)]:
            del self._waiting[other.number]
            if damaged and other.number not in self._bad:
                self._given_up.add(other.number)
                self._add_gap(other, "frame is missing after a damaged one")
        while self._gaps and (arrival is None or self._gaps[0][0] <= arrival.order):
            yield heapq.heappop(self._gaps)[2:]

    def overdue_gaps(self) -> Iterator[tuple[str, int]]:
        """Give the gaps that no frame can come before any more, also where no frame comes at all.

        A decoder that reorders holds frames for as many packets as their codec allows, at most.
        """
        held = (number for number in self._waiting if number not in self._bad)
        oldest = max(next(held, self.count), self.count - _MOST_REORDERED)
        while self._gaps and self._gaps[0][1] < oldest:
            _, number, reason, captured_ns = heapq.heappop(self._gaps)
            if self._waiting.pop(number, None) is not None:
                self._given_up.add(number)
            yield reason, captured_ns

    def spoiled(self, arrival: Arrival) -> bool:
        """Whether a packet from the entry that this one goes back to, up to it, is damaged."""
        key = arrival.key
        if key is None:
            return True
        bad = (number for number, its in self._bad.items() if its is not None and its >= key)
        return any(key <= number <= arrival.number for number in bad)

    def missing_link(self, arrival: Arrival) -> str | None:
        """Name what is wrong with a leading frame before whose entry something is missing."""
        links = (number for number, its in self._links.items() if its == arrival.key)
        return MISSING if any(number < arrival.number for number in links) else None

    def _is_before(self, other: Arrival, arrival: Arrival | None) -> bool:
        if arrival is None:
            return True
        if self._timed:
            return other.order < arrival.order
        return other.number + _MOST_REORDERED < arrival.number

    def _order_of(self, packet: av.Packet[av.VideoStream]) -> Order:
        """Say where a frame is shown: by its time stamp, else roughly, by when its packet came."""
        number, pts, dts = self.count, packet.pts, packet.dts
        duration = packet.duration or 0
        if number == 0:
            self._timed &= pts is not None
        if dts is not None:
            if self._dts is not None and dts < self._dts - 2 * duration:
                self._part += 1  # recordings that were put one behind the other
            self._dts = dts
        shown = dts if pts is None else pts
        if shown is not None:
            self.first_pts = shown if number == 0 else min(self.first_pts, shown)
            self.last_pts = max(self.last_pts, shown)
            self.end_pts = max(self.end_pts, shown + duration)
        return self._part, float(number if pts is None or not self._timed else pts)

    def _renewed_badly(self, number: int, packets: int) -> bool:
        """Whether one of the last packets is damaged, each of which renewed a part."""
        # Before the first of them, others may be missing.
        damaged = self._bad.keys() - self._unlinked
        return any(number - packets <= other < number for other in damaged)

    def _forget(self) -> None:
        """Forget damage that no frame goes back to any more."""
        keys = [self._earlier_key, *(other.key for other in self._waiting.values())]
        oldest = min((key for key in keys if key is not None), default=0)
        oldest = min([oldest, *(other.number for other in self._waiting.values())])
        self._bad = {other: key for other, key in self._bad.items() if other >= oldest}
        self._links = {other: key for other, key in self._links.items() if other >= oldest}
        self._unlinked &= self._bad.keys()
        self._given_up = {other for other in self._given_up if other >= oldest - _MOST_REORDERED}

    def _add_gap(self, arrival: Arrival, reason: str) -> None:
        if arrival.shown and arrival.key is not None:
            heapq.heappush(self._gaps, (arrival.order, arrival.number, reason, arrival.captured_ns))
