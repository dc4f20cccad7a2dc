"""Connection: an opened file, named pipe or network stream, and what it announces about itself."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import cast

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from ...core.errors import SourceError
from ...core.frame import Mode
from ...core.lifecycle import Closing
from ..base import silence_of
from ..spec import SourceSpec
from .inputs import BUFFER_BYTES, BoundedReader, input_of
from .packets import PacketLog
from .tracks import video_track

# What PyAV raises while it opens, reads and decodes.
FAILURES = (av.error.FFmpegError, OSError, ValueError)
# Containers whose header holds how long the recording is; of others FFmpeg only guesses it.
_SAY_DURATION = {"matroska,webm", "flv"}
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
_FOURCC = {"mjpeg": "MJPG", "mpeg4": "MP4V", "vp8": "VP80", "vp9": "VP90", "av1": "AV01"}
_FOURCC |= {name: name.upper() for name in ("h264", "hevc", "ffv1")}


class Connection(Closing):
    """An opened container, its video track (see `video_track`), and the mode that it announces.

    A URL or a named pipe may be silent for `timeout_s`, a live playlist for `silence_s`. RTSP is
    tried over TCP, then over UDP, unless the source names one; `transport` is what it came over.
    """

    def __init__(self, spec: SourceSpec, timeout_s: float, track: int | None = None) -> None:
        self._timeout_s = timeout_s
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
                        self._told(failures),
                        context=f"cannot open {spec.name}",
                        fix=_ADVICE.get(spec.kind, "check the file"),
                    ) from (None if spec.kind == "url" else error)
        try:
            self.stream, self.remark = video_track(self.container, spec.name, track)
        except SourceError:
            self.close()
            raise
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
            packet = next(packets, None)
            failure = self._failure
            if failure is not None and (packet is None or not isinstance(failure, Exception)):
                raise failure
            if packet is None:
                return
            if packet.stream_index == self.stream.index:
                yield cast("av.Packet[VideoStream]", packet)

    def _open(self, spec: SourceSpec) -> None:
        self._input = input_of(spec, self._timeout_s, self.transport)
        file = self._input.file
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
            raise
        failure = self._failure
        if isinstance(failure, TimeoutError) or not isinstance(failure, Exception | None):
            self.close()
            raise failure

    @property
    def _failure(self) -> BaseException | None:
        """What failed in a function that FFmpeg called."""
        file = self._input.file
        return file.failure if isinstance(file, BoundedReader) else None

    def early_end(self, log: PacketLog) -> str | None:
        """Name how all that came falls short of what the header announces, if it does."""
        stream, name = self.stream, self.container.format.name
        base = stream.time_base or Fraction(0)
        frame_s = 1 / (float(stream.average_rate or 0) or math.inf)
        if stream.frames:
            # A trimmed MP4 keeps its count of frames, and only its duration is shortened. An AVI
            # in which a picture stands still counts frames that are not in it.
            length_s = float((log.end_pts - log.first_pts) * base)
            duration = stream.duration if "mp4" in name else None
            ends_s = stream.frames * frame_s if duration is None else float(duration * base)
            if log.count >= stream.frames or length_s + frame_s / 2 > ends_s:
                return None
            return f"the file announces {stream.frames} frames and ends after {log.count}"
        announced_s = self._announced_s() if name in _SAY_DURATION else None
        end_s = float(log.end_pts * base)
        if announced_s is None or end_s + frame_s / 2 > announced_s:
            return None
        return f"the file announces {announced_s:.2f} s and ends after {end_s:.2f} s"

    def reason(self, error: Exception) -> str:
        """Return the error's own words without its number and the address it repeats."""
        if isinstance(error, av.error.ExitError):
            return silence_of(self._timeout_s)
        return str(getattr(error, "strerror", None) or error)

    def close(self) -> None:
        """Close the file or connection."""
        self.container.close()
        self._input.close()

    def _told(self, failures: Sequence[str]) -> str:
        if len(failures) == 1:
            return failures[0]
        return "; ".join(
            f"over {name}: {told}" for name, told in zip(("TCP", "UDP"), failures, strict=True)
        )

    def _announced_s(self) -> float | None:
        """Return where the video ends by its header; other streams may be longer."""
        clock = self.stream.metadata.get("DURATION", "").split(":")
        try:
            hours, minutes, seconds = (float(part) for part in clock)
        except ValueError:
            duration = self.container.duration
            alone = len(self.container.streams) == 1
            return duration / av.time_base if alone and duration is not None else None
        return (hours * 60 + minutes) * 60 + seconds
