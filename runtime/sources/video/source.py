"""VideoSource: files, named pipes and network streams, decoded by FFmpeg through PyAV."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import cast

import av
import av.error
import av.format
import numpy as np
from av.video.frame import VideoFrame

from ...core.errors import CameraError, ImageError
from ...core.frame import Frame, Gap
from ...pixels.camera_formats import grey_from_jpeg
from ...pixels.convert import Luma
from ...pixels.image_files import picture_from_bytes
from ...pixels.picture import PictureLimit
from ...pixels.yuv import bgr_from_video_frame, luma_from_video_frame
from ..base import AS_IT_COMES, CaptureRequest, FrameSource, silence_of
from ..pauses import HEARTBEAT, PauseWatch
from ..spec import SourceSpec
from .announcement import Announcement
from .bare_end import BareEnd
from .codecs.bitstream import BitstreamValidator
from .connection import FAILURES, Connection
from .display import Display
from .media_clock import MediaClock
from .packets import Arrival, PacketLog
from .stream_clock import NS_PER_S, StreamClock
from .transport import TransportFile

# Formats whose time stamps are the sender's own; for others FFmpeg makes them up.
_OWN_STAMPS = {"rtsp", "mpegts", "flv", "matroska,webm"}
# A packet of these codecs in these formats is handed over when the next one begins to come.
_HOLD_BACK = {"rtsp", "mpegts", "h264", "hevc", "m4v", "mpegvideo", "mpeg"}
_HELD_BACK = {"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video"}
_MJPEG = "mjpeg"  # the bare pictures one after another, of which none says how long it is
# Programmes of these may be cut anywhere; time stamps go on as they were.
_CUT_FREELY = {"mpegts", "mpeg"}
# Packets of these are in decoding order; time stamps are made up by FFmpeg, as for raw streams.
_UNTIMED = {"avi"}
_NO_TIMES = cast("int", av.format.Flags.no_timestamps.value)

TELL_NS = NS_PER_S // 10
"""Packets of a live stream may give no frame for so long before the reader is told of them."""


def _usage() -> tuple[int, int]:
    """Return this thread's processor time in ns, and how often its core was taken from it."""
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return round((used.ru_utime + used.ru_stime) * NS_PER_S), used.ru_nivcsw


