from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.reference import reference_picture
from motorvae.runtime.pixels.yuv import (
    bgr_from_video_frame,
    fitted_from_doubtful_jpeg,
    fitted_from_video_frame,
    luma_from_limited,
)

from .real_pictures import assert_within_bound, street

UNSAID, BT709, BT470BG, SMPTE240M, BT2020 = 2, 1, 5, 7, 9
LIMITED, FULL = 1, 2
KR_KB = {BT709: (0.2126, 0.0722), SMPTE240M: (0.212, 0.087), BT2020: (0.2627, 0.0593)}
FITS = ["stretch", "crop", "pad", "letterbox"]
SIZES = [(1920, 1080), (1366, 771)]


def spec(fit: Any = "stretch", side: int = 256) -> ModelSpec:
    return ModelSpec(image_size=side, channels=(8, 8), latent_size=4, fit=fit)


def frame_of(
    image: npt.NDArray[np.uint8], pixels: str, matrix: int = UNSAID, levels: int = LIMITED
) -> tuple[VideoFrame, npt.NDArray[np.uint8]]:
    """A decoded frame, made of planes by the formulas of ITU-T H.273, and what it shows, as BGR.

    Chroma is made without FFmpeg and widened again the same way, so that neither hides an error.
    """
    kr, kb = KR_KB.get(matrix, (0.299, 0.114))
    blue, green, red = (image[:, :, channel].astype(float) for channel in range(3))
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    black, span, chroma_span = (0, 255, 255) if levels == FULL else (16, 219, 224)
    planes = [black + y * span / 255, *(128 + c * chroma_span / 255 for c in (cb, cr))]
    across, down = {"yuv444p": (1, 1), "yuv422p": (2, 1)}.get(pixels, (2, 2))
    height, width = y.shape
    small = (-(-width // across), -(-height // down))
    planes[1:] = [cv2.resize(c, small, interpolation=cv2.INTER_AREA) for c in planes[1:]]
    whole = [np.clip(np.rint(plane), 0, 255).astype(np.uint8) for plane in planes]
    frame = VideoFrame(width, height, pixels)
    if pixels.startswith("nv"):
        order = (1, 2) if pixels == "nv12" else (2, 1)
        both = np.stack([whole[number] for number in order], axis=2)
        whole_planes = [whole[0], both.reshape(len(both), -1)]
    else:
        whole_planes = whole
    for plane, levels_of in zip(frame.planes, whole_planes, strict=True):
        rows = np.zeros((plane.buffer_size // plane.line_size, plane.line_size), np.uint8)
        rows[: levels_of.shape[0], : levels_of.shape[1]] = levels_of
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range = matrix, levels
    y, cb, cr = (
        cv2.resize(plane.astype(float), (width, height), interpolation=cv2.INTER_LINEAR)
        for plane in whole
    )
    y, cb, cr = ((y - black) * 255 / span, *((c - 128) * 255 / chroma_span for c in (cb, cr)))
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    shown = np.clip(np.rint(np.stack([blue, green, red], axis=2)), 0, 255).astype(np.uint8)
    return frame, shown


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("pixels", "matrix", "levels"),
    [
        ("yuv420p", UNSAID, LIMITED),
        ("yuv420p", BT470BG, FULL),
        ("yuvj420p", UNSAID, FULL),
        ("yuv422p", UNSAID, LIMITED),
        ("yuv444p", UNSAID, LIMITED),
        ("nv12", UNSAID, LIMITED),
        ("yuv420p", BT709, LIMITED),
        ("yuv420p", BT2020, FULL),
        ("yuv422p", BT709, LIMITED),
        ("nv12", BT709, LIMITED),
        ("nv21", SMPTE240M, FULL),
    ],
)
def test_planes_become_luma_within_the_bound(
    size: tuple[int, int], pixels: str, matrix: int, levels: int, fit: str
) -> None:
    frame, shown = frame_of(street(*size), pixels, matrix, levels)
    luma = fitted_from_video_frame(frame, spec(fit))
    assert_within_bound(luma, reference_picture(shown, spec(fit)))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    "pixels", ["yuv420p10le", "p010le", "yuyv422", "uyvy422", "yuv411p", "yuva420p"]
)
@pytest.mark.parametrize("matrix", [UNSAID, BT709])
def test_other_yuv_becomes_luma_within_the_bound(pixels: str, matrix: int, fit: str) -> None:
    frame, shown = frame_of(street(1366, 770), "yuv420p", matrix)
    other = frame.reformat(format=pixels)
    other.colorspace, other.color_range = matrix, LIMITED
    luma = fitted_from_video_frame(other, spec(fit))
    assert_within_bound(luma, reference_picture(shown, spec(fit)))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("pixels", ["bgr24", "rgb24", "bgra", "gbrp", "gray", "gray10le"])
def test_full_range_formats_become_luma_within_the_bound(pixels: str, fit: str) -> None:
    image = street(1366, 771)
    if pixels.startswith("gray"):
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        frame = VideoFrame.from_ndarray(image, format="gray").reformat(format=pixels)
    else:
        frame = VideoFrame.from_ndarray(image, format="bgr24").reformat(format=pixels)
    assert_within_bound(
        fitted_from_video_frame(frame, spec(fit)), reference_picture(image, spec(fit))
    )


@pytest.mark.parametrize("level", [0, 16, 100, 235, 255])
@pytest.mark.parametrize("fit", FITS)
def test_limited_levels_are_widened_and_stop_at_black_and_white(level: int, fit: str) -> None:
    luma = luma_from_limited(np.full((720, 720), level, np.uint8), spec(fit, 64))
    assert (luma == np.clip(round((level - 16) * 255 / 219), 0, 255)).all()


def test_a_border_around_limited_video_is_white() -> None:
    frame, _ = frame_of(street(640, 360), "yuv420p")
    assert (fitted_from_video_frame(frame, spec("pad", 64))[:14] == 255).all()


@pytest.mark.parametrize("size", [(20, 30), (300, 40), (64, 64), (100, 64)])
@pytest.mark.parametrize("matrix", [UNSAID, BT709])
def test_small_frames_grow(size: tuple[int, int], matrix: int) -> None:
    frame, shown = frame_of(street(*size), "yuv420p", matrix)
    error = fitted_from_video_frame(frame, spec(side=64)).astype(int) - reference_picture(
        shown, spec(side=64)
    )
    assert np.abs(error).mean() <= 1.5


@pytest.mark.parametrize(
    ("pixels", "matrix", "levels"),
    [("yuv420p", UNSAID, LIMITED), ("yuvj420p", UNSAID, FULL), ("yuv420p", BT709, LIMITED)],
)
def test_colours_are_not_darker_than_they_are(pixels: str, matrix: int, levels: int) -> None:
    """FFmpeg's usual conversion takes a level off everything."""
    frame, shown = frame_of(street(640, 360), pixels, matrix, levels)
    error = bgr_from_video_frame(frame).astype(float) - shown
    assert abs(error.mean()) < 0.1
    assert np.abs(error).mean() < 1.0


def test_ffmpeg_has_the_last_word_on_a_jpeg() -> None:
    image = street(640, 360)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    luma = fitted_from_doubtful_jpeg(data[:-2], spec())  # only the end marker is missing
    assert_within_bound(
        luma, reference_picture(cv2.imdecode(np.frombuffer(data, np.uint8), 1), spec())
    )
    for damaged in (data[: len(data) // 2], b"no picture", b"\xff\xd8\xff\xd9"):
        with pytest.raises(ImageError, match="frame does not decode"):
            fitted_from_doubtful_jpeg(damaged, spec())
