"""What cameras deliver, JPEG or raw YUV, to fitted pictures; a JPEG no larger than need be."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from ..core.frame import Mode
from ..core.spec import Matrix, ModelSpec
from .convert import COLOUR_BLOCKS, Pixels, fitted, whole_divisor
from .geometry import AS_CODED, Geometry
from .jpeg import grey_in_halves, jpeg_header, pixels_of_jpeg
from .one_pass import LIMITED_RANGE, frame_of_planes
from .orientation import orientation_of_jpeg
from .picture import USUAL_LIMIT, PictureLimit
from .yuv import (
    LUMA_WEIGHTS,
    MATRIX_NUMBERS,
    fitted_from_doubtful_jpeg,
    fitted_from_planes,
    fitted_from_video_frame,
    luma_from_limited,
)

_BLOCKS_PER_PIXEL = ((8, 4), (4, 3), (2, 2))
"""Decoding at 1/n averages blocks of n by n pixels, which may lie across the edges of the pixels
averaged next: along one of those there must be so many blocks (measured, see docs/pixels.md)."""
DIVISORS = (8, 4, 2)
_ITU601 = b"CS=ITU601"  # FFmpeg's comment in JPEGs of levels 16 to 235
_NO_CODE = b"\xff\x00" * 5
"""40 bits of ones: no code is all ones (ITU-T T.81, annex C), and libjpeg-turbo takes one for 0."""

_MOST_PLACES = 64
_JPEG = {"MJPG", "JPEG"}
_PACKED = {"YUYV": 0, "YUY2": 0, "UYVY": 1}  # where Y lies in each pair of bytes
_PLANAR = {"NV12", "NV21", "YU12", "I420", "YV12"}
_FFMPEG_NAMES = {
    "YUYV": "yuyv422",
    "YUY2": "yuyv422",
    "UYVY": "uyvy422",
    "NV12": "nv12",
    "NV21": "nv21",
    "YU12": "yuv420p",
    "I420": "yuv420p",
    "YV12": "yuv420p",
}
_IN_PLACE = {"NV12", "YU12", "I420"}
RAW_FORMATS = _JPEG | _PACKED.keys() | _PLANAR  # which `fitted_from_raw` takes


def fitted_from_raw(
    raw: npt.NDArray[Any],
    mode: Mode,
    spec: ModelSpec,
    matrix: Matrix = "bt601",
    limit: PictureLimit = USUAL_LIMIT,
    *,
    cores: int = 1,
) -> Pixels | None:
    """Turn a frame as a camera delivers it into a fitted picture.

    It is uint8 as OpenCV hands it over unconverted: (1, N) bytes of a JPEG, (H, W, 2) packed, or
    (H * 3 / 2, W) in planes; None is returned where it is not what the mode implies, and where
    colours of an odd size are asked for. YUV is taken for limited range, and for BT.601 unless
    another `matrix` is named: cameras mean that whatever their size (USB Video Class 1.5, section
    3.9.2.6), and so does OpenCV when it converts. `cores` are as of `reduced_from_jpeg`.
    """
    if raw.dtype != np.uint8:
        return None
    if mode.fourcc in _JPEG and raw.size in raw.shape:
        return fitted_from_jpeg(raw.tobytes(), spec, limit, cores=cores)
    is_odd = bool((mode.width or 0) % 2 or (mode.height or 0) % 2)
    if not _has_shape(raw, mode) or (is_odd and spec.color != "grey"):
        return None
    number = MATRIX_NUMBERS["bt601" if matrix == "auto" else matrix]
    if spec.color != "grey":
        frame = _frame(raw, mode)
        frame.colorspace, frame.color_range = number, LIMITED_RANGE
        return fitted_from_video_frame(frame, spec)
    y = _luma_plane(raw, mode)
    if matrix in {"auto", "bt601"} or is_odd:
        return luma_from_limited(y, spec)
    chroma = _chroma(raw, mode, len(y))
    return fitted_from_planes(y, chroma, spec, LUMA_WEIGHTS[number], is_full=False)


def _has_shape(raw: Pixels, mode: Mode) -> bool:
    """Whether a raw frame is of the size that the mode says."""
    height, width = mode.height or 0, mode.width or 0
    if height * width == 0:
        return False
    if mode.fourcc in _PACKED:
        return raw.shape == (height, width, 2)
    return mode.fourcc in _PLANAR and raw.shape == (height * 3 // 2, width)


def _luma_plane(raw: Pixels, mode: Mode) -> Pixels:
    """Return Y of a raw frame, (H, W)."""
    if mode.fourcc in _PACKED:
        return cv2.extractChannel(raw, _PACKED[mode.fourcc]).astype(np.uint8, copy=False)
    return raw[: mode.height]


def _frame(raw: Pixels, mode: Mode) -> VideoFrame:
    """Return a raw frame of even size as FFmpeg knows it, copied where it must be."""
    name = _FFMPEG_NAMES[mode.fourcc or ""]
    height, width = mode.height or 0, mode.width or 0
    if mode.fourcc in _IN_PLACE and height % 4 == 0 and raw.flags.c_contiguous:  # PyAV rounds
        return VideoFrame.from_numpy_buffer(raw, format=name)
    if mode.fourcc in _PACKED:
        return frame_of_planes(name, height, width, [raw.reshape(height, -1)])
    chroma = raw[height:].reshape(1 if name.startswith("nv") else 2, height // 2, -1)
    order = chroma[::-1] if mode.fourcc == "YV12" else chroma
    return frame_of_planes(name, height, width, [raw[:height], *order])


def _chroma(raw: Pixels, mode: Mode, height: int) -> tuple[Pixels, Pixels]:
    """Return Cb and Cr of a raw frame of even size, each (H, W / 2) or (H / 2, W / 2)."""
    if mode.fourcc in _PACKED:
        samples = raw.reshape(height, -1, 4)[:, :, 1 - _PACKED[mode.fourcc] :: 2]
    elif mode.fourcc in {"NV12", "NV21"}:
        samples = raw[height:].reshape(height // 2, -1, 2)
    else:
        samples = raw[height:].reshape(2, height // 2, -1).transpose(1, 2, 0)
    first, second = samples[:, :, 0], samples[:, :, 1]
    return (second, first) if mode.fourcc in {"NV21", "YV12"} else (first, second)


def fitted_from_jpeg(
    data: bytes, spec: ModelSpec, limit: PictureLimit = USUAL_LIMIT, *, cores: int = 1
) -> Pixels:
    """Turn a JPEG into a fitted picture, by FFmpeg where the quick decoder is in doubt.

    It is turned as its EXIF segment says. A damaged picture is an ImageError. `cores` are as of
    `reduced_from_jpeg`.
    """
    geometry = Geometry(orientation_of_jpeg(data))
    reduced = reduced_from_jpeg(data, spec, geometry=geometry, limit=limit, cores=cores)
    if reduced is None:
        return fitted_from_doubtful_jpeg(data, spec, limit)
    return fitted(reduced.pixels, spec, geometry, reduced.shape)


class Reduced(NamedTuple):
    """A JPEG decoded at a fraction of its size, not turned yet."""

    pixels: Pixels  # (H / n, W / n) luma, or (H / n, W / n, 3) BGR
    shape: tuple[int, int]  # H and W


def reduced_from_jpeg(
    data: bytes,
    spec: ModelSpec,
    shape: tuple[int, int] | None = None,
    geometry: Geometry = AS_CODED,
    limit: PictureLimit = USUAL_LIMIT,
    *,
    cores: int = 1,
    problem: str = "frame does not decode",
) -> Reduced | None:
    """Decode a JPEG at the smallest scale that keeps the input exact.

    None where this is better left to FFmpeg: colours that take all of its pixels, another height
    and width than `shape`, rare kinds of JPEG, or a flaw that is damage in one camera and habit in
    the next. A damaged picture is an ImageError that begins with `problem`, and so is one that is
    larger than `limit`. Where there are no Huffman tables, as in AVI files, the standard ones are
    meant. With more `cores` than one a large picture for a model of grey is decoded in halves where
    its restart markers allow that: the same pixels, sooner.
    """
    header = jpeg_header(data)
    if header is None or not header.height:
        return None
    height, width = header.height, header.width
    header.check_scans(data)
    extra = 0 if spec.color == "grey" else 2
    limit.check((width, height), header.bytes_per_pixel + extra, len(data))
    if shape not in {None, (height, width)}:
        return None
    if _ITU601 in data[: header.scan] or _holds_no_code(data):
        return None
    divisor = _divisor((height, width), spec, geometry)
    if divisor == 1 and spec.color != "grey" and spec.interpolation == "area":
        return None  # FFmpeg's planes make colours at the model's size, and no large ones
    pixels = None
    if cores > 1 and spec.color == "grey":
        pixels = grey_in_halves(data, header, divisor)
    if pixels is None:
        size = height // divisor, width // divisor
        pixels = pixels_of_jpeg(data, spec.color, *size, problem=problem)
    return None if pixels is None else Reduced(pixels, (height, width))


def _holds_no_code(data: bytes) -> bool:
    """Whether `_NO_CODE` is in a JPEG, in a fifth of the time that it takes to look for it.

    Wherever it lies, some number of 32 bits at a multiple of 4 begins in its first four bytes.
    """
    numbers = np.frombuffer(data, np.uint32, len(data) // 4)
    places = np.flatnonzero((numbers == 0xFF00FF00) | (numbers == 0x00FF00FF)) * 4
    if len(places) > _MOST_PLACES:
        return _NO_CODE in data
    return any(_NO_CODE in data[max(0, place - 3) : place + 10] for place in places.tolist())


def _divisor(shape: tuple[int, int], spec: ModelSpec, geometry: Geometry) -> int:
    """Return by how much a picture may be decoded smaller.

    Its blocks end where the picture does, and for luma also where it is cut: to cut between them
    takes as long as decoding it smaller saves. Of colours it saves more.
    """
    if spec.color == "grey":
        return whole_divisor(spec, shape, geometry, _BLOCKS_PER_PIXEL, cuts_blocks=False)
    return whole_divisor(spec, shape, geometry, COLOUR_BLOCKS)
