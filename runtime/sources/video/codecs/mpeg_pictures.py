"""Pictures of MPEG-1, MPEG-2 and MPEG-4 Part 2: their kinds, and gaps in how they are counted."""

from __future__ import annotations

from typing import NamedTuple

from .bits import Bits

_PICTURE, _GROUP, _SEQUENCE, _VOP = b"\0\0\1\0", b"\0\0\1\xb8", b"\0\0\1\xb3", b"\0\0\1\xb6"
_LAYER = b"\0\0\1\x20"
_VOP_BYTES, _LAYER_BYTES = 16, 32  # enough for the time, and for its resolution
_MOST_SECONDS = 60  # between pictures
_OWN_ASPECT, _GREY_SHAPE = 15, 3
_INTRA, _PREDICTED, _BIDIRECTIONAL = 1, 2, 3
_RATES = {1: 24, 2: 24, 3: 25, 4: 30, 5: 30, 6: 50, 7: 60, 8: 60}
_TURNS = 1024  # temporal references begin anew
_USUAL_RUN = 2  # of bidirectional pictures between two others
_SEEN_ENOUGH = 8  # pictures after which a stream without bidirectional ones has none
_LONGEST_HOLE = 300  # pictures; a longer one is a time code that was set, not counted


class Picture(NamedTuple):
    """One coded picture."""

    intra: bool  # predicted from no other
    leading: bool  # shown before the intra picture it follows, and perhaps predicted from before it
    reference: bool  # others may be predicted from it
    gap: bool  # before it, one is missing that it, or what leads it, is predicted from


class Mpeg2Pictures:
    """Follows temporal references, by which pictures are counted within their group (H.262, 6.3.9).

    Groups are counted by their time code, where the encoder does count (6.3.8).
    """

    def __init__(self) -> None:
        self._rate = 25
        self._seen, self._bidirectional = 0, False
        self._newest: int | None = None  # the last picture in this group that others refer to
        self._older: int | None = None  # the one before
        self._key = 0  # the last intra picture
        self._total = 0  # pictures in this group so far, in display order
        self._closed = False
        self._begun: int | None = None  # by time code
        self._counted = False

    def look(self, packet: bytes) -> Picture | None:
        """Return what a packet's first picture is, or None where it has none."""
        place = packet.find(_PICTURE)
        if place < 0 or len(packet) < place + 6:
            return None
        code = int.from_bytes(packet[place + 4 : place + 6], "big")
        reference, kind = code >> 6, code >> 3 & 7
        gap = self._group(packet[:place])
        self._seen += 1
        newest = self._newest
        if kind == _BIDIRECTIONAL:
            self._bidirectional = True
            older = -1 if self._older is None else self._older
            gap = newest is not None and not older < reference < newest
            leading = reference < self._key and self._key == newest and not self._closed
        else:
            leading = False
            ahead = 0 if newest is None else (reference - newest) % _TURNS
            if ahead:  # else it is the second field
                alone = self._seen > _SEEN_ENOUGH and not self._bidirectional
                gap |= ahead - 1 > (0 if alone else _USUAL_RUN)
            if ahead or newest is None:
                self._older, self._newest = newest, reference
            self._key = reference if kind == _INTRA else -1
        self._total = max(self._total, reference + 1)
        return Picture(kind == _INTRA, leading, kind != _BIDIRECTIONAL, gap)

    def _group(self, header: bytes) -> bool:
        """Read the headers before a picture; whether the group before was not whole."""
        place = header.find(_SEQUENCE)
        if place >= 0 and len(header) > place + 7:
            self._rate = _RATES.get(header[place + 7] & 15, 25)
        place = header.find(_GROUP)
        if place < 0 or len(header) < place + 8:
            return False
        code = int.from_bytes(header[place + 4 : place + 8], "big") >> 5
        hours, minutes, seconds, pictures = (
            code >> 21 & 31,
            code >> 15 & 63,
            code >> 8 & 63,
            code >> 2 & 63,
        )
        begun = ((hours * 60 + minutes) * 60 + seconds) * self._rate + pictures
        hole = 0 if self._begun is None else begun - self._begun - self._total
        dropping = code >> 26 & 1  # numbers are left out, of a rate that is none
        gap = not dropping and (hole != 0 if self._counted else 0 < hole < _LONGEST_HOLE)
        if self._begun is not None and begun != self._begun:
            self._counted |= hole == 0
        self._closed, self._begun = bool(code >> 1 & 1), begun
        self._newest, self._older, self._key, self._total = None, None, -1, 0
        return (gap or bool(code & 1)) and not self._closed


