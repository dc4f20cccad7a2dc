"""fitted_from_video_frame: a decoded frame's planes to a fitted picture, each resized by itself."""

from __future__ import annotations

import av
import av.error
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from ..core.errors import ImageError
from ..core.spec import Matrix, ModelSpec
from .convert import WHITE, Pixels, fitted, fitted_plane, picture_from_image, stacked
from .geometry import AS_CODED, Geometry
from .one_pass import FULL_RANGE, LIMITED_RANGE, picture_in_one_pass, plane_of
from .orientation import orientation_of_jpeg, turned
from .picture import USUAL_LIMIT, PictureLimit
from .resample import PER_LEVEL, SCALERS, Averages, levels_from_averages

BT601 = (0.299, 0.114)
LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: BT601,
    6: BT601,
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
"""What red and blue weigh in a frame's Y, by FFmpeg's number of its matrix (ITU-T H.273, table 4):
BT.709, FCC, BT.601 twice, SMPTE 240M, BT.2020."""
MATRIX_NUMBERS: dict[Matrix, int] = {"bt709": 1, "fcc": 4, "bt601": 5, "smpte240m": 7, "bt2020": 9}
_UNSAID = {2, 3}
_HD_WIDTH, _SD_HEIGHT = 1280, 576  # where mpv guesses another matrix
_LIMITED_BLACK, _LIMITED_WHITE = 16, 235
_PIXELS = {"gray", "bgr24"}  # pictures as they are fitted
_READ_IN_PLACE = {"yuv420p", "yuv422p", "yuv444p", "nv12", "nv21"}
# Without these FFmpeg's colours are a level too dark on average.
_EXACT = int(Interpolation.BILINEAR) | 0x40000 | 0x2000  # SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT


def fitted_from_video_frame(
    frame: VideoFrame,
    spec: ModelSpec,
    geometry: Geometry = AS_CODED,
    matrix: Matrix | None = None,
    shape: tuple[int, int] | None = None,
) -> Pixels:
    """Turn a decoded frame of any format into a fitted picture as it is seen.

    Luma is BT.601 and full range whatever the video's are: levels 16 to 235 of limited-range video
    become 0 to 255, and where Y was made with other weights, small planes of chroma make up for it.
    Colours are made at the model's size as well, by the frame's matrix and range. A frame that
    names no matrix has `matrix`, by default as the spec says. Of grey or BGR at a fraction of its
    size, `shape` is the height and width that it has in full.
    """
    name = frame.format.name.replace("yuvj", "yuv")
    if name in _PIXELS and frame.planes[0].line_size > 0:
        return fitted(_picture(frame, spec), spec, geometry, shape)
    weights = LUMA_WEIGHTS.get(matrix_number(frame, matrix or spec.matrix))
    is_other = weights is None or frame.format.is_rgb or frame.format.has_palette or "gray" in name
    # Filters that do not average see between the samples of chroma, which are widened for them.
    is_sharp = spec.color != "grey" and spec.interpolation != "area"
    if weights is None or is_other or is_sharp:
        bgr = bgr_from_video_frame(frame, matrix=matrix or spec.matrix)
        return fitted(picture_from_image(bgr, spec.color), spec, geometry)
    is_full = frame.color_range == FULL_RANGE or name != frame.format.name
    if spec.color != "grey":
        number = matrix_number(frame, matrix or spec.matrix)
        picture = picture_in_one_pass(frame, spec, number, geometry, is_full=is_full)
        if picture is not None:
            return picture
    if name not in _READ_IN_PLACE or any(plane.line_size <= 0 for plane in frame.planes):
        scaler = SCALERS.of(name, frame.height, frame.width, "yuv420p")
        levels = FULL_RANGE if is_full else LIMITED_RANGE  # FFmpeg would go by the name alone
        frame = scaler.reformat(
            frame, format="yuv420p", src_color_range=levels, dst_color_range=levels, threads=1
        )
        name = "yuv420p"
    plane = plane_of(frame, 0)
    if weights == BT601 and spec.color == "grey":
        widened = fitted if is_full else luma_from_limited
        return widened(plane, spec, geometry)
    return fitted_from_planes(plane, _chroma(frame, name), spec, weights, geometry, is_full=is_full)


