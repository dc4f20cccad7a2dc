"""VideoSource: files and network streams, decoded by FFmpeg through PyAV."""

from __future__ import annotations

import time
from collections.abc import Generator

import av
import av.error
import numpy as np

from .errors import CameraError, SourceError
from .frames import Frame, Gap
from .source import FrameSource

TIMEOUT_S = 5.0


class VideoSource(FrameSource):
    """Every frame of a video, in order, converted to BGR.

    A frame's time is that of the packet it was decoded from, stamped when the packet arrived
    and before it was decoded. Damage is never hidden: a packet that does not decode, a frame
    that the decoder patched, and an end that comes before the announced one are gaps.

    Args:
        location: A path, or a URL that FFmpeg reads.
        name: What to call it in messages, without credentials.
        is_url: Connect with a timeout, and let the decoder carry on after transmission errors.

    Raises:
        SourceError: It cannot be opened or holds no video.
    """

    def __init__(self, location: str, *, name: str, is_url: bool) -> None:
        self.name = name
        options = {"rtsp_transport": "tcp"} if location.startswith("rtsp") else {}
        try:
            self._container = av.open(location, timeout=TIMEOUT_S, options=options)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            advice = "check the address and that the server runs" if is_url else "check the file"
            raise SourceError(f"cannot open {name}: {_reason(error)}; {advice}") from error
        if not self._container.streams.video:
            self._container.close()
            raise SourceError(f"{name} holds no video stream: name a video file or stream")
        self._stream = self._container.streams.video[0]
        rate = self._stream.average_rate
        self.fps = float(rate) if rate else None
        self.expected = self._stream.frames or None
        # A recording served over the network has an end; a camera has none.
        self.live = is_url and self._container.duration is None
        if not is_url:
            # FFmpeg would rather show something than fail; a latent of a patched frame is a lie.
            self._stream.codec_context.options = {"err_detect": "explode"}
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
        arrivals: dict[int | None, tuple[int, int]] = {}
        packets = self._container.demux(self._stream)
        index = packet_count = 0
        last_s = 0.0
        counted_damage = False
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                if self.live:
                    raise CameraError(
                        f"lost {self.name} after {index} frames: {_reason(error)}; "
                        "check the connection and start again"
                    ) from error
                yield Gap(index, f"reading failed: {_reason(error)}", time.time_ns())
                return
            if packet is None:
                break
            captured_ns, grabbed_ns = time.time_ns(), time.monotonic_ns()
            if packet.size:
                packet_count += 1
                arrivals[packet.pts] = (captured_ns, grabbed_ns)
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, OSError) as error:
                yield Gap(index, f"frame does not decode: {_reason(error)}", captured_ns)
                index += 1
                counted_damage = True
                continue
            for frame in frames:
                if frame.is_corrupt:
                    if not counted_damage:
                        yield Gap(index, "frame is damaged", captured_ns)
                        index += 1
                    counted_damage = False
                    continue
                own_captured_ns, own_grabbed_ns = arrivals.pop(frame.pts, (captured_ns, grabbed_ns))
                image = frame.to_ndarray(format="bgr24")
                last_s = frame.time or last_s
                yield Frame(
                    image=np.ascontiguousarray(image),
                    index=index,
                    captured_ns=own_captured_ns,
                    grabbed_ns=own_grabbed_ns,
                    capture_ns=time.monotonic_ns() - grabbed_ns,
                    media_s=frame.time,
                )
                index += 1
        if self.live:
            raise CameraError(
                f"lost {self.name} after {index} frames: the stream ended; "
                "check the camera and start again"
            )
        if early := self._early_end(packet_count, last_s):
            yield Gap(index, early, time.time_ns())

    def _early_end(self, packet_count: int, last_s: float) -> str | None:
        """Say how the end falls short of what the header announces, if it does."""
        if self.expected is not None:
            if packet_count < self.expected:
                return f"the file announces {self.expected} frames and ends after {packet_count}"
            return None
        duration = self._container.duration
        only_video = len(self._container.streams) == 1
        if duration is None or not only_video or self.fps is None:
            return None
        start = self._container.start_time or 0
        announced_s = (start + duration) / 1e6
        # Two frame periods of slack: containers disagree on whether the last one counts.
        if last_s + 2 / self.fps < announced_s:
            return f"the file announces {announced_s:.2f} s and ends after {last_s:.2f} s"
        return None


def _reason(error: Exception) -> str:
    """Return the error's own words without its number and without the address it repeats."""
    return str(getattr(error, "strerror", None) or error)
