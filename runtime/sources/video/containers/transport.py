"""TransportFile: whether all of a frame's packets are in a file of an MPEG transport stream."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av

from ....core.lifecycle import Closing

_SIZE, _SYNC = 188, 0x47
_STRIDES = 188, 192, 204  # with a time of arrival before each packet (AVCHD), or a checksum behind
_HEAD_BYTES = 1 << 14
_FIRST, _SEQUENCE = 6, 16  # bytes of a PES header up to its length; packets are counted so far
_END_BYTES = 1 << 19  # so near to the end of a file, a frame may be the last one
_MOST_BYTES = 1 << 24  # of one frame


class TransportFile(Closing):
    """Reads again what FFmpeg only calls corrupt: its mark may mean the frame, or the next one.

    Packets are counted, and a frame's last one is filled up. So a file that was put together from
    whole pieces is told from one in which packets are missing.
    """

    def __init__(self, path: str, pid: int) -> None:
        self._file: BinaryIO = Path(path).open("rb")  # noqa: SIM115 (closed by `close`)
        self._pid = pid
        self._end = os.fstat(self._file.fileno()).st_size
        self._stride = _stride_of(self._file.read(_HEAD_BYTES))
        self._is_marked = False  # FFmpeg marked the packet before

    def is_cut(self, packet: av.Packet[av.VideoStream]) -> bool:
        """Whether a part of a packet's frame is not there; to be asked of each, in their order."""
        marked = self._is_marked or packet.is_corrupt
        self._is_marked = packet.is_corrupt
        position: int | None = packet.pos
        may_be_last = position is not None and position + _END_BYTES > self._end
        return (marked or may_be_last) and not self.is_complete(position)

    def is_complete(self, position: int | None) -> bool:
        """Whether the frame whose first packet is there is complete."""
        if position is None or position < 0:
            return False
        # FFmpeg counts from where a whole stride ends with the packet.
        self._file.seek(max(0, position + self._stride - _SIZE))
        needed, got, count, filled = None, 0, None, False
        for packet in self._packets():
            if packet is None or packet[1] & 0x80:  # cut off, or marked by the receiver
                return False
            fields, number = packet[3] >> 4 & 3, packet[3] & 15
            if packet[1] & 0x40 and count is not None:
                if number == count:
                    return True
                break  # nothing is missing, or the end of this one
            if not fields & 1 or (count is not None and number == (count - 1) % _SEQUENCE):
                continue  # without payload, or sent twice
            if count is not None and number != count:
                return False
            start = 5 + packet[4] if fields & 2 else 4
            filled = start > 5 + (1 + 6 * (packet[5] >> 4 & 1) if start > 5 else 0)
            payload = packet[start:]
            if count is None:
                if not packet[1] & 0x40 or len(payload) < _FIRST:
                    return False
                length = int.from_bytes(payload[4:6], "big")
                needed = length + _FIRST if length else None
            got, count = got + len(payload), (number + 1) % _SEQUENCE
        return filled if needed is None else got >= needed

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _packets(self) -> Iterator[bytes | None]:
        """Yield the stream's packets from here on; None for one that is none, or not all there."""
        for _ in range(_MOST_BYTES // _SIZE):
            packet = self._file.read(_SIZE)
            if not packet:
                return
            if len(packet) < _SIZE or packet[0] != _SYNC:
                yield None
                return
            if int.from_bytes(packet[1:3], "big") & 0x1FFF == self._pid:
                yield packet
            self._file.seek(self._stride - _SIZE, os.SEEK_CUR)


def _stride_of(head: bytes) -> int:
    """Return the distance of packets: that at which the most begin as a packet does."""

    def share(stride: int) -> int:
        return stride * max(head[start::stride].count(_SYNC) for start in range(stride))

    return max(_STRIDES, key=share)