def fitted_from_planes(
    y: Pixels,
    chroma: tuple[Pixels, Pixels],
    spec: ModelSpec,
    weights: tuple[float, float],
    geometry: Geometry = AS_CODED,
    *,
    is_full: bool,
) -> Pixels:
    """Turn (H, W) Y and smaller planes of Cb and Cr of any matrix into a fitted picture.

    `weights` are those of red and blue, as in `LUMA_WEIGHTS`.
    """
    shape = y.shape[0], y.shape[1]
    fitted_y = fitted_plane(y, spec, shape, WHITE if is_full else _LIMITED_WHITE, geometry)
    cb, cr = (fitted_plane(plane, spec, shape, 128, geometry) for plane in chroma)
    if spec.color == "grey":
        luma = _bt601_luma(fitted_y, cb, cr, weights, is_full=is_full)
        return turned(luma, geometry.orientation)
    red, green, blue = _colours(fitted_y, cb, cr, weights, is_full=is_full)
    planes = [red, green, blue] if spec.color == "rgb" else [blue, green, red]
    return stacked(planes, geometry)


def luma_from_limited(y: Pixels, spec: ModelSpec, geometry: Geometry = AS_CODED) -> Pixels:
    """Turn (H, W) BT.601 Y of 16 (black, like all below) to 235 (white) into fitted luma."""
    averages = fitted_plane(y, spec, (y.shape[0], y.shape[1]), _LIMITED_WHITE, geometry)
    black = np.uint16(_LIMITED_BLACK * PER_LEVEL)
    gain = WHITE / (_LIMITED_WHITE - _LIMITED_BLACK)
    luma = levels_from_averages(np.maximum(averages, black) - black, gain)
    return turned(luma, geometry.orientation)


def fitted_from_doubtful_jpeg(
    data: bytes, spec: ModelSpec, limit: PictureLimit = USUAL_LIMIT
) -> Pixels:
    """Let FFmpeg decide on a JPEG that `reduced_from_jpeg` leaves to it, or raise ImageError."""
    codec = av.VideoCodecContext.create("mjpeg", "r")
    codec.options = {"err_detect": "crccheck+explode", "max_pixels": str(limit.most_pixels)}
    try:
        frames = codec.decode(av.Packet(data))
    except av.error.FFmpegError as error:
        raise ImageError(f"frame does not decode: {error.strerror}") from error
    if not frames or frames[0].is_corrupt:
        raise ImageError("frame does not decode: there is no whole picture in it")
    return fitted_from_video_frame(frames[0], spec, Geometry(orientation_of_jpeg(data)))


def matrix_number(frame: VideoFrame, untagged: Matrix) -> int:
    """Return FFmpeg's number of a frame's matrix, or that of `untagged` where it names none."""
    named: int = frame.colorspace
    if named not in _UNSAID:
        return named
    if untagged == "auto":
        is_large = frame.width >= _HD_WIDTH or frame.height > _SD_HEIGHT
        untagged = "bt709" if is_large else "bt601"
    return MATRIX_NUMBERS[untagged]


def bgr_from_video_frame(
    frame: VideoFrame, geometry: Geometry = AS_CODED, matrix: Matrix = "auto"
) -> Pixels:
    """Convert a decoded frame of any format to (H, W, 3) uint8 BGR as it is seen, exactly.

    Of YUV that names no matrix, `matrix` is taken.
    """
    number = None
    if not (frame.format.is_rgb or frame.format.has_palette):
        number = matrix_number(frame, matrix)
    scaler = SCALERS.of(frame.format.name, frame.height, frame.width, "bgr24", number)
    colour = scaler.reformat(
        frame, format="bgr24", src_colorspace=number, interpolation=_EXACT, threads=1
    )
    return geometry.seen(np.ascontiguousarray(colour.to_ndarray(), np.uint8))