class Mpeg4Pictures:
    """Tells pictures by their kind, and recordings that were joined by their times.

    A picture's time is in its header (ISO 14496-2, 6.3.5). Where an intra picture's does not follow
    those before, what leads it is predicted from pictures that were cut off. A single missing
    picture does not show: times may have holes.
    """

    def __init__(self) -> None:
        self._after_key = False
        self._resolution: int | None = None  # of times, in a second; None: not understood
        self._base = self._base_before = 0  # seconds
        self._past: int | None = None  # the times of the last two pictures that others refer to
        self._newest: int | None = None
        self._longest = 0  # from one of them to the next
        self._uncounted = False  # the last group's time code did not count on

    def look(self, packet: bytes) -> Picture | None:
        """Return what a packet's first picture is, or None where it has none."""
        place = packet.find(_VOP)
        self._read_headers(packet if place < 0 else packet[:place])
        if place < 0 or len(packet) < place + 5:
            return None
        bits = Bits(packet[place + 4 : place + 4 + _VOP_BYTES])
        kind = bits.take(2) + 1  # in the same order, but counted from 0
        bidirectional = kind == _BIDIRECTIONAL
        leading = bidirectional and self._after_key
        time = self._time_of(bits, bidirectional=bidirectional)
        gap = False
        if not bidirectional:
            self._after_key = kind == _INTRA
            gap = time is not None and self._refer_to(time, intra=kind == _INTRA)
        elif leading and time is not None and self._past is not None and self._newest is not None:
            gap = not self._past < time < self._newest
        # A damaged picture may only look like one that no other is predicted from.
        return Picture(kind == _INTRA, leading, reference=True, gap=gap)

    def _read_headers(self, header: bytes) -> None:
        """Learn the resolution of times, and the time code of a group."""
        place = header.find(_LAYER)
        if place >= 0:
            self._resolution = _mpeg4_resolution(header[place + 4 : place + 4 + _LAYER_BYTES])
        place = header.find(_SEQUENCE)  # here, a group
        if place >= 0 and len(header) > place + 6:
            code = int.from_bytes(header[place + 4 : place + 7], "big")
            hours, minutes, seconds = code >> 19, code >> 13 & 63, code >> 6 & 63
            self._base = (hours * 60 + minutes) * 60 + seconds

    def _time_of(self, bits: Bits, *, bidirectional: bool) -> int | None:
        """Return the time in a picture's header, in ticks."""
        if not self._resolution:
            return None
        seconds = 0
        while seconds < _MOST_SECONDS and bits.take(1):
            seconds += 1
        bits.take(1)
        if not bidirectional:
            self._base_before, self._base = self._base, self._base + seconds
        base = self._base_before + seconds
        return base * self._resolution + bits.take(max(1, (self._resolution - 1).bit_length()))

    def _refer_to(self, time: int, *, intra: bool) -> bool:
        """Note a picture that others refer to; whether it is an intra one that does not follow."""
        newest, gap = self._newest, False
        if newest is not None and self._resolution:
            ahead = time - newest
            wrong = not self._follows(ahead)
            if intra and wrong and self._uncounted:  # time codes of this encoder are no times
                ahead %= self._resolution
            gap = intra and not self._follows(ahead)
            if intra:
                self._uncounted = wrong
            if ahead > 0 and not gap:
                self._longest = max(self._longest, min(ahead, self._resolution))
        self._past, self._newest = newest, time
        return gap

    def _follows(self, ahead: int) -> bool:
        return 0 < ahead <= (2 * self._longest or ahead)


def _mpeg4_resolution(header: bytes) -> int | None:
    """Return how many ticks a second has, of a video object layer (ISO 14496-2, 6.2.3)."""
    bits = Bits(header)
    bits.take(9)
    version = 1
    if bits.take(1):
        version = bits.take(4)
        bits.take(3)
    if bits.take(4) == _OWN_ASPECT:
        bits.take(16)
    if bits.take(1):
        bits.take(3)
        if bits.take(1):
            bits.take(79)  # of the decoder's buffer
    if bits.take(2) == _GREY_SHAPE and version != 1:
        bits.take(4)
    bits.take(1)
    return bits.take(16) or None
