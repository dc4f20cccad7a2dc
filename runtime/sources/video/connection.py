"""Connection: an opened file, named pipe or network stream, and what it announces about itself."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator, Sequence
from typing import cast

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from ...core.errors import SourceError
from ...core.frame import Mode
from ...core.lifecycle import Closing
from ..base import CaptureRequest, silence_of
from ..spec import SourceSpec
from .containers.announcement import why_unreadable
from .inputs import BUFFER_BYTES, BoundedReader, input_of
from .tracks import video_track

# What PyAV raises while it opens, reads and decodes.
FAILURES = (av.error.FFmpegError, OSError, ValueError)
# What another transport would not change.
_WHATEVER_TRANSPORT = (
    ConnectionRefusedError,
    PermissionError,
    socket.gaierror,
    av.error.HTTPUnauthorizedError,
    av.error.HTTPForbiddenError,
    av.error.HTTPNotFoundError,
)
_ADVICE = {"url": "check the address and that the server runs", "pipe": "check who writes to it"}
_NOT_BACK = (
    "its index seems to come after its pictures, to which nobody can go back here: read it as a "
    "file, or put the index first (ffmpeg -i IN -c copy -movflags +faststart OUT)"
)
_FOURCC = {"mjpeg": "MJPG", "mpeg4": "MP4V", "vp8": "VP80", "vp9": "VP90", "av1": "AV01"}
_FOURCC |= {name: name.upper() for name in ("h264", "hevc", "ffv1")}


class Connection(Closing):
    """An opened container, its video track (see `video_track`), and the mode that it announces.

    A URL or a named pipe may be silent for `timeout_s`, a live playlist for `silence_s`. RTSP is
    tried over TCP, then over UDP, unless the source names one; `transport` is what it came over.
    `read_to` is where in a file the last bytes of any packet lie.
    """

    def __init__(self, spec: SourceSpec, request: CaptureRequest) -> None:
        self._timeout_s, self.read_to = request.timeout_s, 0
        self._limit, self._color = request.picture_limit, request.color
        transports = [spec.transport]
        if spec.transport == "auto":
            transports = ["tcp", "udp"] if spec.location.startswith("rtsp") else ["tcp"]
        failures: list[str] = []
        for self.transport in transports:
            try:
                self._open(spec)
                break
            except FAILURES as error:
                failures.append(self.reason(error))
                if self.transport != transports[-1] and isinstance(error, _WHATEVER_TRANSPORT):
                    transports = [self.transport]
                if self.transport == transports[-1]:
                    # PyAV's own error repeats the URL, credentials and all.
                    raise SourceError(
                        _joined(failures),
                        context=f"cannot open {spec.name}",
                        fix=_ADVICE.get(spec.kind, "check the file"),
                    ) from (None if spec.kind == "url" else error)
        try:
            self.stream, self.remark = video_track(self.container, spec.name, request.track)
        except SourceError:
            self.close()
            raise
        self.remark = self._input.remark or self.remark
        codec, rate = self.stream.codec_context, self.stream.average_rate
        try:
            tag = codec.codec_tag.strip("\0 ")
        except UnicodeDecodeError:  # four bytes of any value
            tag = ""
        self.mode = Mode(
            width=codec.width or None,
            height=codec.height or None,
            fps=float(rate) if rate else None,
            fourcc=_FOURCC.get(codec.codec.name) or (tag if tag.isprintable() else None) or None,
        )

    @property
    def has_end(self) -> bool:
        """Whether it is a recording: by its protocol, else by whether it announces its length."""
        if self._input.has_end is not None:
            return self._input.has_end
        return bool(self.stream.frames) or (self.container.duration or 0) > 0

    @property
    def path(self) -> str | None:
        """The one file that positions of packets are in, if it is one of this machine."""
        file = self._input.file
        return str(file.name) if isinstance(file, io.FileIO) else None

    @property
    def silence_s(self) -> float:
        """How long nothing may come: as asked, or longer where it comes in segments."""
        return max(self._timeout_s, self._input.silence_s)

    @property
    def first_byte_ns(self) -> int | None:
        """When the first byte of the packet handed out last came, where that is known."""
        file = self._input.file
        return file.first_byte_ns if isinstance(file, BoundedReader) else None

    def packets(self) -> Iterator[av.Packet[VideoStream]]:
        """Demultiplex; what goes to other streams counts as having come."""
        file = self._input.file
        packets = self.container.demux()
        while True:
            if isinstance(file, BoundedReader):
                file.begin_packet()
            try:
                packet = next(packets, None)
            except av.error.InvalidDataError as error:
                is_mp4 = self.container.format.name.startswith("mov,")
                if self.read_to or not is_mp4 or self._failure or not self._is_sent_once:
                    raise
                raise OSError(_NOT_BACK) from error
            failure = self._failure
            if failure is not None and (packet is None or not isinstance(failure, Exception)):
                raise failure
            if packet is None:
                return
            if packet.pos is not None:
                self.read_to = max(self.read_to, packet.pos + packet.size)
            if packet.stream_index == self.stream.index:
                yield cast("av.Packet[VideoStream]", packet)

    def _open(self, spec: SourceSpec) -> None:
        self._input = input_of(spec, self._timeout_s, self.transport, self._limit, self._color)
        file, path = self._input.file, self.path
        try:
            self.container: InputContainer = av.open(
                file,
                "r",
                format=self._input.format,
                options=self._input.options,
                timeout=self.silence_s,
                metadata_errors="replace",  # a title in Latin-1 is no reason to refuse a video
                buffer_size=BUFFER_BYTES,
            )
        except BaseException as error:
            self._input.close()
            if self._failure is not None:
                raise self._failure from error
            if path is not None and (why := why_unreadable(path)):
                raise OSError(why) from error
            raise
        failure = self._failure
        is_end = isinstance(failure, Exception) and not isinstance(failure, TimeoutError)
        if failure is not None and not (is_end and self.container.streams.video):
            self.close()
            raise failure

    def interrupt(self) -> None:
        """End a wait for what a live playlist is to name, if that is what is waited for."""
        file = self._input.file
        if isinstance(file, BoundedReader):
            file.interrupt()

    @property
    def _is_sent_once(self) -> bool:
        """Whether nothing that came can be read again."""
        file = self._input.file
        return isinstance(file, BoundedReader) and not file.seekable()

    @property
    def _failure(self) -> BaseException | None:
        """What failed in a function that FFmpeg called."""
        file = self._input.file
        return file.failure if isinstance(file, BoundedReader) else None

    def reason(self, error: Exception) -> str:
        """Return the error's own words without its number and the address it repeats."""
        if isinstance(error, av.error.ExitError):
            return silence_of(self._timeout_s)
        return str(getattr(error, "strerror", None) or error)

    def close(self) -> None:
        """Close the file or connection."""
        self.container.close()
        self._input.close()


def _joined(failures: Sequence[str]) -> str:
    if len(failures) == 1:
        return failures[0]
    return "; ".join(
        f"over {name}: {reason}" for name, reason in zip(("TCP", "UDP"), failures, strict=True)
    )
