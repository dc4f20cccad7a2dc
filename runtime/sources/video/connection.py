"""Connection: an opened file, named pipe or network stream, and what it announces about itself."""

from __future__ import annotations

import io
import math
import os
import select
from fractions import Fraction

import av
import av.error
from av.container import InputContainer

from ...core.errors import SourceError
from ...core.frame import Mode
from ...core.lifecycle import Closing
from ..base import silence_of
from ..spec import SourceSpec
from .packets import PacketLog
from .tracks import video_track

# What PyAV raises while it opens, reads and decodes.
FAILURES = (av.error.FFmpegError, OSError, ValueError)
# Containers whose header holds how long the recording is; of others FFmpeg only guesses it.
_SAY_DURATION = {"matroska,webm", "flv"}
# For RTSP, frames are not watched for their rate: they would come late, all at once.
_RTSP = {"rtsp_transport": "tcp", "fpsprobesize": "0"}
_ADVICE = {"url": "check the address and that the server runs", "pipe": "check who writes to it"}
_FOURCC = {"mjpeg": "MJPG", "mpeg4": "MP4V", "vp8": "VP80", "vp9": "VP90", "av1": "AV01"}
_FOURCC |= {name: name.upper() for name in ("h264", "hevc", "ffv1")}


class PipeReader(io.FileIO):
    """The reading end of a named pipe, with a limit on every wait, for which FFmpeg has none.

    It opens at once, also while nobody writes; the first read waits for a writer.
    """

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        self._timeout_s = timeout_s

    def read(self, size: int | None = -1) -> bytes:
        """Return what is there; nothing once all writers have gone; TimeoutError after silence."""
        if self.closed:
            return b""
        if not select.select([self], [], [], self._timeout_s)[0]:
            raise TimeoutError(f"nothing came for {self._timeout_s:g} s")
        return super().read(size) or b""


class Connection(Closing):
    """An opened container, its video track, and the mode that it announces.

    A URL or a named pipe may be silent for `timeout_s`.
    """

    def __init__(self, spec: SourceSpec, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._pipe: PipeReader | None = None
        is_url, location = spec.kind == "url", spec.location
        # Without the prefix, what stands before a colon in a file's name is taken for a protocol.
        address = location if is_url else f"file:{location}"
        options = _RTSP if location.startswith("rtsp") and is_url else {}
        try:
            if spec.kind == "pipe":
                self._pipe = PipeReader(location, timeout_s)
            self.container: InputContainer = av.open(
                self._pipe or address, "r", timeout=timeout_s, options=options
            )
        except FAILURES as error:
            if self._pipe is not None:
                self._pipe.close()
            # PyAV's own error repeats the URL, credentials and all.
            raise SourceError(
                self.reason(error),
                context=f"cannot open {spec.name}",
                fix=_ADVICE.get(spec.kind, "check the file"),
            ) from (None if is_url else error)
        try:
            self.stream, self.remark = video_track(self.container, spec.name)
        except SourceError:
            self.close()
            raise
        codec, rate = self.stream.codec_context, self.stream.average_rate
        tag = codec.codec_tag.strip("\0 ")
        self.mode = Mode(
            width=codec.width or None,
            height=codec.height or None,
            fps=float(rate) if rate else None,
            fourcc=_FOURCC.get(codec.codec.name) or (tag if tag.isprintable() else None) or None,
        )

    @property
    def has_end(self) -> bool:
        """Whether it announces how long it is: a recording does, a camera does not."""
        announced = self.stream.frames or self.container.duration is not None
        return bool(announced) or self.container.size > 0

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
        if self._pipe is not None:
            self._pipe.close()

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
