"""BitstreamValidator: what a packet says of itself, and flaws that FFmpeg passes in silence."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from ....pixels.jpeg import jpeg_scan
from .bits import Bits, is_spoilt, units
from .mpeg_pictures import Mpeg2Pictures, Mpeg4Pictures

_SLICE, _IDR_SLICE, _SEI, _SPS = 1, 5, 6, 7
# Profiles whose sequence parameters hold chroma, depth and scaling (H.264, section 7.3.2.1.1).
_HIGH_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}
_HEADER_BYTES = 64  # of a slice, enough for its frame number and picture order
_SPS_BYTES = 4096  # more than all scaling lists and picture orders take
_MOST_NUMBER_BITS = 16
_MOST_ORDERS = 64
_MOST_SPS = 8  # in one packet: one is usual, and each takes time
_SEI_BYTES = 1 << 16
_MOST_MESSAGES = 64  # in one unit of supplemental information
_INTRA_SLICES = {2, 4}  # by type, modulo 5
_RECOVERY_POINT = 6
_MOST_REFERENCES = 16  # of H.264
_KEPT = {"hevc": 15, "vp9": 10, "av1": 10}
_KEPT_OF_OTHERS = 4  # or as much: the coefficients of a JPEG in several scans
_HEVC_RANDOM_ACCESS, _HEVC_RASL, _HEVC_PICTURES = range(16, 24), {8, 9}, 32

MISSING = "frame is predicted from one that did not come"


class PacketFacts(NamedTuple):
    """What a packet is to others, as far as its codec says; else what its container says.

    `leading` is None where only time stamps can tell.
    """

    entry: bool  # decoding can start here: what is shown later depends on nothing earlier
    flaw: str | None = None  # its frame cannot be as recorded, whatever the decoder makes of it
    undecodable: bool = False  # and the decoder is better not asked
    leading: bool | None = None  # shown before the entry it follows, predicted from before it
    broken: bool = False  # what this entry's leading frames are predicted from did not come
    renewing: bool = False  # others like it renew a part each, until there is an entry
    refreshed: int = 0  # the entry is the end of so many packets that each renew a part
    reference: bool = True  # others may be predicted from it
    idr: bool = True  # nothing later names what came before, not even to have it forgotten


class BitstreamValidator:
    """Looks at each packet of a video, in decoding order, before it is decoded.

    From a JPEG that lacks its scan FFmpeg makes a picture of what its memory last held, and where
    an H.264 or MPEG-2 frame is missing it predicts from another one; it reports neither.
    `extradata` is what the container holds about the codec.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._codec = codec
        self._pictures: Mpeg2Pictures | Mpeg4Pictures | None = None
        if codec in {"mpeg1video", "mpeg2video"}:
            self._pictures = Mpeg2Pictures()
        elif codec == "mpeg4":
            self._pictures = Mpeg4Pictures()
            self._pictures.look(extradata or b"")
        self._length_size = 0
        self._h264 = _H264Pictures()
        if not extradata or codec not in {"h264", "hevc"}:
            return
        if codec == "hevc":
            if extradata[0] and len(extradata) > 22:  # ISO 14496-15: units have their length first
                self._length_size = (extradata[21] & 3) + 1
        elif extradata[0] == 1 and len(extradata) > 8:
            self._length_size = (extradata[4] & 3) + 1
            size = int.from_bytes(extradata[6:8], "big")
            self._h264.read_sps(extradata[8 : 8 + size])
        else:
            self.facts(extradata, key=False)  # reads the parameters in it

    @property
    def reads_packets(self) -> bool:
        """Whether packets of this codec are looked at; else their bytes are not needed."""
        return self._codec in {"mjpeg", "h264", "hevc"} or self._pictures is not None

    def kept_frames(self, reordered: int, *, alone: bool) -> int:
        """Return how many frames a decoder that puts so many in order may hold at once.

        Of some codecs each frame is coded `alone`.
        """
        if alone and self._codec != "mjpeg":
            return 2
        if self._codec == "h264":
            return self._h264.references + reordered + 2
        return _KEPT.get(self._codec, _KEPT_OF_OTHERS)

    def facts(self, packet: bytes, *, key: bool) -> PacketFacts:
        """Say what a packet is that its container calls a `key` packet or not."""
        if self._codec == "mjpeg" and jpeg_scan(packet) is None:
            return PacketFacts(entry=True, flaw="frame holds no picture", undecodable=True)
        if self._codec in {"h264", "hevc"}:
            return self._of_units(packet, key=key)
        picture = self._pictures.look(packet) if self._pictures else None
        if picture is None:
            return PacketFacts(entry=key)
        return PacketFacts(
            entry=picture.intra,
            flaw=MISSING if picture.gap and not picture.intra else None,
            leading=picture.leading,
            broken=picture.gap and picture.intra,
            reference=picture.reference,
        )

    def _of_units(self, packet: bytes, *, key: bool) -> PacketFacts:
        found = list(units(packet, self._length_size))
        facts = self._h264.facts(found, key=key) if self._codec == "h264" else _hevc(found, key=key)
        for unit in found:
            kind = unit[0] & 31 if self._codec == "h264" else unit[0] >> 1 & 63
            slices = range(_SLICE, _SEI) if self._codec == "h264" else range(_HEVC_PICTURES)
            if kind in slices and is_spoilt(unit):
                return facts._replace(flaw="frame holds bytes of no picture", undecodable=True)
        return facts


