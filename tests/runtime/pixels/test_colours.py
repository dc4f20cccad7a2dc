"""Every fast path to a picture in colour, held to the float64 reference of what is shown."""

from __future__ import annotations

from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame

from motorvae.runtime.core.frame import Mode
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.camera_formats import (
    fitted_from_jpeg,
    fitted_from_raw,
    reduced_from_jpeg,
)
from motorvae.runtime.pixels.convert import fitted, fitted_from_image, picture_from_image
from motorvae.runtime.pixels.geometry import Geometry
from motorvae.runtime.pixels.one_pass import picture_in_one_pass
from motorvae.runtime.pixels.reference import reference_picture
from motorvae.runtime.pixels.yuv import fitted_from_video_frame

from .coded_frames import KR_KB, LIMITED, frame_of, raw_of
from .real_pictures import street

MEAN_ERROR, CORRELATION = 1.0, 0.998  # colours stronger than any camera sees
SIZES = [(256, 256), (80, 160), (28, 28), (384, 512), (224, 224)]
PRESET = (5, 20, -25, -20)
SEEN: dict[int, Any] = {  # what EXIF's numbers ask for, by numpy
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).transpose(1, 0, 2),
    8: np.rot90,
}


def spec(size: tuple[int, int] = (80, 160), color: Any = "rgb", **others: Any) -> ModelSpec:
    return ModelSpec(image_size=size, color=color, channels=None, latent_size=4, **others)


@pytest.fixture(scope="module")
def colourful() -> npt.NDArray[np.uint8]:
    """A street whose colours are as strong as they can be; that of the sample is nearly grey."""
    hsv = cv2.cvtColor(street(960, 540), cv2.COLOR_BGR2HSV).astype(float)
    down, across = np.indices(hsv.shape[:2])
    hsv[..., 0] = (hsv[..., 0] + across / 6 + down / 9) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * 2 + 60, 0, 200)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR).astype(np.uint8)


def assert_near(found: npt.NDArray[np.uint8] | None, shown: Any, model: ModelSpec) -> None:
    reference = reference_picture(np.ascontiguousarray(shown), model)
    assert found is not None
    assert found.shape == reference.shape == model.picture_shape
    assert found.dtype == np.uint8
    for plane, expected in zip(found.astype(float), reference.astype(float), strict=True):
        assert np.abs(plane - expected).mean() <= MEAN_ERROR
        assert np.corrcoef(plane.ravel(), expected.ravel())[0, 1] >= CORRELATION


def jpeg(image: npt.NDArray[np.uint8], orientation: int = 1) -> bytes:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    entry = b"\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation, 0, 0])
    body = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)
    return data[:2] + b"\xff\xe1" + (2 + len(body)).to_bytes(2, "big") + body + data[2:]


