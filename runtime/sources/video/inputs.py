"""What FFmpeg reads: a file, a named pipe or a body, with a bound on what one frame may take.

FFmpeg itself opens sockets for RTSP, RTMP and UDP only. All else it gets as bytes: no protocol is
left to it, and no format that leads to other addresses or files.
"""

from __future__ import annotations

import io
import os
import select
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from av.format import formats_available

from ...core.errors import SourceError
from ...core.spec import Color
from ...pixels.files.image_files import picture_from_bytes
from ...pixels.files.image_kinds import (
    IMAGE_SUFFIXES,
    JPEG_START,
    KIND_BYTES,
    ImageKind,
    counts_others,
    kind_of_bytes,
)
from ...pixels.picture import PictureLimit
from ..network.hls import FolderFetch, HlsReader
from ..network.http_body import HttpBody, HttpClient, Patience
from ..network.multipart import MultipartReader
from ..network.reach import HLS, playlist_kind
from ..network.rtsp_check import check_rtsp
from ..spec import SourceSpec
from .containers.mp4_index import IndexLimit

_OPEN_OTHERS = {
    *("hls", "dash", "sdp", "rtp", "rtsp", "sap", "concat", "imf", "webm_dash_manifest"),
    *("lavfi", "avisynth", "vapoursynth", "vobsub", "libopenmpt"),
}
"""Formats that open addresses, other files or programs that a file names."""
_FILE_FORMATS = ",".join(sorted(formats_available - _OPEN_OTHERS))
_NETWORK_FORMATS = (
    "mov,mp4,matroska,webm,mpegts,flv,live_flv,avi,ogg,nut,asf,mpeg,mpegvideo,m4v,h264,hevc,obu,"
    "ivf,yuv4mpegpipe,mjpeg,mpjpeg,jpeg_pipe,png_pipe,bmp_pipe,webp_pipe,"
    "pbm_pipe,pgm_pipe,ppm_pipe,mxf,dv,dhav,av1,image2pipe"
)
_NEVER_FILMS: set[ImageKind] = {"HEIF", "AVIF"}
_ONLY_AS_FILES: set[ImageKind] = {*_NEVER_FILMS, "TIFF", "JPEG2000", "GIF"}
_JPEG_HEAD = 1 << 18  # before the scan: EXIF with its thumbnail, XMP, profiles
_MOVES, _PNG_HEAD = b"acTL", 1 << 12  # it lies near the start
_NOTHING = {"protocol_whitelist": "none"}
# For RTSP, frames are not watched for their rate: they would come late, all at once.
_RTSP = {"fpsprobesize": "0", "format_whitelist": "rtsp"}
_MOST_BYTES, _MOST_NETWORK_BYTES = 128 << 20, 64 << 20
"""What a packet may take, and a header twice; FFmpeg and the decoder hold some copies of it."""
BUFFER_BYTES = 1 << 18
_ASKED_FOR = "m3u8"


class PipeReader(io.FileIO):
    """The reading end of a named pipe, with a limit on every wait, for which FFmpeg has none.

    It opens at once, also while nobody writes; the first read waits for a writer.
    """

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        self._timeout_s, self._ahead = timeout_s, b""

    def peek(self) -> bytes:
        """Return the first bytes that come, and leave them to be read."""
        while len(self._ahead) < KIND_BYTES and (data := self._received(KIND_BYTES)):
            self._ahead += data
        return self._ahead

    def read(self, size: int | None = -1) -> bytes:
        """Return what is there; nothing once all writers have gone; TimeoutError after silence."""
        if not self._ahead or self.closed:
            return self._received(size)
        end = len(self._ahead) if size is None or size < 0 else size
        data, self._ahead = self._ahead[:end], self._ahead[end:]
        return data

    @property
    def received_ns(self) -> int:
        """When what was read last came, on the monotonic clock."""
        return time.monotonic_ns()

    def _received(self, size: int | None) -> bytes:
        if self.closed:
            return b""
        if not select.select([self], [], [], self._timeout_s)[0]:
            raise TimeoutError(f"nothing came for {self._timeout_s:g} s")
        return super().read(size) or b""


class _Held(io.BytesIO):
    """What was read in whole."""

    name = ""


class _SavedBody(io.FileIO):
    """What a camera sent, kept in a file."""

    @property
    def received_ns(self) -> int:
        """When what was read last came, on the monotonic clock."""
        return time.monotonic_ns()


