"""HlsReader: the segments that an HLS playlist lists (RFC 8216), as one stream of bytes.

FFmpeg's own reader passes over segments that it cannot get, and ends without an error when a live
playlist stands still. Here each is an error: what is missing is not passed over in silence.
"""

from __future__ import annotations

import os
import re
import threading
import urllib.parse
from collections import deque
from pathlib import Path
from typing import NamedTuple, Protocol

from .http_body import HttpClient

MOST_PLAYLIST_BYTES = 8 << 20
MOST_SEGMENTS = 200_000
_LIVE_FROM_END = 3
_STANDSTILL_TARGETS = 2
"""A live playlist without a new segment for so many times its longest one, and the time-out."""
_MOST_TARGET_S = 10.0


class _Bytes(Protocol):
    def read(self, size: int = ...) -> bytes: ...
    def close(self) -> None: ...


class _Segment(NamedTuple):
    address: str  # as the playlist names it
    start: int
    end: int | None  # where its bytes end in the resource; None: with it


class _Playlist(NamedTuple):
    base: str  # what the names in it are relative to
    first: int  # number of the first segment
    segments: list[tuple[_Segment, _Segment | None]]  # each with what is to come before it
    target_s: float
    has_ended: bool


class FolderFetch:
    """Fetches what a playlist in a folder names, from that folder alone."""

    def __init__(self, playlist: str) -> None:
        self.address = playlist
        self._folder = Path(playlist).resolve().parent

    def get(self, address: str, *, start: int = 0, end: int | None = None) -> _Bytes:
        """Open a file of the folder; PermissionError for anything else."""
        del end
        path = Path(address).resolve()
        if "://" in address or not path.is_relative_to(self._folder) or not path.is_file():
            raise PermissionError(
                f"the playlist names {address!r}, which is no file in its own folder"
            )
        file = path.open("rb", buffering=0)
        file.seek(start)
        return file


