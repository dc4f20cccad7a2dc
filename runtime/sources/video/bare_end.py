"""BareEnd: whether the last picture of a bare H.264 or HEVC stream is all there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import av
import av.error
from av.video.codeccontext import VideoCodecContext

from .connection import FAILURES

_TAILS = (b"\x55" * 64, b"\xaa" * 64)
_MOST_BYTES = 64 << 20


class BareEnd:
    """Keeps the packets since the last key frame, to decode them anew once no more come.

    Nothing says where the last packet of a bare stream was to end, and FFmpeg's decoders go on
    behind the end of what was cut, or fail and take a frame along that waited. So the picture is
    decoded with one tail and with another: where they differ, its own bytes were not enough.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._codec, self._extradata = codec, extradata
        self._group: list[bytes] = []
        self._size = 0
        self._last: av.Packet[av.VideoStream] | None = None  # set once none comes behind it

    def one_behind(
        self, packets: Iterator[av.Packet[av.VideoStream]]
    ) -> Iterator[av.Packet[av.VideoStream]]:
        """Yield packets that hold bytes, each once it is known whether it is the last."""
        held: av.Packet[av.VideoStream] | None = None
        failure: Exception | None = None
        try:
            for packet in packets:
                if packet.size:
                    if held is not None:
                        yield held
                    held = packet
        except FAILURES as error:
            failure = error
        self._last = held
        if held is not None:
            yield held
        if failure is not None:
            raise failure

    def add(self, data: bytes, *, key: bool) -> None:
        """Note a packet, in decoding order; a group that is too long is not kept."""
        if key:
            self._group, self._size = [], 0
        self._size += len(data)
        if self._size <= _MOST_BYTES:
            self._group.append(data)
        else:
            self._group.clear()

    def is_cut(self, packet: av.Packet[av.VideoStream]) -> bool:
        """Whether a packet is the last, and its picture depends on what follows its bytes."""
        if packet is not self._last or not self._group:
            return False
        first, second = (self._last_picture(tail) for tail in _TAILS)
        return first != second

    def _last_picture(self, tail: bytes) -> bytes | None:
        decoder = cast("VideoCodecContext", av.CodecContext.create(self._codec, "r"))
        decoder.extradata = self._extradata
        last = len(self._group) - 1
        picture = None
        for number, data in enumerate([*self._group, None]):
            packet = None
            if data is not None:
                packet = av.Packet(data + tail if number == last else data)
                packet.pts = packet.dts = number
            try:
                frames = decoder.decode(packet)
            except av.error.FFmpegError:
                continue
            for frame in frames:
                if frame.pts == last:
                    picture = frame.to_ndarray().tobytes()
        return picture
