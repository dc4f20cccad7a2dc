from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.core.frame import Mode
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.camera_formats import RAW_FORMATS, fitted_from_raw
from motorvae.runtime.pixels.reference import reference_picture

from .real_pictures import assert_within_bound, street

FITS = ["stretch", "crop", "pad", "letterbox"]
SIZES = [(1920, 1080), (640, 480)]
# How FFmpeg calls what a camera calls otherwise, and OpenCV's own way from there to colours.
YUV = {
    "YUYV": ("yuyv422", cv2.COLOR_YUV2BGR_YUYV),
    "YUY2": ("yuyv422", cv2.COLOR_YUV2BGR_YUY2),
    "UYVY": ("uyvy422", cv2.COLOR_YUV2BGR_UYVY),
    "NV12": ("nv12", cv2.COLOR_YUV2BGR_NV12),
    "NV21": ("nv21", cv2.COLOR_YUV2BGR_NV21),
    "YU12": ("yuv420p", cv2.COLOR_YUV2BGR_I420),
    "I420": ("yuv420p", cv2.COLOR_YUV2BGR_I420),
    "YV12": ("yuv420p", cv2.COLOR_YUV2BGR_YV12),
}
JPEG = {"MJPG", "JPEG"}


def spec(fit: Any = "stretch") -> ModelSpec:
    return ModelSpec(image_size=256, channels=(8, 8), latent_size=4, fit=fit)


def delivered(size: tuple[int, int], fourcc: str) -> npt.NDArray[np.uint8]:
    """A frame as OpenCV hands it over unconverted; FFmpeg makes it."""
    pixels = YUV[fourcc][0]
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(street(*size)), format="bgr24")
    width, height = size
    planes = frame.reformat(format=pixels).planes
    rows = [np.frombuffer(memoryview(plane), np.uint8) for plane in planes]
    if fourcc == "YV12":
        rows[1:] = rows[:0:-1]
    whole = np.concatenate(rows)
    packed = fourcc in {"YUYV", "YUY2", "UYVY"}
    return whole.reshape((height, width, 2) if packed else (height * 3 // 2, width))


def test_every_format_is_tested() -> None:
    assert YUV.keys() | JPEG == RAW_FORMATS


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fourcc", YUV)
def test_yuv_is_what_opencv_makes_of_it_within_the_bound(
    fourcc: str, size: tuple[int, int], fit: str
) -> None:
    raw = delivered(size, fourcc)
    luma = fitted_from_raw(raw, Mode(*size, 30.0, fourcc), spec(fit))
    assert luma is not None
    colours = cv2.cvtColor(raw, YUV[fourcc][1])
    assert colours.shape == (size[1], size[0], 3)
    assert_within_bound(luma, reference_picture(colours, spec(fit)))


@pytest.mark.parametrize("fourcc", sorted(JPEG))
@pytest.mark.parametrize("shape", [(1, -1), (-1, 1)])
def test_jpeg_is_decoded_from_a_buffer_that_is_too_long(
    fourcc: str, shape: tuple[int, int]
) -> None:
    image = street(1920, 1080)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    raw = np.frombuffer(data + bytes(10_000), np.uint8).reshape(shape)
    luma = fitted_from_raw(raw, Mode(1920, 1080, 30.0, fourcc), spec())
    assert luma is not None
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert_within_bound(luma, reference_picture(decoded, spec()))


def test_a_jpeg_without_its_end_marker_is_whole_and_half_a_jpeg_is_not() -> None:
    data = cv2.imencode(".jpg", street(640, 480))[1].tobytes()
    mode = Mode(640, 480, 30.0, "MJPG")
    assert fitted_from_raw(np.frombuffer(data[:-2], np.uint8)[None], mode, spec()) is not None
    for damaged in (data[: len(data) // 2], b"", bytes(1000)):
        with pytest.raises(ImageError, match="frame does not decode"):
            fitted_from_raw(np.frombuffer(damaged, np.uint8)[None], mode, spec())


@pytest.mark.parametrize(
    ("shape", "mode"),
    [
        ((480, 640, 3), Mode(640, 480, 30.0, "YUYV")),  # converted after all
        ((480, 632, 2), Mode(640, 480, 30.0, "YUYV")),
        ((480, 640), Mode(640, 480, 30.0, "NV12")),
        ((720, 640), Mode(640, None, 30.0, "NV12")),
        ((480, 640, 3), Mode(640, 480, 30.0, "MJPG")),
        ((480, 640), Mode(640, 480, 30.0, "Y16 ")),
        ((480, 640), Mode(640, 480, 30.0, None)),
    ],
)
def test_what_is_not_as_the_format_implies_is_left_alone(
    shape: tuple[int, ...], mode: Mode
) -> None:
    assert fitted_from_raw(np.zeros(shape, np.uint8), mode, spec()) is None
    assert fitted_from_raw(np.zeros(shape, np.uint16), mode, spec()) is None