class HlsReader:
    """Reads a playlist's segments in order; of a live one the newest, and then on as they come.

    Of several variants the first is taken. What a playlist names is fetched as `fetch` allows. A
    playlist of this machine is a recording, as far as it goes now: who writes it may have crashed.

    Args:
        fetch: Gets the playlist and what it names.
        timeout_s: How long a live playlist may at least stand still.
        was_live: It has been live before, so that its end is no recording to begin with.

    Attributes:
        is_live: The server's playlist has no end yet.
        silence_s: How long nothing may come: it comes in segments.
    """

    name = "segments"

    def __init__(
        self, fetch: HttpClient | FolderFetch, timeout_s: float, *, was_live: bool = False
    ) -> None:
        self._fetch, self._timeout_s = fetch, timeout_s
        self._stopping = threading.Event()
        self._body: _Bytes | None = None
        self._left: int | None = None  # of the body; None: all of it
        self._address, playlist = fetch.address, self._load(fetch.address)
        if isinstance(playlist, str):
            self._address, playlist = playlist, self._load(playlist)
        if isinstance(playlist, str):
            raise OSError("the playlist leads to further playlists")
        if playlist.has_ended and was_live:
            raise OSError("the playlist says that the stream has ended")
        self.is_live = not playlist.has_ended and isinstance(fetch, HttpClient)
        self._initial: _Segment | None = None
        self._queue: deque[_Segment] = deque()
        self._next = playlist.first
        if self.is_live:
            self._next += max(0, len(playlist.segments) - _LIVE_FROM_END)
        self._take(playlist)

    @property
    def silence_s(self) -> float:
        """How long a live playlist may stand still."""
        return self._timeout_s + _STANDSTILL_TARGETS * self._target_s if self.is_live else 0.0

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether it can be sought in."""
        return False

    def read(self, size: int) -> bytes:
        """Return what comes next, up to `size` bytes; b"" at the end of the last segment."""
        while True:
            if self._body is not None:
                data = self._body.read(size if self._left is None else min(size, self._left))
                if data:
                    self._left = None if self._left is None else self._left - len(data)
                    return data
                self._end_segment(self._body)
            if not self._queue and not self._wait_for_more():
                return b""
            segment = self._queue.popleft()
            address = _joined(self._base, segment.address)
            self._body = self._fetch.get(address, start=segment.start, end=segment.end)
            self._left = None if segment.end is None else segment.end - segment.start

    def interrupt(self) -> None:
        """Wait no longer for another segment: `read` finds the end."""
        self._stopping.set()

    def close(self) -> None:
        """Close what is open."""
        self._stopping.set()
        if self._body is not None:
            self._body.close()

    def _wait_for_more(self) -> bool:
        """Load the playlist until it holds another segment, or has ended."""
        pause_s, waited_s = max(0.2, self._target_s / 2), 0.0
        while not self._queue and not self._ended:
            if waited_s > self.silence_s:
                raise TimeoutError(f"the playlist got no new segment for {self.silence_s:g} s")
            if self._stopping.wait(pause_s):
                return False
            waited_s += pause_s
            if isinstance(self._fetch, HttpClient):
                self._fetch.patience.extend()
            playlist = self._load(self._address)
            if isinstance(playlist, str):
                raise OSError("the playlist has become one of several variants")
            self._take(playlist)
        return bool(self._queue)

    def _end_segment(self, body: _Bytes) -> None:
        """Go on to the next one; TimeoutError where they come and hold no frames."""
        body.close()
        self._body, fetch = None, self._fetch
        if not self.is_live or not isinstance(fetch, HttpClient):
            return
        if fetch.patience.without_frame_s > self.silence_s:
            raise TimeoutError(f"segments came without a frame for {self.silence_s:g} s")

    def _take(self, playlist: _Playlist) -> None:
        """Note the segments that are new."""
        self._base, self._target_s = playlist.base, playlist.target_s
        self._ended = playlist.has_ended or not self.is_live
        missed = playlist.first - self._next
        if missed > 0:
            raise OSError(f"{missed} segments left the playlist before they were read")
        count = len(playlist.segments)
        if playlist.first + 2 * count < self._next:  # else it may be an older copy
            raise OSError("the playlist began anew")
        for segment, initial in playlist.segments[-missed:]:
            if initial is not None and initial != self._initial:
                self._queue.append(initial)
            self._initial = initial
            self._queue.append(segment)
        self._next = max(self._next, playlist.first + count)

    def _load(self, address: str) -> _Playlist | str:
        """Fetch a playlist; of one that names variants, the address of the first."""
        body, data = self._fetch.get(address), bytearray()
        try:
            while chunk := body.read(1 << 16):
                data += chunk
                if len(data) > MOST_PLAYLIST_BYTES:
                    raise OSError(f"the playlist is longer than {MOST_PLAYLIST_BYTES >> 20} MiB")
        finally:
            body.close()
        lines = data.decode("utf-8", "replace").splitlines()
        if not lines or not lines[0].lstrip("\ufeff").startswith("#EXTM3U"):
            raise OSError("this is no playlist: it does not begin with #EXTM3U")
        return _parsed(getattr(body, "address", address), lines)


def _joined(base: str, name: str) -> str:
    if "://" in base or "://" in name:
        return urllib.parse.urljoin(base, name)
    return os.path.join(os.path.dirname(base), name)  # noqa: PTH118, PTH120  # may be a URL's path


def _attribute(line: str, key: str) -> str:
    found = re.search(rf'[:,]{key}=("[^"]*"|[^,]*)', line)
    return found[1].strip('"') if found else ""


def _range(text: str, after: int) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,15})(?:@(\d{1,15}))?", text.strip())
    if found is None:
        raise OSError("the playlist holds a range of bytes that is none")
    start = after if found[2] is None else int(found[2])
    return start, start + int(found[1])


def _parsed(base: str, lines: list[str]) -> _Playlist | str:
    first, target_s, has_ended, is_variant = 0, 10.0, False, False
    segments: list[tuple[_Segment, _Segment | None]] = []
    initial: _Segment | None = None
    span: tuple[int, int | None] = (0, None)
    after = 0
    for line in map(str.strip, lines):
        tag, _, value = line.partition(":")
        if tag == "#EXT-X-STREAM-INF":
            is_variant = True
        elif tag == "#EXT-X-TARGETDURATION":
            number = re.match(r"\d{1,9}(?:\.\d{1,9})?", value.strip())
            target_s = min(_MOST_TARGET_S, max(0.1, float(number[0]) if number else target_s))
        elif tag == "#EXT-X-MEDIA-SEQUENCE":
            number = re.fullmatch(r"\d{1,18}", value.strip())
            first = int(number[0]) if number else 0
        elif tag == "#EXT-X-ENDLIST":
            has_ended = True
        elif tag == "#EXT-X-BYTERANGE":
            span = _range(value, after)
        elif tag == "#EXT-X-KEY" and _attribute(line, "METHOD") != "NONE":
            raise OSError("the playlist's segments are encrypted, which is not read")
        elif tag == "#EXT-X-MAP":
            text = _attribute(line, "BYTERANGE")
            part = _range(text, 0) if text else (0, None)
            initial = _Segment(_attribute(line, "URI"), *part)
        elif line and not line.startswith("#"):
            if is_variant:
                return _joined(base, line)
            segments.append((_Segment(line, *span), initial))
            if len(segments) > MOST_SEGMENTS:
                raise OSError(f"the playlist holds more than {MOST_SEGMENTS} segments")
            after = 0 if span[1] is None else span[1]
            span = (0, None)
    return _Playlist(base, first, segments, target_s, has_ended)
