"""PacketDecoder: one packet of a video to the frames that FFmpeg, or a quicker decoder, gives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeAlias, cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from ...core.errors import ImageError
from ...core.lifecycle import Closing
from ...core.system.other_core import runs_first
from ...pixels.camera_formats import DIVISORS, reduced_from_jpeg
from ...pixels.files.image_files import picture_from_bytes
from ...pixels.orientation import Pixels
from ...pixels.yuv import bgr_from_video_frame, fitted_from_video_frame
from ..base import CaptureRequest
from .bare_end import BareEnd
from .codecs.bitstream import BitstreamValidator, PacketFacts
from .connection import FAILURES, Connection
from .containers.transport import TransportFile
from .display import Display

# Streams without a container: nothing says where a packet ends.
_BARE = {"h264", "hevc"}
_STRICT = {"err_detect": "crccheck+explode"}
_AFTER_A_CUT = {"err_detect": "crccheck"}
_ROUNDED = 128
_KEPT_BYTES = 48  # that a pixel may take of a video that becomes larger: 16 frames of 10 bits

Packet: TypeAlias = "av.Packet[av.VideoStream]"


class PacketDecoder(Closing):
    """Decodes the packets of a connection's video track, one at a time, in decoding order.

    A damaged packet is an ImageError: one that FFmpeg refuses, or a part of which is not there.
    """

    def __init__(self, connection: Connection, request: CaptureRequest, *, live: bool) -> None:
        self._connection, self._request = connection, request
        self._stream, self._limit = connection.stream, request.picture_limit
        self._cores = request.cores if live else 1  # who reads ahead has work for the others
        self._codec = codec = self._stream.codec_context
        container = connection.container.format.name
        # FFmpeg would rather show something than fail; a latent of a patched frame is a lie.
        self._size: tuple[int, int, str | None, int] | None = None
        self._bitstream = BitstreamValidator(codec.name, codec.extradata)
        self.check_size()
        # FFmpeg compares with sizes that it rounds up.
        most = max(
            (codec.height + _ROUNDED) * (codec.width + _ROUNDED),
            self._limit.most_bytes // _KEPT_BYTES,
        )
        self._options = {"max_pixels": str(most)}
        codec.options = self._options | _STRICT
        codec.copy_opaque = True  # a frame knows its packet, also where time stamps do not tell
        self._display = Display(self._stream, container)
        self._reads_bytes = self._bitstream.reads_packets or self._display.is_picture_file
        self._has_begun = False
        self._cut = False  # the packet that was asked about last
        self._is_fresh = True  # FFmpeg's decoder has got no packet
        self._first: Packet | None = None  # meanwhile, the first that the quick decoder took
        self._end: BareEnd | None = None
        self._transport: TransportFile | None = None
        if container in _BARE and not live:
            self._end = BareEnd(codec.name, codec.extradata)
        elif container == "mpegts" and connection.path is not None:
            self._transport = TransportFile(connection.path, self._stream.id)

    def close(self) -> None:
        """Close the file that is read a second time, if one is; the connection stays open."""
        if self._transport is not None:
            self._transport.close()

    def check_size(self) -> None:
        """ImageError where the frames that are kept to predict others take more than is allowed."""
        codec = self._codec
        kept = self._bitstream.kept_frames(codec.reorder_depth, alone=codec.codec.intra_only)
        size = codec.width, codec.height, codec.pix_fmt, kept
        if size == self._size or not codec.width or not codec.height:
            return
        bits = 24 if codec.format is None else codec.format.padded_bits_per_pixel
        self._limit.check((codec.width, codec.height), kept * bits / 8)
        self._size = size

    def packets(self) -> Iterator[Packet]:
        """Demultiplex the connection's packets."""
        packets = self._connection.packets()
        return packets if self._end is None else self._end.one_behind(packets)

    def bytes_of(self, packet: Packet) -> bytes:
        """Copy a packet's bytes; nothing of a codec of which only FFmpeg reads them."""
        return bytes(packet) if self._reads_bytes else b""

    def facts(self, packet: Packet, data: bytes) -> PacketFacts:
        """Say what a packet, whose bytes are `data`, is to others; each is asked about once."""
        facts = self._bitstream.facts(data, key=packet.is_keyframe)
        if self._end is not None:
            self._end.add(data, key=facts.entry)
        self._cut = self._is_cut(packet)
        return facts

    def has_begun(self, facts: PacketFacts) -> bool:
        """Whether decoding began before a packet, or can begin with it."""
        if not self._has_begun and (facts.idr or facts.entry or facts.renewing):
            self._has_begun = True
            if not facts.idr:
                # What follows a cut has frames forgotten that it does not hold: no damage.
                self._codec.options = self._options | _AFTER_A_CUT
        return self._has_begun

    def decode(self, packet: Packet, data: bytes) -> Sequence[VideoFrame]:
        """Decode one packet, whose bytes are `data`."""
        if self._cut:
            raise ImageError("frame is cut short")
        self.check_size()
        self._display.before_packet(data)
        taken = self._quickly(data)
        if taken is not None:
            if self._is_fresh:
                self._first = self._first or packet
            frame = VideoFrame.from_numpy_buffer(
                taken, format="gray" if taken.ndim == 2 else "bgr24"
            )
            frame.pts, frame.dts, frame.opaque = packet.pts, packet.dts, packet.opaque
            return [frame]
        if self._first is not None:
            # What is less high than announced, and the first that it sees, FFmpeg takes for a
            # field, and waits for the other.
            with contextlib.suppress(*FAILURES):
                self._codec.decode(self._first)
            self._first = None
        self._is_fresh = False
        return self._decode(packet)

    def rest(self) -> Sequence[VideoFrame]:
        """Decode what FFmpeg's decoder still holds."""
        return self._decode(None)

    def begin_anew(self) -> None:
        """Go on after `rest`; nothing is predicted from what was before.

        H.264 that was put together may, as after a cut, have frames forgotten that it does not
        hold, and an open decoder keeps how it takes that: there is a new one. But what a container
        says of orientation only its first decoder attaches to frames.
        """
        earlier = self._codec
        if earlier.name != "h264" or not self._display.is_upright_container:
            earlier.flush_buffers()
            return
        self._codec = cast("VideoCodecContext", av.CodecContext.create(earlier.name, "r"))
        self._codec.extradata, self._codec.copy_opaque = earlier.extradata, True
        reordered = {"has_b_frames": str(earlier.reorder_depth)}  # else it drops frames to learn it
        self._codec.options = self._options | _AFTER_A_CUT | reordered
        self._display.of_codec(self._codec)

    def image(self, frame: VideoFrame) -> Pixels:
        """Return a frame as it is seen: (H, W, 3) BGR, or fitted where a spec is given."""
        request, geometry = self._request, self._display.geometry(frame)
        if request.spec:
            return fitted_from_video_frame(
                frame, request.spec, geometry, request.untagged, self._full_shape(frame)
            )
        return bgr_from_video_frame(frame, geometry, request.untagged)

    def _full_shape(self, frame: VideoFrame) -> tuple[int, int] | None:
        """Return height and width of the JPEG that a frame is, where it was decoded smaller."""
        height, width = self._codec.height, self._codec.width
        is_reduced = self._display.is_jpeg and any(
            (frame.height * by, frame.width * by) == (height, width) for by in DIVISORS
        )
        return (height, width) if is_reduced else None

    def _decode(self, packet: Packet | None) -> Sequence[VideoFrame]:
        try:
            decoded = self._codec.decode(packet)
        except FAILURES as error:
            reason = self._connection.reason(error)
            raise ImageError(f"frame does not decode: {reason}") from error
        self._display.after_packet(None if packet is None else packet.pts)
        return decoded

    def _quickly(self, data: bytes) -> Pixels | None:
        """Decode a picture for a model without FFmpeg, where that is quicker or better."""
        codec, spec, display = self._codec, self._request.spec, self._display
        if spec is None:
            return None
        if display.is_picture_file:
            picture = picture_from_bytes(data, self._limit, spec.color)
            return np.ascontiguousarray(picture.pixels)
        if not display.is_jpeg or not display.is_known:
            return None
        # Fields of interlaced video are pictures of half the height; FFmpeg joins them.
        full = codec.height, codec.width
        geometry = display.before_decoding
        cores = self._cores if runs_first() else 1
        reduced = reduced_from_jpeg(data, spec, full, geometry, self._limit, cores=cores)
        return None if reduced is None else reduced.pixels

    def _is_cut(self, packet: Packet) -> bool:
        """Whether a part of the packet is not there."""
        if self._end is not None:
            return self._end.is_cut(packet)
        if self._transport is not None:
            return self._transport.is_cut(packet)
        return packet.is_corrupt