def shown_by_ffmpeg(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode all of a JPEG in colour by FFmpeg, and by the formulas of JFIF."""
    (frame,) = av.VideoCodecContext.create("mjpeg", "r").decode(av.Packet(data))
    y, cb, cr = (
        cv2.resize(
            np.frombuffer(memoryview(plane), np.uint8)
            .reshape(-1, plane.line_size)[: plane.height, : plane.width]
            .astype(float),
            (frame.width, frame.height),
        )
        for plane in frame.planes
    )
    cb, cr = cb - 128, cr - 128
    bgr = [y + 1.772 * cb, y - 0.344136 * cb - 0.714136 * cr, y + 1.402 * cr]
    return np.clip(np.rint(np.stack(bgr, axis=2)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad", "letterbox"])
@pytest.mark.parametrize("size", SIZES)
def test_video_is_within_the_bound(colourful: Any, size: tuple[int, int], fit: str) -> None:
    boxes = (None, PRESET, (0.1, 0.05, 0.9, 1.0))
    formats = (("yuv420p", "rgb"), ("nv12", "bgr"), ("yuv420p", "bgr"))
    for box, (pixels, color) in zip(boxes, formats, strict=True):
        model = spec(size, color, fit=fit, crop_box=box)
        frame, shown = frame_of(colourful, pixels, 1, LIMITED)
        assert_near(fitted_from_video_frame(frame, model), shown, model)


@pytest.mark.parametrize("matrix", KR_KB)
@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p", "nv12", "nv21"])
def test_every_matrix_and_range_is_within_the_bound(
    colourful: Any, pixels: str, levels: int, matrix: int
) -> None:
    model = spec()
    frame, shown = frame_of(colourful, pixels, matrix, levels)
    assert picture_in_one_pass(frame, model, matrix, is_full=levels == 2) is not None
    found = fitted_from_video_frame(frame, model)
    assert_near(found, shown, model)
    if levels == LIMITED:
        ten_bits = frame.reformat(format="yuv420p10le")
        ten_bits.colorspace, ten_bits.color_range = matrix, levels
        assert_near(fitted_from_video_frame(ten_bits, model), shown, model)


@pytest.mark.parametrize(
    "interpolation", ["bilinear", "bicubic", "lanczos", "bilinear-no-antialias"]
)
@pytest.mark.parametrize("fit", ["stretch", "pad", "letterbox"])
def test_every_filter_is_within_the_bound(colourful: Any, fit: str, interpolation: str) -> None:
    model = spec(fit=fit, interpolation=interpolation, crop_box=PRESET)
    frame, shown = frame_of(colourful, "yuv444p", 1, LIMITED)
    assert_near(fitted_from_video_frame(frame, model), shown, model)
    data = jpeg(colourful)
    assert_near(fitted_from_jpeg(data, model), shown_by_ffmpeg(data), model)
    assert_near(fitted(colourful, model), colourful, model)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad", "letterbox"])
def test_pictures_are_turned_before_they_are_fitted(
    colourful: Any, fit: str, orientation: int
) -> None:
    model = spec(fit=fit, crop_box=(40, 4, -8, -20))
    frame, shown = frame_of(colourful, "yuv420p", 1, LIMITED)
    seen = SEEN[orientation]
    found = fitted_from_video_frame(frame, model, Geometry(orientation))
    assert_near(found, seen(shown), model)
    data = jpeg(colourful, orientation)
    assert_near(fitted_from_jpeg(data, model), seen(shown_by_ffmpeg(data)), model)
    assert_near(fitted(colourful, model, Geometry(orientation)), seen(colourful), model)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad", "letterbox"])
def test_pixels_that_are_not_square_are_made_square(colourful: Any, fit: str) -> None:
    model = spec(fit=fit)
    frame, shown = frame_of(colourful, "yuv420p", 1, LIMITED)
    wide = cv2.resize(shown, (1280, 540), interpolation=cv2.INTER_LINEAR)
    assert_near(fitted_from_video_frame(frame, model, Geometry(aspect=4 / 3)), wide, model)


@pytest.mark.parametrize("fourcc", ["YUYV", "UYVY", "NV12", "NV21", "I420", "YV12"])
@pytest.mark.parametrize("height", [540, 538])
@pytest.mark.parametrize("box", [None, PRESET, (4, 20, -24, -20)])
def test_raw_frames_of_cameras_are_within_the_bound(
    colourful: Any, box: Any, height: int, fourcc: str
) -> None:
    model = spec(crop_box=box)
    raw, shown = raw_of(colourful[:height], fourcc)
    mode = Mode(960, height, fourcc=fourcc)
    assert_near(fitted_from_raw(raw, mode, model), shown, model)
    raw, shown = raw_of(colourful[:height], fourcc, matrix=1)
    assert_near(fitted_from_raw(raw, mode, model, matrix="bt709"), shown, model)


@pytest.mark.parametrize(
    "box", [None, PRESET, (0.25, 0.0, 1.0, 1.0), (3, 3, 970, 530), (3, 3, 400, 300)]
)
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad", "letterbox"])
def test_jpegs_are_decoded_smaller_whatever_is_cut_out_of_them(box: Any, fit: str) -> None:
    data = jpeg(street(1920, 1080))
    model = spec((40, 80), crop_box=box, fit=fit)
    reduced = reduced_from_jpeg(data, model)
    if box in {None, PRESET} and fit == "stretch":
        assert reduced is not None
        assert reduced.pixels.shape == ((540, 960, 3) if box else (270, 480, 3))
    assert_near(fitted_from_jpeg(data, model), shown_by_ffmpeg(data), model)
    grey = spec((40, 80), "grey", crop_box=box, fit=fit)
    luma, reference = fitted_from_jpeg(data, grey), reference_picture(shown_by_ffmpeg(data), grey)
    assert np.abs(luma.astype(float) - reference).mean() <= MEAN_ERROR


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("size", SIZES)
def test_images_are_within_the_bound(colourful: Any, size: tuple[int, int], color: str) -> None:
    model = spec(size, color, fit="crop", crop_box=PRESET)
    grey = cv2.cvtColor(colourful, cv2.COLOR_BGR2GRAY)
    for image in (colourful, colourful[:, ::-1], grey):
        assert_near(fitted(picture_from_image(image, "rgb"), model), image, model)


def test_large_images_are_made_smaller_first() -> None:
    image, model = street(1920, 1080), spec((80, 160))
    found, reference = fitted(image, model), reference_picture(image, model)
    assert 0 < np.abs(found.astype(float) - reference).mean() <= 0.3


def test_a_picture_of_the_models_size_is_taken_as_it_is() -> None:
    image = street(160, 80)
    assert np.array_equal(fitted(image, spec()), image.transpose(2, 0, 1)[::-1])
    first = fitted(image, spec(color="bgr"))
    fitted(255 - image, spec(color="bgr"))
    assert np.array_equal(first, image.transpose(2, 0, 1))  # no memory is shared


def stripes(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Full and no red, green and blue beside each other: what clips once chroma is shared."""
    bars = np.array([(0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255), (0, 0, 0)], np.uint8)
    return np.tile(bars[np.arange(width) // 3 % 5], (height, 1, 1))


def test_saturated_stripes_are_nearer_to_what_was_filmed_than_full_size_makes_them() -> None:
    """Shared chroma makes full-size colours clip, by up to 10 levels on average; these do not."""
    bars = stripes(960, 540)
    frame, shown = frame_of(bars, "yuv420p", 1, LIMITED)
    found, filmed = fitted_from_video_frame(frame, spec()), reference_picture(bars, spec())
    assert np.abs(found.astype(float) - filmed).mean() <= 0.5
    assert np.abs(reference_picture(shown, spec()).astype(float) - filmed).mean() >= 5
    frame, shown = frame_of(bars, "yuv444p", 1, LIMITED)
    assert_near(fitted_from_video_frame(frame, spec()), shown, spec())


def test_one_pass_is_refused_where_it_takes_more() -> None:
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(street(640, 480)), format="bgr24")
    frame = frame.reformat(format="yuv420p")
    for model, geometry in (
        (spec((384, 800)), Geometry()),
        (spec(interpolation="bicubic"), Geometry()),
        (spec(crop_box=PRESET), Geometry()),
        (spec(fit="crop"), Geometry(aspect=2.0)),
        (spec((100, 70), fit="pad"), Geometry()),
    ):
        assert picture_in_one_pass(frame, model, 5, geometry, is_full=False) is None
        assert fitted_from_video_frame(frame, model, geometry).shape == model.picture_shape


@pytest.mark.parametrize("color", ["grey", "rgb"])
def test_only_what_is_fitted_is_not_cropped(color: Any) -> None:
    """A camera's frame may have the shape of the input by chance."""
    model = spec((80, 160), color, crop_box=(0.0, 0.0, 0.5, 0.5))
    image = street(160, 80)
    cropped = fitted_from_image(image, model)
    assert np.array_equal(cropped, fitted(picture_from_image(image, color), model))
    assert not np.array_equal(cropped, fitted_from_image(image, spec(color=color)))
    assert fitted_from_image(cropped, model, is_fitted=True) is cropped
