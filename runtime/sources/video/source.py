"""VideoSource: files, named pipes and network streams, decoded by FFmpeg through PyAV."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import cast

import av
import av.error
import av.format
from av.video.frame import VideoFrame

from ...core.errors import CameraError, ImageError, SourceError
from ...core.frame import Frame, Gap
from ..base import AS_IT_COMES, CaptureRequest, FrameSource, silence_of
from ..pauses import HEARTBEAT, PauseWatch
from ..spec import SourceSpec
from ..thread_time import awake_ns
from .connection import FAILURES, Connection
from .containers.announcement import Announcement
from .decoder import PacketDecoder
from .media_clock import MediaClock
from .packets import Arrival, PacketLog
from .stream_clock import NS_PER_S, StreamClock

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

SILENT_NS = NS_PER_S // 10
"""Packets of a live stream may give no frame for so long before the reader is told of them."""


class VideoSource(FrameSource):
    """Every frame of a video, in order: BGR, or fitted pictures where a model's spec is given.

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
        self._decoder.close()
        self._connection.close()

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
        self._connection = Connection(self._spec, self._request)
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
        self.fps, self.silence_s = self._connection.mode.fps, self._connection.silence_s
        self.expected = self._stream.frames or None
        codec = self._stream.codec_context
        container = self._connection.container.format.name
        self._clock = StreamClock(
            opened_ns,
            own_stamps=container in _OWN_STAMPS,
            held_back=container == _MJPEG or (container in _HOLD_BACK and codec.name in _HELD_BACK),
        )
        try:
            self._decoder = PacketDecoder(self._connection, self._request, live=self.live)
        except ImageError as error:
            self._connection.close()
            kind = CameraError if self.live else SourceError
            problem = f"cannot read {self.name}"
            raise kind(error.clause(), context=problem, fix=error.fix) from error
        except BaseException:
            self._connection.close()
            raise
        if self.live:
            self._watch.enter_context(PauseWatch())
        self._media = MediaClock(
            self._stream.time_base, self._stream.average_rate, spliced=container in _CUT_FREELY
        )
        form = self._connection.container.format
        self._timed = container not in _UNTIMED and not form.flags & _NO_TIMES
        self._log = PacketLog(intra_only=codec.codec.intra_only, timed=self._timed)
        self._announcement = Announcement(
            self._connection.container, self._stream, self._connection.path
        )
        self._stopped, self._item_ns = False, time.monotonic_ns()
        self._items = self._decoded()

    def _decoded(self) -> Generator[Frame | Gap | tuple[str, int], None, None]:
        """Demultiplex and decode, one packet at a time; of a gap, its reason and Unix time."""
        connection, packets = self._connection, self._decoder.packets()
        failure: Exception | None = None
        while True:
            asked_ns, before = time.monotonic_ns(), awake_ns() if self.live else None
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
            if self.live and self._was_silent(asked_ns, came_ns):
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
        elif early := self._announcement.early_end(self._log, connection.read_to):
            yield early, time.time_ns()

    def _was_silent(self, asked_ns: int, came_ns: int) -> bool:
        """Whether nothing came for too long, without what this process itself stood still."""
        waited_ns = came_ns - asked_ns - HEARTBEAT.stood_ns(asked_ns, came_ns)
        return waited_ns >= self._connection.silence_s * NS_PER_S

    def _came_ns(
        self,
        packet: av.Packet[av.VideoStream],
        asked_ns: int,
        now_ns: int,
        before: tuple[int, int],
    ) -> int:
        """Return when a packet came that was asked for at `asked_ns`, `before` as it was awake."""
        stamp, base = packet.pts, self._stream.time_base
        stamp_s = None if stamp is None or base is None else float(stamp * base)
        busy_ns, preempted = (after - was for after, was in zip(awake_ns(), before, strict=True))
        if preempted:  # how much of it was waiting is not known
            busy_ns = now_ns - asked_ns
        pause = HEARTBEAT.between(asked_ns, now_ns)
        came_ns = self._clock.came_ns(asked_ns, now_ns, stamp_s, busy_ns, pause)
        return min(came_ns, self._connection.first_byte_ns or came_ns)

    def _items_of(
        self, packet: av.Packet[av.VideoStream], came_ns: int
    ) -> Iterator[Frame | Gap | tuple[str, int]]:
        """Decode one packet; where nothing comes of a live stream's packets, say that they come."""
        for item in self._frames(packet, came_ns):
            self._item_ns = time.monotonic_ns()
            yield item
        if self.live and time.monotonic_ns() - self._item_ns > SILENT_NS:
            self._item_ns = time.monotonic_ns()
            has_key = self._log.has_key
            why = "packets come, and none gives a frame" if has_key else "no key frame has come"
            yield Gap(self._index, why, time.time_ns(), counts=False)

    def _frames(
        self, packet: av.Packet[av.VideoStream] | None, came_ns: int
    ) -> Iterator[Frame | tuple[str, int]]:
        """Decode one packet, or what the decoder still holds, to frames and the gaps between."""
        log, decoder = self._log, self._decoder
        decoded: Sequence[VideoFrame] = ()
        latest = log.flushed(came_ns)
        try:
            if packet is None:
                decoded = decoder.rest()
            else:
                data = decoder.bytes_of(packet)
                facts = decoder.facts(packet, data)
                packet.opaque = latest = log.arrived(packet, came_ns, facts)
                if not decoder.has_begun(facts):
                    return  # nothing can be made of it, and the decoder shall not have seen it
                if flaw := facts.flaw or log.missing_link(latest):
                    log.lose(latest, flaw, missing=not facts.undecodable)
                if facts.broken:
                    # What was before is of another time: the decoder shall not predict from it.
                    yield from self._undamaged(decoder.rest(), latest)
                    decoder.begin_anew()
                if not facts.undecodable:
                    decoded = decoder.decode(packet, data)
        except ImageError as error:
            if packet is not None:
                log.lose(latest, error.clause())
                if self.live:
                    yield from log.overdue_gaps()
        yield from self._undamaged(decoded, latest)

    def _undamaged(
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
                    yield self._frame(frame, log.as_shown(origin))
                except ImageError as error:
                    yield error.clause(), origin.captured_ns
            elif origin.key is not None:
                yield "frame is predicted from a damaged one", origin.captured_ns

    def _frame(self, frame: VideoFrame, origin: Arrival) -> Frame:
        decoded_ns = time.monotonic_ns()
        image = self._decoder.image(frame)
        done_ns = time.monotonic_ns()
        convert_ns = done_ns - decoded_ns if self._request.spec else 0
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
            is_fitted=self._request.spec is not None,
        )