def _picture(frame: VideoFrame, spec: ModelSpec) -> Pixels:
    """Look at luma or BGR where it lies, and make of it what the model takes."""
    if frame.format.name == "gray":
        return picture_from_image(plane_of(frame, 0), spec.color)
    bgr = plane_of(frame, 0, samples=3)
    return picture_from_image(bgr.reshape(len(bgr), -1, 3), spec.color)


def _chroma(frame: VideoFrame, name: str) -> tuple[Pixels, Pixels]:
    """Return the planes of Cb and Cr, each a whole fraction of the frame's size."""
    if not name.startswith("nv"):
        return plane_of(frame, 1), plane_of(frame, 2)
    both = plane_of(frame, 1, samples=2)
    first, second = both[:, ::2], both[:, 1::2]
    return (first, second) if name == "nv12" else (second, first)


def _bt601_luma(
    y: Averages, cb: Averages, cr: Averages, weights: tuple[float, float], *, is_full: bool
) -> Pixels:
    """Make BT.601 luma of Y, Cb and Cr of another matrix; all (S, S), in 1/256 of a level.

    With R = Y + 2 (1 - Kr) Cr, B = Y + 2 (1 - Kb) Cb and Y = Kr R + Kg G + Kb B (ITU-T H.273,
    section 8.3), BT.601 luma is Y plus a share of Cr and one of Cb.
    """
    kr, kb = weights
    red, blue = BT601
    green_ratio = (1 - red - blue) / (1 - kr - kb)
    luma_gain, chroma_gain = (1.0, 1.0) if is_full else (WHITE / 219, WHITE / 224)
    of_cr = 2 * (1 - kr) * (red - green_ratio * kr) * chroma_gain
    of_cb = 2 * (1 - kb) * (blue - green_ratio * kb) * chroma_gain
    offset = -128 * (of_cb + of_cr) - (0 if is_full else 16 * luma_gain)
    chroma = cv2.addWeighted(cb, of_cb / PER_LEVEL, cr, of_cr / PER_LEVEL, offset, dtype=cv2.CV_32F)
    y_32 = y.astype(np.float32)
    luma = cv2.addWeighted(y_32, luma_gain / PER_LEVEL, chroma, 1.0, 0.0, dtype=cv2.CV_8U)
    return luma.astype(np.uint8, copy=False)


def _colours(
    y: Averages, cb: Averages, cr: Averages, weights: tuple[float, float], *, is_full: bool
) -> tuple[Pixels, Pixels, Pixels]:
    """Make R, G and B of Y, Cb and Cr; all of the same shape, in 1/256 of a level."""
    red, blue = weights
    green = 1 - red - blue
    luma_gain, chroma_gain = (1.0, 1.0) if is_full else (WHITE / 219, WHITE / 224)
    red_of_cr, blue_of_cb = 2 * (1 - red) * chroma_gain, 2 * (1 - blue) * chroma_gain
    black = 0.0 if is_full else 16 * luma_gain
    scaled = y.astype(np.float32) * np.float32(luma_gain / PER_LEVEL)
    shares = ((0.0, red_of_cr), (-blue * blue_of_cb / green, -red * red_of_cr / green))
    found = []
    for of_cb, of_cr in (*shares, (blue_of_cb, 0.0)):
        offset = -128 * (of_cb + of_cr) - black
        chroma = cv2.addWeighted(
            cb, of_cb / PER_LEVEL, cr, of_cr / PER_LEVEL, offset, dtype=cv2.CV_32F
        )
        level = cv2.addWeighted(scaled, 1.0, chroma, 1.0, 0.0, dtype=cv2.CV_8U)
        found.append(level.astype(np.uint8, copy=False))
    return found[0], found[1], found[2]
