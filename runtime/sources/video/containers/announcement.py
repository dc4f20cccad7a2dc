"""Announcement: how much a container says that it holds, against what came."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from ..packets import PacketLog

_LEAST_BYTES = 8  # of a frame in AVI, which has a header of its own
_SEGMENT = b"\x18\x53\x80\x67"  # what holds everything in Matroska, behind its own short header
_HEADER_BYTES = 4096
_MOST_UNREAD = 0.5  # of what was read
_MOST_BOXES = 4096  # a fragmented file has two a fragment
_UNFINISHED = (
    "its index (moov) is missing, as of a recording that was never finished, and nothing says "
    "where frames are; tools such as untrunc make another one"
)


class Announcement:
    """What a container announces of its video stream.

    A header may be wrong: written before anything was known, kept when a recording was trimmed, or
    meant for another stream. Where the outermost structure of a file shows that all its bytes are
    there, it is believed. `path` is None where the container is no file.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, path: str | None) -> None:
        self._container, self._stream = container, stream
        self._form = container.format.name
        self._is_whole = None if path is None else _is_whole(Path(path), self._form)

    def early_end(self, log: PacketLog, read_to: int) -> str | None:
        """Name how all that came falls short of what is announced, if it does.

        `read_to` is where in the file the last bytes of any packet lie.
        """
        if log.count and not log.has_key:
            return "no frame can be decoded without what came before the recording"
        stream = self._stream
        too_few = f"the file announces {stream.frames} frames and ends after {log.count}"
        if self._is_whole:
            unread = self._container.size - read_to  # by a damaged index; a sound one is small
            is_left_out = log.count < stream.frames and unread > _MOST_UNREAD * read_to
            return too_few if self._form == "avi" and is_left_out else None
        base, frame_s = stream.time_base or Fraction(0), self._frame_s
        if stream.frames:
            # A trimmed MP4 keeps its count of frames, and only its duration is shortened. An AVI
            # counts in its own unit of time, also frames that stand still and are not in it.
            length_s = float((log.end_pts - log.first_pts) * base)
            units = stream.frames if self._form == "avi" else stream.duration
            ends_s = stream.frames * frame_s if units is None else float(units * base)
            is_placeholder = 0 < self._container.size < stream.frames * _LEAST_BYTES
            if is_placeholder or log.count >= stream.frames or length_s + frame_s / 2 > ends_s:
                return None
            return too_few
        announced_s, end_s = self._announced_s(), float(log.end_pts * base)
        if log.end_pts == log.last_pts:  # packets do not say how long they are shown
            end_s += frame_s
        if announced_s is None or end_s + frame_s / 2 > announced_s:
            return None
        return f"the file announces {announced_s:.2f} s and ends after {end_s:.2f} s"

    @property
    def _frame_s(self) -> float:
        return 1 / (float(self._stream.average_rate or 0) or math.inf)

    def _announced_s(self) -> float | None:
        """Return where the video ends by its header; of other containers FFmpeg only guesses."""
        if self._form != "flv" and not (self._form == "matroska,webm" and self._is_whole is False):
            return None
        clock = self._stream.metadata.get("DURATION", "").split(":")
        try:
            hours, minutes, seconds = (float(part) for part in clock)
        except ValueError:
            duration = self._container.duration
            alone = len(self._container.streams) == 1  # others may be longer
            return duration / av.time_base if alone and duration is not None else None
        return (hours * 60 + minutes) * 60 + seconds


def why_unreadable(path: str) -> str | None:
    """Say what a file that FFmpeg refuses lacks: all, or the index that recorders write last.

    The boxes of an MP4 or MOV are walked (ISO/IEC 14496-12, 4.2), a bounded number of them.
    """
    found = set[bytes]()
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        if not file.read(1):
            return "it is empty"
        found = {kind for kind, _, _ in _boxes(file)}
    return _UNFINISHED if b"mdat" in found and not found & {b"moov", b"moof"} else None


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the outermost boxes of an MP4 or MOV; none of another file."""
    place, size = 0, os.fstat(file.fileno()).st_size
    for _ in range(_MOST_BOXES):
        file.seek(place)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:], "big")
        if not kind.isalnum():
            return
        end = place + length if length else size
        yield kind, place, min(end, size)
        if length < 8 or end >= size:
            return
        place = end


def _is_whole(path: Path, form: str) -> bool | None:
    """Whether a file is as long as its outermost structure says; None where it does not say."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if form == "avi":
                return _is_whole_riff(file, size)
            return _is_whole_segment(file, size) if form == "matroska,webm" else None
    except OSError:
        return None


def _is_whole_riff(file: BinaryIO, size: int) -> bool | None:
    """Walk the parts of an AVI, of which a large one has several."""
    place = 0
    while place + 12 <= size:
        file.seek(place)
        header = file.read(8)
        length = int.from_bytes(header[4:], "little")
        if header[:4] != b"RIFF":
            # What follows is no part of it; zeros before it are room that was never written to.
            return (place > 0 and not _ends_in_zeros(file, place)) or None
        if length < 4 or length >= 2**31 - 1:
            return None  # a placeholder
        place += 8 + length + length % 2
    # The padding may be left out.
    return place - 1 <= size and not _ends_in_zeros(file, min(place, size))


def _ends_in_zeros(file: BinaryIO, end: int) -> bool:
    file.seek(max(0, end - _HEADER_BYTES))
    return not any(file.read(min(end, _HEADER_BYTES)))


def _is_whole_segment(file: BinaryIO, size: int) -> bool | None:
    """Compare the size of a Matroska file's segment with the file's."""
    head = file.read(_HEADER_BYTES)
    place = head.find(_SEGMENT)
    if place < 0 or place + 5 > len(head):
        return None
    place += len(_SEGMENT)
    width = 9 - head[place].bit_length()
    if not head[place] or place + width > len(head):
        return None
    length = int.from_bytes(head[place : place + width], "big") & ((1 << 7 * width) - 1)
    if length == (1 << 7 * width) - 1:
        return None  # written before it was known
    return place + width + length <= size
