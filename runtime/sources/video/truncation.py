"""early_end: whether a recording ends before its header says that it does."""

from __future__ import annotations

import math
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from .packets import PacketLog

# Containers whose header says how long the recording is; others only let FFmpeg guess.
_SAY_DURATION = {"matroska,webm", "flv"}


def early_end(container: InputContainer, stream: VideoStream, log: PacketLog) -> str | None:
    """Say how the end falls short of what the header announces, if it does.

    Args:
        container: The recording, read to its end.
        stream: Its video.
        log: What came of it.
    """
    base = stream.time_base or Fraction(0)
    fps = float(stream.average_rate or 0) or math.inf
    length_s = float((log.end_pts - log.first_pts) * base)
    if stream.frames:
        # A trimmed MP4 keeps its count of frames, and only its duration is shortened. An AVI
        # in which a picture stands still counts frames that are not in it.
        duration = stream.duration if "mp4" in container.format.name else None
        ends_s = stream.frames / fps if duration is None else duration * base
        if log.count >= stream.frames or length_s + 0.5 / fps > ends_s:
            return None
        return f"the file announces {stream.frames} frames and ends after {log.count}"
    if container.format.name not in _SAY_DURATION:
        return None
    announced_s = _announced_s(container, stream)
    end_s = float(log.end_pts * base)
    if announced_s is None or end_s + 0.5 / fps > announced_s:
        return None
    return f"the file announces {announced_s:.2f} s and ends after {end_s:.2f} s"


def _announced_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Return where the header says that this stream ends; other streams may be longer."""
    clock = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (float(part) for part in clock)
    except ValueError:
        duration = container.duration
        alone = len(container.streams) == 1
        return duration / av.time_base if alone and duration is not None else None
    return (hours * 60 + minutes) * 60 + seconds