class _H264Pictures:
    """Follows frame numbers, picture orders and recovery points (H.264, sections 7.4 and 8.2.1)."""

    def __init__(self) -> None:
        self._number_bits: int | None = None  # None: the parameters are not understood
        self._sps = b""
        self._order_bits: int | None = None  # None: frames are not ordered by counts of their own
        self._gaps_allowed = self._frames_only = True
        self.references = _MOST_REFERENCES  # that may be kept, as the parameters say
        self._last: int | None = None  # frame number of the last frame that others may refer to
        self._last_order = self._key_order = 0
        self._orders: deque[int] = deque(maxlen=_MOST_ORDERS)  # of the last frames
        self._clean_at: int | None = None  # the frame number at which all parts have been renewed
        self._renewing = 0  # for how many packets

    def facts(self, found: Sequence[bytes], *, key: bool) -> PacketFacts:
        recovery, parameters = None, 0
        for unit in found:
            kind = unit[0] & 31
            if kind == _SPS:
                parameters += 1
                if parameters > _MOST_SPS:
                    flaw = "frame holds too many parameter sets"
                    return PacketFacts(entry=key, flaw=flaw, undecodable=True)
                if unit != self._sps:  # cameras repeat it
                    self._sps = unit
                    self.read_sps(unit)
            elif kind == _SEI and recovery is None:
                recovery = _recovery_frames(unit)
            elif kind in {_SLICE, _IDR_SLICE}:
                return self._slice(unit, recovery, key=key)
        return PacketFacts(entry=key)

    def _slice(self, unit: bytes, recovery: int | None, *, key: bool) -> PacketFacts:
        idr, reference = unit[0] & 31 == _IDR_SLICE, bool(unit[0] & 0x60)
        if self._number_bits is None:
            return PacketFacts(entry=idr or key or recovery == 0)
        bits = Bits(unit[1 : 1 + _HEADER_BYTES])
        first = bits.golomb() == 0  # macroblock
        intra = bits.golomb() % 5 in _INTRA_SLICES
        bits.skip_golombs(1)  # picture parameters
        number, last = bits.take(self._number_bits), self._last
        frame = self._frames_only or not bits.take(1)
        if not frame:
            bits.take(1)  # which field
        if idr:
            bits.skip_golombs(1)
            self._last_order = self._key_order = 0
        order = self._order_of(bits)
        if reference:
            self._last, self._last_order = number, order or 0
        turns = 1 << self._number_bits
        gap = not (idr or last is None or self._gaps_allowed) and number not in {
            last,
            (last + 1) % turns,
        }
        entry, refreshed = idr or recovery == 0 or (key and intra), 0
        if gap or entry:
            self._clean_at = None
        self._renewing += 1
        if recovery and not entry and self._clean_at is None:
            self._clean_at, self._renewing = (number + recovery) % turns, 0
        elif number == self._clean_at and reference:
            entry, refreshed, self._clean_at = True, self._renewing, None
        if entry:
            self._orders.clear()
        elif first and frame and order is not None:
            gap |= order in self._orders  # as counted since the entry, no two frames have the same
        if order is not None:
            self._orders.append(order)
        leading = None if order is None else order < self._key_order and not entry
        if entry and order is not None:
            self._key_order = order
        return PacketFacts(
            entry=entry,
            flaw=MISSING if gap and not entry else None,
            leading=leading,
            broken=gap and entry,
            renewing=self._clean_at is not None,
            refreshed=refreshed,
            reference=reference,
            idr=idr,
        )

    def _order_of(self, bits: Bits) -> int | None:
        """Return the picture order, of which the slice holds the lower bits (section 8.2.1.1)."""
        if self._order_bits is None:
            return None
        turns = 1 << self._order_bits
        ahead = (bits.take(self._order_bits) - self._last_order) % turns
        return self._last_order + (ahead - turns if ahead > turns // 2 else ahead)

    def read_sps(self, unit: bytes) -> None:
        """Learn how long frame numbers are, and whether they may have gaps."""
        self._number_bits = self._order_bits = None
        self.references = _MOST_REFERENCES
        bits = Bits(unit[1 : 1 + _SPS_BYTES])
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
        number_bits, order, order_bits = bits.golomb() + 4, bits.golomb(), None
        if order == 0:
            order_bits = bits.golomb() + 4
        elif order == 1:
            bits.take(1)
            bits.skip_golombs(2)
            bits.skip_golombs(min(255, bits.golomb()))  # more are not allowed
        self.references = min(bits.golomb(), _MOST_REFERENCES)
        self._gaps_allowed = bool(bits.take(1))
        bits.skip_golombs(2)  # width, height
        self._frames_only = bool(bits.take(1))
        if number_bits <= _MOST_NUMBER_BITS:
            self._number_bits = number_bits
        if order_bits is not None and order_bits <= _MOST_NUMBER_BITS:
            self._order_bits = order_bits


def _hevc(found: Sequence[bytes], *, key: bool) -> PacketFacts:
    """Tell leading pictures by their kind; the decoder knows which others are missing."""
    for unit in found:
        kind = unit[0] >> 1 & 63
        if kind < _HEVC_PICTURES:
            return PacketFacts(entry=kind in _HEVC_RANDOM_ACCESS, leading=kind in _HEVC_RASL)
    return PacketFacts(entry=key)


def _recovery_frames(unit: bytes) -> int | None:
    """Return after how many frames all is as recorded, if a unit holds a recovery point."""
    data, place = unit[1:_SEI_BYTES].replace(b"\0\0\3", b"\0\0"), 0
    for _ in range(_MOST_MESSAGES):
        header = []
        for _ in ("kind", "size"):
            rest = (
                data[place:].lstrip(b"\xff") if data[place : place + 1] == b"\xff" else data[place:]
            )
            skipped = len(data) - place - len(rest)
            header.append(255 * skipped + (rest[0] if rest else 0))
            place += skipped + 1
        if header[0] == _RECOVERY_POINT and place < len(data):
            return Bits(data[place : place + 8]).golomb()
        place += header[1]
        if place + 1 >= len(data):
            break
    return None
