"""Frames as decoders and cameras deliver them, made by formulas, and what they show."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

Image = npt.NDArray[np.uint8]

UNSAID, BT709, BT470BG, SMPTE240M, BT2020 = 2, 1, 5, 7, 9
LIMITED, FULL = 1, 2
KR_KB = {
    BT709: (0.2126, 0.0722),
    BT470BG: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
}
_FEWER = {"yuv444p": (1, 1), "yuv422p": (2, 1)}  # samples of chroma across and down


def frame_of(
    image: Image, pixels: str, matrix: int = UNSAID, levels: int = LIMITED
) -> tuple[VideoFrame, Image]:
    """A decoded frame, made of planes by the formulas of ITU-T H.273, and what it shows, as BGR.

    Chroma is made without FFmpeg and widened again the same way, so that neither hides an error.
    """
    planes, shown = coded_planes(image, _FEWER.get(pixels, (2, 2)), matrix, levels)
    if pixels.startswith("nv"):
        order = planes[1:] if pixels == "nv12" else planes[:0:-1]
        planes = [planes[0], np.stack(order, axis=2).reshape(len(order[0]), -1)]
    frame = VideoFrame(image.shape[1], image.shape[0], pixels)
    for plane, samples in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.buffer_size // plane.line_size, plane.line_size), np.uint8)
        rows[: samples.shape[0], : samples.shape[1]] = samples
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range = matrix, levels
    return frame, shown


def raw_of(image: Image, fourcc: str, matrix: int = BT470BG) -> tuple[Image, Image]:
    """A frame of even size as a V4L2 camera delivers it, limited, and what it shows, as BGR."""
    is_packed = fourcc in {"YUYV", "UYVY"}
    (y, cb, cr), shown = coded_planes(image, (2, 1 if is_packed else 2), matrix, LIMITED)
    if is_packed:
        chroma = np.stack([cb, cr], axis=2).reshape(y.shape)
        return np.stack([y, chroma] if fourcc == "YUYV" else [chroma, y], axis=2), shown
    order = (cr, cb) if fourcc in {"NV21", "YV12"} else (cb, cr)
    both = np.stack(order, axis=2 if fourcc.startswith("NV") else 0)
    return np.concatenate([y, both.reshape(-1, y.shape[1])]), shown


def coded_planes(
    image: Image, fewer: tuple[int, int], matrix: int, levels: int
) -> tuple[list[Image], Image]:
    """Y, Cb and Cr of a BGR image, and the BGR that they show."""
    kr, kb = KR_KB.get(matrix, KR_KB[BT470BG])
    blue, green, red = (image[:, :, channel].astype(float) for channel in range(3))
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    black, span, chroma_span = (0, 255, 255) if levels == FULL else (16, 219, 224)
    planes = [black + y * span / 255, *(128 + c * chroma_span / 255 for c in (cb, cr))]
    height, width = y.shape
    small = (-(-width // fewer[0]), -(-height // fewer[1]))
    planes[1:] = [cv2.resize(c, small, interpolation=cv2.INTER_AREA) for c in planes[1:]]
    coded = [np.clip(np.rint(plane), 0, 255).astype(np.uint8) for plane in planes]
    y, cb, cr = (
        cv2.resize(plane.astype(float), (width, height), interpolation=cv2.INTER_LINEAR)
        for plane in coded
    )
    y, cb, cr = ((y - black) * 255 / span, *((c - 128) * 255 / chroma_span for c in (cb, cr)))
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    bgr = np.clip(np.rint(np.stack([blue, green, red], axis=2)), 0, 255).astype(np.uint8)
    return coded, bgr
