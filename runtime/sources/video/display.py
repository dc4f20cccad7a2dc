"""Display: how the frames of one stream of video are meant to be seen, as it and they say."""

from __future__ import annotations

from fractions import Fraction

from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ...pixels.geometry import (
    AS_CODED,
    Geometry,
    display_matrix,
    orientation_of_matrix,
    sane_aspect,
)
from ...pixels.orientation import UPRIGHT, orientation_of_jpeg

# Pictures, one after another or one alone: what they say of their pixels is about print, and
# viewers ignore it.
_OF_PICTURES = {"image2", "mpjpeg", "mjpeg", "mjpeg_2000", "gif", "apng"}
_LONGEST_DELAY = 256  # packets; far more than any decoder holds back
_TURNS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # containers that may turn any video


class Display:
    """Finds the geometry of each frame of a stream, from what its container and its packets say.

    The container's aspect ratio of pixels counts for more than the codec's until that changes, as
    in mpv; a JPEG's own orientation counts for more than its container's.
    """

    def __init__(self, stream: VideoStream, container: str) -> None:
        codec = stream.codec_context
        self._codec, self.is_jpeg = codec, codec.name == "mjpeg"
        self._has_aspect = container not in _OF_PICTURES and not container.endswith("_pipe")
        # As an image file it is decoded, too: PyAV tells no mirroring of those.
        self.is_picture_file = codec.name in {"png", "webp"} and container.endswith("_pipe")
        self._coded_aspect = codec.sample_aspect_ratio
        self._aspect = sane_aspect(stream.sample_aspect_ratio) if self._has_aspect else 1.0
        self._aspects: dict[int | None, float] = {}  # of packets in the decoder, by their stamps
        self._jpeg_orientation = UPRIGHT
        # What H.264 itself says of its orientation is said with a key frame, and FFmpeg attaches it
        # to that alone.
        self._matrix: bytes | None = None
        # FFmpeg attaches the container's matrix to frames, and PyAV shows it nowhere else.
        self._of_container = None if container in _TURNS else UPRIGHT

    @property
    def is_known(self) -> bool:
        """Whether a JPEG need not be decoded by FFmpeg to know how its container turns it."""
        return self._of_container is not None or self._jpeg_orientation != UPRIGHT

    @property
    def before_decoding(self) -> Geometry:
        """What is known of a JPEG before it is decoded: its pixels' shape, and its turn if any."""
        orientation = self._jpeg_orientation
        if orientation == UPRIGHT and self._of_container is not None:
            orientation = self._of_container
        is_plain = orientation == UPRIGHT and self._aspect == 1
        return AS_CODED if is_plain else Geometry(orientation, self._aspect)

    @property
    def is_upright_container(self) -> bool:
        """Whether the container is of a kind that turns no video."""
        return self._of_container is not None and not self.is_jpeg

    def of_codec(self, codec: VideoCodecContext) -> None:
        """Look at another decoder from now on."""
        self._codec = codec

    def before_packet(self, data: bytes) -> None:
        """Look at a packet before it is decoded."""
        if self.is_jpeg:
            self._jpeg_orientation = orientation_of_jpeg(data)

    def after_packet(self, pts: int | None) -> None:
        """Look at the decoder after it took the packet of that time stamp."""
        if not self._has_aspect:
            return
        coded: Fraction | None = self._codec.sample_aspect_ratio
        if coded != self._coded_aspect:
            if self._coded_aspect is not None or self._aspect == 1:
                self._aspect = sane_aspect(coded)
            self._coded_aspect = coded
        if len(self._aspects) >= _LONGEST_DELAY:
            self._aspects.clear()
        self._aspects[pts] = self._aspect

    def geometry(self, frame: VideoFrame) -> Geometry:
        """Return how a frame is seen; ImageError where it is turned as nothing here can be."""
        orientation = self._jpeg_orientation
        if orientation == UPRIGHT:
            if self.is_jpeg and self._of_container is not None:
                orientation = self._of_container
            else:
                matrix = display_matrix(frame)
                if matrix is not None or frame.key_frame:
                    self._matrix = matrix
                if self._matrix is not None:
                    orientation = orientation_of_matrix(self._matrix)
                if self.is_jpeg:
                    self._of_container = orientation
        aspect = self._aspects.pop(frame.pts, self._aspect)
        is_plain = orientation == UPRIGHT and aspect == 1
        return AS_CODED if is_plain else Geometry(orientation, aspect)