class VideoSource(FrameSource):
    """Every frame of a video, in order: BGR, or fitted luma where a model's spec is given.

    A frame's time is that at which the packet came that it was decoded from; `StreamClock` finds
    out what came late. Damage that the decoder notices is never hidden: a packet that does
    not decode, a frame that the decoder patched, frames predicted from either, and an end that
    comes before the announced one are gaps. (Most codecs carry no checksum, and some altered bytes
    decode without complaint.) A live stream that is joined half way starts at its first key frame;
    what comes before it are gaps that do not count. The request's time-out holds for URLs and
    pipes.
    """

    def __init__(self, spec: SourceSpec, request: CaptureRequest = AS_IT_COMES) -> None:
        self._spec, self._request = spec, request
        self._index, self._watch = 0, contextlib.ExitStack()
        self._open()

    def read(self) -> Frame | Gap | None:
        """Return the next frame in display order, or a gap where one is damaged."""
        for item in self._items:
            if isinstance(item, Gap):
                return item
            self._index += 1
            return item if isinstance(item, Frame) else Gap(self._index - 1, *item)
        return None

    @property
    def remarks(self) -> list[str]:
        """Which of several video tracks is read."""
        remark = self._connection.remark
        return [] if remark is None else [f"{self.name}: {remark}"]

    def close(self) -> None:
        """Close the file or connection."""
        self._watch.close()
        try:
            self._items.close()
        except ValueError:
            # Another thread still waits for FFmpeg, which cannot be interrupted, and to close what
            # it reads would be worse: it gives up by itself after the time-out.
            return
        self._connection.close()
        if self._transport is not None:
            self._transport.close()

    def interrupt(self) -> None:
        """Let `read` return None once a packet comes or the time-out has passed."""
        self._stopped = True
        self._connection.interrupt()

    def reopen(self) -> None:
        """Connect again, or raise SourceError."""
        self.close()
        self._open()

    def _open(self) -> None:
        opened_ns = time.monotonic_ns()
        self._connection = Connection(self._spec, self._request.timeout_s, self._request.track)
        try:
            self._request.check(self._spec.name, self._connection.mode)
        except CameraError:
            self._connection.close()
            raise
        self._stream = self._connection.stream
        if self._spec.is_recording is None:  # what was a camera once is not one recording later
            self._spec = replace(self._spec, has_end=self._connection.has_end)
        self._spec = replace(self._spec, transport=self._connection.transport)
        super().__init__(self._spec)
        if self.live:
            self._watch.enter_context(PauseWatch())
        self.fps, self.silence_s = self._connection.mode.fps, self._connection.silence_s
        self.expected = self._stream.frames or None
        codec = self._stream.codec_context
        # FFmpeg would rather show something than fail; a latent of a patched frame is a lie.
        codec.options = {"err_detect": "crccheck+explode"}
        codec.copy_opaque = True  # a frame knows its packet, also where time stamps do not tell
        container = self._connection.container.format.name
        self._clock = StreamClock(
            opened_ns,
            own_stamps=container in _OWN_STAMPS,
            held_back=container == _MJPEG or (container in _HOLD_BACK and codec.name in _HELD_BACK),
        )
        self._display = Display(self._stream, container)
        self._bitstream = BitstreamValidator(codec.name, codec.extradata)
        self._media = MediaClock(
            self._stream.time_base, self._stream.average_rate, spliced=container in _CUT_FREELY
        )
        form = self._connection.container.format
        self._timed = container not in _UNTIMED and not form.flags & _NO_TIMES
        self._log = PacketLog(intra_only=codec.codec.intra_only, timed=self._timed)
        path = self._connection.path
        self._announcement = Announcement(self._connection.container, self._stream, path)
        self._transport: TransportFile | None = None
        bare = container == "hevc" and not self.live
        self._end = BareEnd(codec.name, codec.extradata) if bare else None
        self._last: av.Packet[av.VideoStream] | None = None  # set once it is known to be the last
        self._marked = False  # FFmpeg marked the packet before
        self._has_begun = False  # the decoder has got a packet
        self._is_fresh = True  # FFmpeg's decoder has got none, and the quick one perhaps the first
        self._first: av.Packet[av.VideoStream] | None = None
        if container == "mpegts" and path is not None:
            self._transport = TransportFile(path, self._stream.id)
        self._stopped, self._told_ns = False, time.monotonic_ns()
        self._items = self._decoded()

    def _decoded(self) -> Generator[Frame | Gap | tuple[str, int], None, None]:
        """Demultiplex and decode, one packet at a time; of a gap, its reason and Unix time."""
        connection = self._connection
        packets = connection.packets() if self._end is None else self._one_ahead()
        failure: Exception | None = None
        while True:
            asked_ns, before = time.monotonic_ns(), _usage() if self.live else None
            try:
                packet = next(packets, None)
            except FAILURES as error:
                failure = error
                break
            if self._stopped:
                return
            if packet is None:
                break
            came_ns = time.monotonic_ns()
            waited_ns = came_ns - asked_ns - HEARTBEAT.stood_ns(asked_ns, came_ns)
            if self.live and waited_ns >= connection.silence_s * 1e9:
                # FFmpeg hands on what it held, as old as the silence was long.
                failure = TimeoutError(silence_of(connection.silence_s))
                break
            if packet.size:
                if before is not None:
                    came_ns = self._came_ns(packet, asked_ns, came_ns, before)
                yield from self._items_of(packet, came_ns)
        if not self.live or not isinstance(failure, av.error.ExitError | TimeoutError):
            yield from self._frames(None, time.monotonic_ns())
        yield from self._log.gaps_before(None)
        if self.live:
            reason = connection.reason(failure) if failure else "the stream ended"
            if (stood_ns := HEARTBEAT.stood_ns(asked_ns, time.monotonic_ns())) > NS_PER_S:
                reason += f"; this process itself stood still for {stood_ns / NS_PER_S:.1f} s"
            raise CameraError(reason, context=f"lost {self.name} after {self._index} frames") from (
                None if self._spec.kind == "url" else failure
            )  # PyAV's would repeat the URL
        if failure:
            yield f"reading failed: {connection.reason(failure)}", time.time_ns()
        elif early := self._announcement.early_end(self._log):
            yield early, time.time_ns()

    def _one_ahead(self) -> Iterator[av.Packet[av.VideoStream]]:
        """Demultiplex, and hold each packet back until it is known whether it is the last."""
        held: av.Packet[av.VideoStream] | None = None
        failure: Exception | None = None
        try:
            for packet in self._connection.packets():
                if packet.size:
                    if held is not None:
                        yield held
                    held = packet
        except FAILURES as error:
            failure = error
        self._last = held
        if held is not None:
            yield held
        if failure is not None:
            raise failure

    def _came_ns(
        self,
        packet: av.Packet[av.VideoStream],
        asked_ns: int,
        now_ns: int,
        before: tuple[int, int],
    ) -> int:
        """Return when a packet came that was asked for at `asked_ns`, `before` being the usage."""
        stamp, base = packet.pts, self._stream.time_base
        stamp_s = None if stamp is None or base is None else float(stamp * base)
        busy_ns, preempted = (after - was for after, was in zip(_usage(), before, strict=True))
        if preempted:  # how much of it was waiting cannot be known
            busy_ns = now_ns - asked_ns
        pause = HEARTBEAT.between(asked_ns, now_ns)
        came_ns = self._clock.came_ns(asked_ns, now_ns, stamp_s, busy_ns, pause)
        return min(came_ns, self._connection.first_byte_ns or came_ns)

    def _items_of(
        self, packet: av.Packet[av.VideoStream], came_ns: int
    ) -> Iterator[Frame | Gap | tuple[str, int]]:
        """Decode one packet; where nothing comes of a live stream's packets, say that they come."""
        for item in self._frames(packet, came_ns):
            self._told_ns = time.monotonic_ns()
            yield item
        if self.live and time.monotonic_ns() - self._told_ns > TELL_NS:
            self._told_ns = time.monotonic_ns()
            has_key = self._log.has_key
            why = "packets come, and none gives a frame" if has_key else "no key frame has come"
            yield Gap(self._index, why, time.time_ns(), counts=False)

    def _frames(
        self, packet: av.Packet[av.VideoStream] | None, came_ns: int
    ) -> Iterator[Frame | tuple[str, int]]:
        """Decode one packet, or what the decoder still holds, to frames and the gaps between."""
        log = self._log
        decoded: Sequence[VideoFrame] = ()
        latest = log.flushed(came_ns)
        try:
            if packet is None:
                decoded = self._decode(None)
            else:
                data = bytes(packet)
                facts = self._bitstream.facts(data, key=packet.is_keyframe)
                if self._end is not None:
                    self._end.add(data, key=facts.entry)
                packet.opaque = latest = log.arrived(packet, came_ns, facts)
                if not self._has_begun:
                    if not (facts.idr or facts.entry or facts.renewing):
                        return  # nothing can be made of it, and the decoder shall not have seen it
                    self._has_begun = True
                    if not facts.idr:
                        # What follows a cut has frames forgotten that it does not hold: no damage.
                        self._stream.codec_context.options = {"err_detect": "crccheck"}
                if flaw := facts.flaw or log.missing_link(latest):
                    log.lose(latest, flaw, missing=not facts.undecodable)
                if facts.broken:
                    # What was before is of another time: the decoder shall not predict from it.
                    yield from self._told(self._decode(None), latest)
                    self._stream.codec_context.flush_buffers()
                if not facts.undecodable:
                    decoded = self._decode(packet, data)
        except ImageError as error:
            if packet is not None:
                log.lose(latest, error.clause())
                if self.live:
                    yield from log.overdue_gaps()
        yield from self._told(decoded, latest)

    def _told(
        self, decoded: Sequence[VideoFrame], latest: Arrival
    ) -> Iterator[Frame | tuple[str, int]]:
        """Hand on each frame that is as recorded, and the gaps before it."""
        log = self._log
        for frame in decoded:
            origin = frame.opaque if isinstance(frame.opaque, Arrival) else latest
            if not log.take(origin):
                continue  # its gap is out already
            yield from log.gaps_before(origin)
            if log.is_lost(origin):
                continue
            if frame.is_corrupt:
                log.lose(origin, "frame is damaged")
                yield from log.gaps_before(origin)
            elif not log.spoiled(origin):
                try:
                    yield self._whole(frame, origin)
                except ImageError as error:
                    yield error.clause(), origin.captured_ns
            elif origin.key is not None:
                yield "frame is predicted from a damaged one", origin.captured_ns

    def _decode(
        self, packet: av.Packet[av.VideoStream] | None, data: bytes = b""
    ) -> Sequence[VideoFrame]:
        """Decode one packet, or what the decoder still holds; ImageError for a damaged one."""
        if packet is not None:
            if self._is_cut(packet):
                raise ImageError("frame is cut short")
            self._display.heed_packet(data)
            grey = self._grey(data)
            if grey is not None:
                if self._is_fresh:
                    self._first = self._first or packet
                frame = VideoFrame.from_numpy_buffer(grey, format="gray")
                frame.pts, frame.dts, frame.opaque = packet.pts, packet.dts, packet.opaque
                return [frame]
        try:
            if self._is_fresh and packet is not None:
                self._is_fresh = False
                if self._first is not None:
                    # What is less high than announced, and the first that it sees, it takes for a
                    # field, and waits for the other.
                    with contextlib.suppress(*FAILURES):
                        self._stream.decode(self._first)
                self._first = None
            decoded = self._stream.decode(packet)
        except FAILURES as error:
            reason = self._connection.reason(error)
            raise ImageError(f"frame does not decode: {reason}") from error
        self._display.heed_decoded(None if packet is None else packet.pts)
        return decoded

    def _grey(self, data: bytes) -> Luma | None:
        """Decode a picture to grey for a model without FFmpeg, where that is quicker or better."""
        codec, spec, display = self._stream.codec_context, self._request.spec, self._display
        if spec is None:
            return None
        if display.is_picture_file:
            picture = picture_from_bytes(data, PictureLimit(self._request.max_picture))
            return np.ascontiguousarray(picture.luma)
        if codec.name != "mjpeg" or not display.is_known:
            return None
        # Fields of interlaced video are pictures of half the height; FFmpeg joins them.
        return grey_from_jpeg(data, spec, (codec.height, codec.width), display.shape)

    def _is_cut(self, packet: av.Packet[av.VideoStream]) -> bool:
        """Whether a part of the packet is not there."""
        if self._end is not None:
            return packet is self._last and self._end.is_cut()
        if self._transport is None:
            return packet.is_corrupt
        marked, self._marked = self._marked or packet.is_corrupt, packet.is_corrupt
        return (marked or self._transport.is_last(packet.pos)) and not self._transport.whole(
            packet.pos
        )

    def _whole(self, frame: VideoFrame, origin: Arrival) -> Frame:
        decoded_ns, spec = time.monotonic_ns(), self._request.spec
        geometry = self._display.geometry(frame)
        if spec:
            image = luma_from_video_frame(frame, spec, geometry, self._request.untagged)
        else:
            image = bgr_from_video_frame(frame, geometry, self._request.untagged)
        done_ns = time.monotonic_ns()
        convert_ns = done_ns - decoded_ns if spec else 0
        stamp, begin = (frame.pts, self._log.begin_pts) if self._timed else (None, None)
        return Frame(
            image=image,
            index=self._index,
            captured_ns=origin.captured_ns,
            grabbed_ns=origin.grabbed_ns,
            capture_ns=done_ns - origin.grabbed_ns - convert_ns,
            media_s=None if self.live else self._media.position_s(stamp, frame.dts, begin),
            clock="packet",
            convert_ns=convert_ns,
        )