class BoundedReader:
    """Bytes for FFmpeg, which collects what a packet announces or does not end, in memory.

    What fails is the end for FFmpeg, which hands on what came before; PyAV would drop Ctrl-C.

    Attributes:
        failure: What failed.
    """

    def __init__(self, reader: Any, patience: Patience | None = None) -> None:
        self._reader, self._patience = reader, patience
        self._most = _MOST_BYTES if patience is None else _MOST_NETWORK_BYTES
        self._left = 2 * self._most
        self.failure: BaseException | None = None
        self.readable, self.seekable = reader.readable, reader.seekable
        # By a picture's suffix FFmpeg would look for numbered files.
        is_picture = Path(str(reader.name)).suffix.lower() in IMAGE_SUFFIXES
        self.name = "" if is_picture else reader.name
        self.close = reader.close
        if reader.seekable():
            self.seek, self.tell = reader.seek, reader.tell

    def begin_packet(self) -> None:
        """Count bytes and time anew: a packet has come."""
        self._left = self._most
        if self._patience is not None:
            self._patience.begin()

    def read(self, size: int) -> bytes:
        """Return bytes that are there; b"" where they are too many for one packet, or fail."""
        if self.failure is not None:
            return b""
        try:
            data = self._within_limit(size)
        except BaseException as error:  # noqa: BLE001  # raised by `Connection`
            self.failure = error
            return b""
        self._left -= len(data)
        return data

    def interrupt(self) -> None:
        """End a wait between two segments, which may be longer than the time-out."""
        if isinstance(self._reader, HlsReader):
            self._reader.interrupt()

    def _within_limit(self, size: int) -> bytes:
        if self._left <= 0:
            raise OSError(f"no frame ends within {self._most >> 20} MiB")
        data: bytes = self._reader.read(size)
        return data

    @property
    def first_byte_ns(self) -> int | None:
        """When the first byte of the frame read last came, where that is known."""
        known: int | None = getattr(self._reader, "first_byte_ns", None)
        return known


@dataclass(frozen=True, slots=True)
class Input:
    """What to open, and how."""

    file: BoundedReader | io.FileIO | str
    options: dict[str, str] = field(default_factory=dict)
    format: str | None = None  # None: found out from what comes
    has_end: bool | None = None  # None: as its header announces
    silence_s: float = 0.0  # it may be silent for so long because of how it comes
    remark: str | None = None  # what to know of it

    def close(self) -> None:
        """Close what was opened here."""
        if not isinstance(self.file, str):
            self.file.close()


def input_of(
    spec: SourceSpec, timeout_s: float, transport: str, limit: PictureLimit, color: Color
) -> Input:
    """Open a source's bytes, or name the address for FFmpeg; OSError where that fails.

    `limit` and `color` are for pictures that come as such.
    """
    location = spec.location
    scheme = location.partition(":")[0]
    if spec.kind == "pipe":
        pipe = PipeReader(location, timeout_s)
        try:
            if (start := pipe.peek()).startswith(JPEG_START) or _is_divided(start):
                return _parts_of(pipe)
            return _picture(pipe, limit, color) or _bytes_of(pipe, _FILE_FORMATS)
        except BaseException:
            pipe.close()
            raise
    if spec.kind == "video":
        return _file(location)
    if scheme in {"http", "https"}:
        return _http(spec, timeout_s, limit, color)
    if scheme in {"rtsp", "rtsps"}:
        check_rtsp(location, timeout_s, spec.allow_hosts)
        sockets = "tcp,tls" + (",udp,rtp" if transport == "udp" else "")
        over = {"rtsp_transport": transport, "protocol_whitelist": f"rtsp,rtsps,{sockets}"}
        return Input(location, _RTSP | over)
    over = {"protocol_whitelist": "rtmp,tcp" if scheme == "rtmp" else scheme}
    return Input(location, over | {"format_whitelist": _NETWORK_FORMATS}, has_end=False)


def _bytes_of(reader: Any, formats: str, patience: Patience | None = None, **facts: Any) -> Input:
    if patience is not None:
        patience.begin()
    return Input(BoundedReader(reader, patience), _NOTHING | {"format_whitelist": formats}, **facts)


def _parts_of(
    body: Any, content_type: str = "", patience: Patience | None = None, **facts: Any
) -> Input:
    reader = MultipartReader(body, content_type)
    return _bytes_of(reader, "mpjpeg", patience, format="mpjpeg", **facts)


