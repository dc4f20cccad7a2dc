"""Turned pictures of pixels that are not square, judged by exact coverage in float64."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.camera_formats import reduced_from_jpeg
from motorvae.runtime.pixels.convert import fitted
from motorvae.runtime.pixels.geometry import (
    AS_CODED,
    Geometry,
    orientation_of_matrix,
    sane_aspect,
)
from motorvae.runtime.pixels.yuv import fitted_from_video_frame

from .real_pictures import street

SIDE = 128
SEEN = {  # what EXIF's numbers ask for, by numpy
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).T,
    8: np.rot90,
}


def spec(fit: Any) -> ModelSpec:
    return ModelSpec(image_size=SIDE, channels=(8, 8), latent_size=4, fit=fit)


def coverage(length: int, start: float, step: float) -> npt.NDArray[np.float64]:
    """(SIDE, length): how much of each pixel of a line lies in each interval, in shares of it."""
    edges = start + step * np.arange(SIDE + 1)
    pixels = np.arange(length)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    return np.clip(high - low, 0, None) / step


def exact(coded: npt.NDArray[np.uint8], aspect: Fraction, fit: str) -> npt.NDArray[np.float64]:
    """Fit a coded picture whose pixels are `aspect` wide and 1 high, with what is outside white."""
    height, width = coded.shape
    steps = [height / SIDE, width / SIDE]
    starts = [0.0, 0.0]
    if fit != "stretch":
        sizes = height, width * float(aspect)
        square = min(sizes) if fit == "crop" else max(sizes)
        steps = [square / SIDE, square / float(aspect) / SIDE]
        starts = [(height - square) / 2, (width - square / float(aspect)) / 2]
    down, across = (
        coverage(length, start, step)
        for length, start, step in zip(coded.shape, starts, steps, strict=True)
    )
    covered = down.sum(axis=1)[:, None] * across.sum(axis=1)
    return down @ coded @ across.T + 255 * (1 - covered)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize(
    ("width", "height", "aspect"),
    [
        (720, 576, "64/45"),
        (720, 480, "8/9"),
        (1440, 1080, "4/3"),
        (481, 577, "2"),
        (640, 271, "1/3"),
    ],
)
@pytest.mark.parametrize("orientation", [1, 7])
def test_pixels_of_any_shape_are_fitted_as_they_are_seen(
    width: int, height: int, aspect: str, fit: str, orientation: int
) -> None:
    coded = cv2.cvtColor(street(width, height), cv2.COLOR_BGR2GRAY).astype(np.uint8)
    ratio = Fraction(aspect)
    expected = SEEN[orientation](exact(coded, ratio, fit))
    geometry = Geometry(orientation, float(ratio))
    luma = fitted(coded, spec(fit), geometry)
    assert np.abs(luma - expected).mean() <= 1.0
    frame = VideoFrame.from_ndarray(coded, format="gray")
    assert np.array_equal(fitted_from_video_frame(frame, spec(fit), geometry), luma)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(96, 63), (301, 640)])
@pytest.mark.parametrize("matrix", [1, 5])
def test_a_fitted_from_image_is_turned_as_the_whole_one_would_be(
    size: tuple[int, int], orientation: int, fit: str, matrix: int
) -> None:
    """Also where an odd line lies before or behind the square that is cut out."""
    noise = np.random.default_rng(0).integers(16, 236, (size[1], size[0]), np.uint8)
    frame = VideoFrame(size[0], size[1], "yuv444p")
    seen = SEEN[orientation](noise)
    other = VideoFrame(seen.shape[1], seen.shape[0], "yuv444p")
    for target, y in ((frame, noise), (other, seen)):
        for plane, levels in zip(target.planes, (y, 0 * y + 90, 0 * y + 140), strict=True):
            rows = np.zeros((plane.height, plane.line_size), np.uint8)
            rows[:, : plane.width] = levels
            plane.update(rows.tobytes())
        target.colorspace = matrix
    turned = fitted_from_video_frame(frame, spec(fit), Geometry(orientation))
    assert np.abs(turned.astype(int) - fitted_from_video_frame(other, spec(fit))).max() <= 1


def test_a_jpeg_of_pixels_that_are_not_square_is_decoded_whole() -> None:
    data = cv2.imencode(".jpg", street(1280, 1024))[1].tobytes()
    small = ModelSpec(image_size=32, channels=(8, 8), latent_size=4, fit="crop")
    for aspect, shape in ((1.0, (128, 160)), (2.0, (1024, 1280))):
        reduced = reduced_from_jpeg(data, small, geometry=Geometry(aspect=aspect))
        assert reduced is not None
        assert reduced.pixels.shape == shape


@pytest.mark.parametrize(
    ("ratio", "aspect"),
    [
        (None, 1),
        (Fraction(64, 45), 64 / 45),
        (Fraction(1, 4000), 1),
        (Fraction(4000), 1),
        (Fraction(0), 1),
        (Fraction(-4, 3), 1),
        (Fraction(16), 16),
    ],
)
def test_absurd_shapes_of_pixels_are_square(ratio: Fraction | None, aspect: float) -> None:
    assert sane_aspect(ratio) == aspect


def matrix_of(degrees: float, scale: float = 1.0, *, mirrored: bool = False) -> bytes:
    """A display matrix that turns clockwise by so much, after mirroring left and right."""
    cosine, sine = (scale * f(math.radians(degrees)) for f in (math.cos, math.sin))
    a, b, c, d = -cosine if mirrored else cosine, -sine if mirrored else sine, -sine, cosine
    numbers = (round(65536 * one) for one in (a, b, c, d))
    a, b, c, d = numbers
    return struct.pack("=9i", a, b, 0, c, d, 0, 640 << 16, 480 << 16, 1 << 30)


def test_matrices_are_told_by_where_they_lead() -> None:
    for scale in (0.01, 1.0, 3.0):
        for wobble in (-0.9, 0.0, 0.9):
            turns = [matrix_of(90 * n + wobble, scale) for n in range(4)]
            assert [orientation_of_matrix(turn) for turn in turns] == [1, 6, 3, 8]
            turns = [matrix_of(90 * n + wobble, scale, mirrored=True) for n in range(4)]
            assert [orientation_of_matrix(turn) for turn in turns] == [2, 7, 4, 5]
    assert orientation_of_matrix(bytes(36)) == 1


@pytest.mark.parametrize("degrees", [2, 30, 45, 88, 135, 200, 359 - 2])
def test_a_slant_is_refused_with_its_angle(degrees: int) -> None:
    with pytest.raises(ImageError, match=r"turned by -?[0-9.]+ degrees, which is no multiple of 9"):
        orientation_of_matrix(matrix_of(degrees))
    sheared = struct.pack("=9i", 65536, 0, 0, 65536, 65536, 0, 0, 0, 1 << 30)
    with pytest.raises(ImageError, match="no multiple of 90"):
        orientation_of_matrix(sheared)


def test_what_is_as_coded_is_not_copied() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    assert AS_CODED.seen(image) is image
    luma = np.zeros((SIDE, SIDE), np.uint8)
    assert fitted(luma, spec("crop")) is luma
