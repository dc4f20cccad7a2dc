"""Pictures of MPEG-1, MPEG-2 and MPEG-4 Part 2: their kinds, and gaps in how they are counted."""

from __future__ import annotations

from typing import NamedTuple

_PICTURE, _GROUP, _SEQUENCE, _VOP = b"\0\0\1\0", b"\0\0\1\xb8", b"\0\0\1\xb3", b"\0\0\1\xb6"
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
    """Tells pictures by their kind; nothing in them says that one before is missing."""

    def __init__(self) -> None:
        self._after_key = False

    def look(self, packet: bytes) -> Picture | None:
        """Return what a packet's first picture is, or None where it has none."""
        place = packet.find(_VOP)
        if place < 0 or len(packet) < place + 5:
            return None
        kind = (packet[place + 4] >> 6) + 1  # in the same order, but counted from 0
        leading = kind == _BIDIRECTIONAL and self._after_key
        if kind != _BIDIRECTIONAL:
            self._after_key = kind == _INTRA
        # A damaged picture may only look like one that no other is predicted from.
        return Picture(kind == _INTRA, leading, reference=True, gap=False)