def _file(path: str) -> Input:
    if path.lower().endswith((".m3u8", ".m3u")):
        return _bytes_of(HlsReader(FolderFetch(path), 0), _NETWORK_FORMATS)
    file = io.FileIO(path)
    try:
        start = file.read(1 << 10)
        _refuse_playlist(start, "the file holds")
        IndexLimit().check_file(file)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    # Read by C alone, so that Ctrl-C is not taken by a function that PyAV calls.
    if _is_divided(start):
        file.close()
        return _parts_of(_SavedBody(path))
    # By a picture's suffix FFmpeg would take a film of JPEGs for the first of them.
    form = "jpeg_pipe" if start.startswith(JPEG_START) else None
    return Input(file, _NOTHING | {"format_whitelist": _FILE_FORMATS}, form)


def _is_one_picture(reader: HttpBody | PipeReader) -> bool:
    """Whether what begins is one picture, of a kind that FFmpeg reads otherwise, or not."""
    kind = kind_of_bytes(reader.peek())
    if isinstance(reader, PipeReader):
        return kind in _NEVER_FILMS
    if kind == "PNG":
        return _MOVES in reader.peek(_PNG_HEAD)
    if kind == "JPEG":
        return reader.length is not None and counts_others(reader.peek(_JPEG_HEAD))
    return kind in _ONLY_AS_FILES


def _picture(
    reader: HttpBody | PipeReader,
    limit: PictureLimit,
    color: Color,
    patience: Patience | None = None,
) -> Input | None:
    """Decode what is one picture as its file would be."""
    if not _is_one_picture(reader):
        return None
    bounded, data = BoundedReader(reader, patience), bytearray()
    while part := bounded.read(1 << 16):
        data += part
    if bounded.failure is not None:
        raise bounded.failure
    reader.close()
    picture = picture_from_bytes(bytes(data), limit, color)
    pixels, kind = picture.pixels, "pgm_pipe"
    if pixels.ndim == 3:
        pixels, kind = pixels[:, :, ::-1], "ppm_pipe"
    header = b"P%d %d %d 255\n" % (5 if kind == "pgm_pipe" else 6, pixels.shape[1], len(pixels))
    remark = "; ".join(picture.remarks) or None
    return _bytes_of(
        _Held(header + pixels.tobytes()), kind, format=kind, has_end=True, remark=remark
    )


def _http(spec: SourceSpec, timeout_s: float, limit: PictureLimit, color: Color) -> Input:
    client = HttpClient(spec.location, timeout_s, spec.allow_hosts)
    parts = urlsplit(client.address)
    if _ASKED_FOR in f"{parts.path}?{parts.query}#{parts.fragment}".lower():
        segments = HlsReader(client, timeout_s, was_live=spec.has_end is False)
        return _bytes_of(
            segments,
            _NETWORK_FORMATS,
            client.patience,
            has_end=not segments.is_live,
            silence_s=segments.silence_s,
        )
    body = client.get()
    try:
        start = body.peek()
        _refuse_playlist(start, "the server sent")
        is_mjpeg = _is_mjpeg(body, start)
        if not is_mjpeg and (picture := _picture(body, limit, color, client.patience)):
            return picture
    except BaseException:
        body.close()
        raise
    if is_mjpeg:
        return _parts_of(body, body.content_type, client.patience, has_end=False)
    has_end = True if body.length is not None else None
    return _bytes_of(body, _NETWORK_FORMATS, client.patience, has_end=has_end)


def _is_mjpeg(body: HttpBody, start: bytes) -> bool:
    """Whether pictures come one after another: by the media type, or by how it begins."""
    media_type = body.content_type.partition(";")[0].strip().lower()
    endless = body.length is None and start.startswith(JPEG_START)
    return media_type.startswith("multipart/") or endless or _is_divided(start)


def _is_divided(start: bytes) -> bool:
    """Whether what begins so is in parts, whose first boundary may stand on a line of its own."""
    return start.lstrip().startswith(b"--")


def _refuse_playlist(start: bytes, who: str) -> None:
    kind = playlist_kind(start)
    if kind is None:
        return
    instead = "name what it leads to"
    if kind == HLS:
        instead = (
            f"to follow it, put #{_ASKED_FOR} behind the address, or .{_ASKED_FOR} on the file"
        )
    raise SourceError(f"{who} {kind}, which leads to other addresses: {instead}")
