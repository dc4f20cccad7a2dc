"""VideoSource: files and network streams, decoded by FFmpeg through PyAV."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Generator, Iterator
from fractions import Fraction

import av
import av.error
import numpy as np
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from .damage import Arrival, PacketLog
from .errors import CameraError, SourceError
from .frames import Frame, Gap
from .source import FrameSource

TIMEOUT_S = 5.0
_FAILURES = (av.error.FFmpegError, OSError, ValueError)
# FFmpeg renders these as video, and takes any .txt file for one.
_TEXT_ART = {"ansi", "bintext", "xbin", "idf"}
# Containers whose header says how long the recording is; others only let FFmpeg guess.
_SAY_DURATION = {"matroska,webm", "flv"}


class VideoSource(FrameSource):
    """Every frame of a video, in order, converted to BGR.

    A frame's time is that of the packet it was decoded from, stamped when the packet arrived
    and before it was decoded. Damage that the decoder notices is never hidden: a packet that does
    not decode, a frame that the decoder patched, frames predicted from either, and an end that
    comes before the announced one are gaps. (Most codecs carry no checksum, and some altered bytes
    decode without complaint.) A live stream that is joined half way starts at its first whole
    frame.

    Args:
        location: A path, or a URL that FFmpeg reads.
        name: What to call it in messages, without credentials.
        is_url: Connect with a timeout; a stream without an announced end is live.

    Raises:
        SourceError: It cannot be opened or holds no video.
    """

    def __init__(self, location: str, *, name: str, is_url: bool) -> None:
        self.name = name
        options = {"rtsp_transport": "tcp"} if location.startswith("rtsp") else {}
        # Without the prefix, what stands before a colon in a file's name is taken for a protocol.
        address = location if is_url else f"file:{location}"
        try:
            self._container = av.open(address, timeout=TIMEOUT_S, options=options)
        except _FAILURES as error:
            advice = "check the address and that the server runs" if is_url else "check the file"
            raise SourceError(f"cannot open {name}: {_reason(error)}; {advice}") from error
        moving = [
            stream
            for stream in self._container.streams.video
            if not stream.disposition & Disposition.attached_pic  # a song's cover
            and stream.codec_context.codec.name not in _TEXT_ART
        ]
        if not moving:
            self._container.close()
            raise SourceError(f"{name} holds no video stream: name a video file or stream")
        self._stream = moving[0]
        codec = self._stream.codec_context
        rate = self._stream.average_rate
        self.fps = float(rate) if rate else None
        self.expected = self._stream.frames or None
        # A recording served over the network has an end; a camera has none.
        has_end = self.expected or self._container.duration is not None
        self.live = is_url and not has_end and self._container.size <= 0
        # FFmpeg would rather show something than fail; a latent of a patched frame is a lie.
        codec.options = {"err_detect": "crccheck+explode"}
        self._reformatter = VideoReformatter()  # keeps FFmpeg's conversion context
        self._log = PacketLog(intra_only=codec.codec.intra_only)
        self._gaps: list[tuple[float, int, str, int]] = []
        self._index = 0
        self._items = self._decoded()

    def read(self) -> Frame | Gap | None:
        """Return the next frame in display order, or a gap where one is damaged."""
        return next(self._items, None)

    def close(self) -> None:
        """Close the file or connection."""
        self._items.close()
        self._container.close()

    def _decoded(self) -> Generator[Frame | Gap, None, None]:
        """Demultiplex and decode, one packet at a time."""
        packets = self._container.demux(self._stream)
        failure: Exception | None = None
        while True:
            try:
                packet = next(packets, None)
            except _FAILURES as error:
                failure = error
                break
            if packet is None:
                break
            if packet.size:
                yield from self._frames(packet)
        yield from self._frames(None)
        yield from self._gaps_before(math.inf)
        if self.live:
            reason = _reason(failure) if failure else "the stream ended"
            raise CameraError(
                f"lost {self.name} after {self._index} frames: {reason}; "
                "check the connection and start again"
            ) from failure
        if failure:
            yield self._gap(f"reading failed: {_reason(failure)}", time.time_ns())
        elif early := self._early_end():
            yield self._gap(early, time.time_ns())

    def _frames(self, packet: av.Packet[av.VideoStream] | None) -> Iterator[Frame | Gap]:
        """Decode one packet, or what the decoder still holds, to frames and the gaps between."""
        arrival = None if packet is None else self._log.arrived(packet)
        started_ns = time.monotonic_ns()
        decoded: list[VideoFrame] = []
        reason = None
        if packet is not None and packet.is_corrupt:
            reason = "frame is cut short"
        else:
            try:
                decoded = self._stream.decode(packet)
            except _FAILURES as error:
                reason = f"frame does not decode: {_reason(error)}"
        if reason and packet is not None and arrival is not None:
            self._log.damaged(arrival)
            self._note_gap(packet.pts, reason, arrival)
        decode_ns = time.monotonic_ns() - started_ns
        for frame in decoded:
            if self._log.is_missing(frame):
                continue
            yield from self._gaps_before(-math.inf if frame.pts is None else frame.pts)
            origin = self._log.origin(frame) or arrival
            if origin is None:
                origin = Arrival(self._log.count, 0, time.time_ns(), started_ns)
            if frame.is_corrupt or self._log.is_damaged(origin):
                if self._log.damaged(origin):  # else its gap is out already
                    yield from self._unless_joining("frame is damaged", origin.captured_ns)
            elif self._log.spoiled(origin):
                reason = "frame is predicted from a damaged one"
                yield from self._unless_joining(reason, origin.captured_ns)
            else:
                yield self._whole(frame, origin, decode_ns)

    def _whole(self, frame: VideoFrame, origin: Arrival, decode_ns: int) -> Frame:
        started_ns = time.monotonic_ns()
        base = self._stream.time_base  # a frame that was flushed does not know it
        colour = self._reformatter.reformat(frame, format="bgr24")
        image = np.ascontiguousarray(colour.to_ndarray(), np.uint8)
        self._index += 1
        return Frame(
            image=image,
            index=self._index - 1,
            captured_ns=origin.captured_ns,
            grabbed_ns=origin.grabbed_ns,
            capture_ns=decode_ns + time.monotonic_ns() - started_ns,
            media_s=float(frame.pts * base) if frame.pts is not None and base else None,
        )

    def _note_gap(self, pts: int | None, reason: str, arrival: Arrival) -> None:
        """Keep a gap until its turn: it is reported where its frame would have been shown."""
        order = -math.inf if pts is None else pts
        heapq.heappush(self._gaps, (order, arrival.number, reason, arrival.captured_ns))

    def _gaps_before(self, order: float) -> Iterator[Gap]:
        for pts, arrival in self._log.overtaken(order):
            self._note_gap(pts, "frame is missing after a damaged one", arrival)
        while self._gaps and self._gaps[0][0] <= order:
            _, _, reason, captured_ns = heapq.heappop(self._gaps)
            yield from self._unless_joining(reason, captured_ns)

    def _unless_joining(self, reason: str, captured_ns: int) -> Iterator[Gap]:
        if self._index or not self.live:
            yield self._gap(reason, captured_ns)

    def _gap(self, reason: str, captured_ns: int) -> Gap:
        self._index += 1
        return Gap(self._index - 1, reason, captured_ns)

    def _early_end(self) -> str | None:
        """Say how the end falls short of what the header announces, if it does."""
        base = self._stream.time_base or Fraction(0)
        half_frame_s = 0.5 / (self.fps or math.inf)
        length_s = float((self._log.end_pts - self._log.first_pts) * base)
        if self.expected is not None:
            # A trimmed MP4 keeps its count of frames, and only its duration is shortened. An AVI
            # in which a picture stands still counts frames that are not in it.
            duration = self._stream.duration if "mp4" in self._container.format.name else None
            ends_s = self.expected / (self.fps or math.inf) if duration is None else duration * base
            if self._log.count >= self.expected or length_s + half_frame_s > ends_s:
                return None
            return f"the file announces {self.expected} frames and ends after {self._log.count}"
        if self._container.format.name not in _SAY_DURATION:
            return None
        announced_s = self._announced_s()
        end_s = float(self._log.end_pts * base)
        if announced_s is None or end_s + half_frame_s > announced_s:
            return None
        return f"the file announces {announced_s:.2f} s and ends after {end_s:.2f} s"

    def _announced_s(self) -> float | None:
        """Return where the header says that this stream ends; other streams may be longer."""
        clock = self._stream.metadata.get("DURATION", "").split(":")
        try:
            hours, minutes, seconds = (float(part) for part in clock)
        except ValueError:
            duration = self._container.duration
            alone = len(self._container.streams) == 1
            return duration / av.time_base if alone and duration is not None else None
        return (hours * 60 + minutes) * 60 + seconds


def _reason(error: Exception) -> str:
    """Return the error's own words without its number and without the address it repeats."""
    if isinstance(error, av.error.ExitError):
        return f"nothing came for {TIMEOUT_S:g} s"
    return str(getattr(error, "strerror", None) or error)
