"""MultipartReader: the pictures of an MJPEG server, however it divides them, as FFmpeg reads them.

Servers leave out the first boundary, the dashes, the lengths or the carriage returns, announce
another boundary than they send, or send nothing but pictures; FFmpeg gives up on most of these.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Protocol

from ...pixels.files.image_kinds import JPEG_END, JPEG_START
from ...pixels.jpeg_segments import JPEG_SCAN

MOST_PART_BYTES = 64 << 20
_MOST_BETWEEN_BYTES = 1 << 20
"""What may lie between two pictures, and before the scan of one."""
_RECEIVED_AT_ONCE = 1 << 18
_LENGTH = re.compile(
    rb"^content-length[ \t]*:[ \t]*(\d{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE
)
_HEAD = re.compile(
    rb"^content-(?:type|length)[ \t]*:[^\n]{0,999}\n(?:[^\r\n][^\n]{0,999}\n){0,32}\r?\n",
    re.IGNORECASE | re.MULTILINE,
)
_HEAD_BYTES = 1 << 12
_LEAST_DELIMITER, _MOST_DELIMITER = 6, 200
_PADDING = b"\0\r\n"


class _Body(Protocol):
    @property
    def received_ns(self) -> int: ...
    def read(self, size: int = ...) -> bytes: ...
    def close(self) -> None: ...


class MultipartReader:
    """Reads parts from a body and hands them on with exact lengths, for FFmpeg's format `mpjpeg`.

    A part ends where its length says if a picture ends there, else at the end of the picture or at
    the next boundary. A part that is no picture is handed on too, to become a gap.

    Attributes:
        name: What FFmpeg may guess a format by.
        first_byte_ns: When the first byte of the part came that was handed on last, on the
            monotonic clock.
    """

    name = "parts.mjpeg"

    def __init__(self, body: _Body, content_type: str) -> None:
        declared = re.search(r"boundary\s*=\s*(\"[^\"]*\"|[^;\s]*)", content_type, re.IGNORECASE)
        token = declared[1].strip('"').lstrip("-").encode() if declared else b""
        self._body = body
        self._delimiter = b"--" + token if len(token) + 2 >= _LEAST_DELIMITER else None
        self._buffer = bytearray()
        self._dropped = 0  # bytes of the body before the buffer
        self._arrivals: deque[tuple[int, int]] = deque()  # bytes of the body so far, and when
        self._part = memoryview(b"")
        self.first_byte_ns: int | None = None

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether it can be sought in."""
        return False

    def read(self, size: int) -> bytes:
        """Return the rest of a part, up to `size` bytes; b"" at the end; OSError for one too big.

        What is cut off at the end of the stream is announced as longer than it is.
        """
        if not self._part:
            found = self._next_part()
            if found is None:
                return b""
            part, length = found if found[0] else (b"\0", 1)  # 0 is no length to FFmpeg
            head = b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % length
            self._part = memoryview(head + part)
        data = bytes(self._part[:size])
        self._part = self._part[size:]
        return data

    def close(self) -> None:
        """Close the connection."""
        self._body.close()

    def _next_part(self) -> tuple[bytes, int] | None:
        start, length = self._start()
        if start is None:
            return None
        self._drop(start)
        if length is not None and length > MOST_PART_BYTES:
            raise OSError(
                f"a part of {length} bytes is announced, and {MOST_PART_BYTES >> 20} MiB are the "
                "most that a picture may take"
            )
        return self._until_end(length)

    def _start(self) -> tuple[int | None, int | None]:
        """Find where the next part starts, and the length that it announces, if it does."""
        buffer, scanned = self._buffer, 0
        while True:
            picture = buffer.find(JPEG_START, max(0, scanned - len(JPEG_START)))
            stop = len(buffer) if picture < 0 else picture
            head = _HEAD.search(buffer, max(0, scanned - _HEAD_BYTES), stop)
            scanned = len(buffer)
            if head is not None or picture >= 0:
                start = head.end() if head is not None else picture
                lengths = _LENGTH.findall(buffer, 0, start)
                length = int(lengths[-1]) if lengths else 0
                self._learn(bytes(buffer[: head.start() if head else start]).split(b"\n"))
                if head is not None and start == len(buffer) and not length and not self._fill():
                    return None, None
                return start, length or None
            if len(buffer) > _MOST_BETWEEN_BYTES:
                raise OSError(f"no picture came in {_MOST_BETWEEN_BYTES >> 20} MiB")
            if not self._fill():
                return None, None

    def _learn(self, lines: list[bytes]) -> None:
        """Take the boundary that is used for the one to look for."""
        for line in map(bytes.strip, reversed(lines)):
            may_be = line.startswith(b"--") or (b":" not in line and line.isascii())
            if may_be and _LEAST_DELIMITER <= len(line) <= _MOST_DELIMITER:
                self._delimiter = line
                return

    def _until_end(self, length: int | None) -> tuple[bytes, int]:
        buffer, scanned = self._buffer, 0
        while len(buffer) < len(JPEG_START) and self._fill():
            pass
        self.first_byte_ns = self._arrived_ns(self._dropped)
        is_picture = buffer.startswith(JPEG_START)
        picture = _PictureEnd()
        while True:
            if length is not None and len(buffer) >= length:
                tail = bytes(buffer[max(0, length - 64) : length]).rstrip(_PADDING)
                if not is_picture or tail.endswith(JPEG_END):
                    return self._take(length)
            ends = []
            if is_picture and len(buffer) > (length or 0):
                ends.append(picture.find(buffer))
            if self._delimiter is not None:
                overlap = len(self._delimiter)
                ends.append(buffer.find(self._delimiter, max(0, scanned - overlap)))
            scanned = len(buffer)
            if found := [end for end in ends if end >= 0]:
                end = min(found)
                if self._delimiter is not None and end == ends[-1]:
                    end -= buffer[end - 1 : end] == b"\n"
                    end -= buffer[end - 1 : end] == b"\r"
                return self._take(end)
            if len(buffer) > MOST_PART_BYTES:
                raise OSError(f"a picture has no end within {MOST_PART_BYTES >> 20} MiB")
            if not self._fill():
                if is_picture and (end := picture.find(buffer)) >= 0:
                    return self._take(end)
                part, _ = self._take(len(buffer))
                return part, len(part) + 1

    def _take(self, size: int) -> tuple[bytes, int]:
        part = bytes(memoryview(self._buffer)[:size])
        self._drop(size)
        return part, len(part)

    def _drop(self, size: int) -> None:
        del self._buffer[:size]
        self._dropped += size

    def _fill(self) -> bool:
        data = self._body.read(_RECEIVED_AT_ONCE)
        self._buffer += data
        if data:
            self._arrivals.append((self._dropped + len(self._buffer), self._body.received_ns))
        return bool(data)

    def _arrived_ns(self, position: int) -> int | None:
        """Return when the byte at a position of the body came."""
        while self._arrivals and self._arrivals[0][0] <= position:
            self._arrivals.popleft()
        return self._arrivals[0][1] if self._arrivals else None


class _PictureEnd:
    """Finds where a growing JPEG ends; what is before its scan may hold a thumbnail's end."""

    def __init__(self) -> None:
        self._next, self._in_scan, self._found = 2, False, True

    def find(self, data: bytearray) -> int:
        """Return where the JPEG that starts at 0 ends, or -1 where it has no end so far."""
        while not self._in_scan and self._found and self._next + 4 <= len(data):
            marker = data[self._next + 1]
            if data[self._next] != 0xFF or self._next > _MOST_BETWEEN_BYTES:
                self._found = False  # no JPEG: only a boundary can end it
            elif marker == JPEG_END[1]:
                return self._next + 2
            elif marker == JPEG_SCAN:
                self._in_scan = True
            else:
                size = int.from_bytes(data[self._next + 2 : self._next + 4], "big")
                self._next += 1 if marker == 0xFF else 2 + max(2, size)
        if not self._in_scan:
            return -1
        end = data.find(JPEG_END, self._next)
        self._next = max(self._next, len(data) - 1)
        return end + 2 if end >= 0 else -1
