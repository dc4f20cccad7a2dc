"""Connection: a file, URL or named pipe opened by FFmpeg, and the video stream in it."""

from __future__ import annotations

from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ...core.errors import SourceError
from ...core.frame import Mode
from ...core.lifecycle import Closing
from ..spec import SourceSpec
from .named_pipe import PipeReader

FAILURES = (av.error.FFmpegError, OSError, ValueError)
"""What PyAV raises while it opens, reads and decodes."""
# FFmpeg renders these as video, and takes any .txt file for one.
_TEXT_ART = {"ansi", "bintext", "xbin", "idf"}
# For RTSP, frames are not watched for their rate: they would come late, all at once.
_ADVICE = {
    "url": "check the address and that the server runs",
    "pipe": "check who writes to it",
}
_RTSP = {"rtsp_transport": "tcp", "fpsprobesize": "0"}
_FOURCC = {
    "mjpeg": "MJPG",
    "h264": "H264",
    "hevc": "HEVC",
    "mpeg4": "MP4V",
    "vp8": "VP80",
    "vp9": "VP90",
    "av1": "AV01",
    "ffv1": "FFV1",
}


class Connection(Closing):
    """An opened container.

    Attributes:
        container: As PyAV gives it.
        stream: Its first video stream that moves.
        mode: How it is said to deliver.

    Args:
        spec: Gives the path or the URL.
        timeout_s: How long a URL or a named pipe may be silent.

    Raises:
        SourceError: It cannot be opened or holds no video.
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
                self._pipe = PipeReader(Path(location), timeout_s)
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
        moving = [
            stream
            for stream in self.container.streams.video
            if not stream.disposition & Disposition.attached_pic  # a song's cover
            and stream.codec_context.codec.name not in _TEXT_ART
        ]
        if not moving:
            self.close()
            raise SourceError(f"{spec.name} holds no video stream: name a video file or stream")
        self.stream = moving[0]
        self.mode = _mode_of(self.stream)

    @property
    def has_end(self) -> bool:
        """Whether it announces how long it is: a recording does, a camera does not."""
        announced = self.stream.frames or self.container.duration is not None
        return bool(announced) or self.container.size > 0

    def reason(self, error: Exception) -> str:
        """Return the error's own words without its number and the address it repeats."""
        if isinstance(error, av.error.ExitError):
            return f"nothing came for {self._timeout_s:g} s"
        return str(getattr(error, "strerror", None) or error)

    def close(self) -> None:
        """Close the file or connection."""
        self.container.close()
        if self._pipe is not None:
            self._pipe.close()


def _mode_of(stream: VideoStream) -> Mode:
    codec = stream.codec_context
    tag = codec.codec_tag.strip("\0 ")
    return Mode(
        width=codec.width or None,
        height=codec.height or None,
        fps=float(stream.average_rate) if stream.average_rate else None,
        fourcc=_FOURCC.get(codec.codec.name) or (tag if tag.isprintable() else None) or None,
    )
