from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.core.spec import Fit, Interpolation, ModelSpec
from motorvae.runtime.pixels.reference import axis_weights, fitted_region, reference_picture

from .area_table import reference_luma
from .real_pictures import street

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SHAPES = [(64, 96), (100, 37), (33, 250), (20, 31), (1, 1), (1, 90), (128, 16), (32, 50), (47, 48)]


def spec(size: Any = (32, 48), color: Any = "grey", **others: Any) -> ModelSpec:
    return ModelSpec(image_size=size, color=color, channels=(8, 8), latent_size=4, **others)


def noise(*shape: int, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    return np.random.default_rng(3).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def by_pillow(
    plane: npt.NDArray[Any], size: tuple[int, int], kind: Image.Resampling
) -> npt.NDArray[np.float64]:
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize(size[::-1], kind, box=None, reducing_gap=None), np.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("interpolation", FILTERS)
def test_widened_filters_are_pillows(shape: tuple[int, int], interpolation: str) -> None:
    plane, kind = noise(*shape), cast("Interpolation", interpolation)
    down, across = axis_weights(shape[0], 32, kind), axis_weights(shape[1], 48, kind)
    expected = by_pillow(plane, (32, 48), FILTERS[interpolation])
    assert np.abs(down @ plane @ across.T - expected).max() <= 1e-3  # Pillow's is in float32


@pytest.mark.parametrize("shape", SHAPES)
def test_two_pixels_an_axis_are_opencvs(shape: tuple[int, int]) -> None:
    plane = noise(*shape).astype(np.float32)
    down = axis_weights(shape[0], 32, "bilinear-no-antialias")
    across = axis_weights(shape[1], 48, "bilinear-no-antialias")
    expected = cv2.resize(plane, (48, 32), interpolation=cv2.INTER_LINEAR)
    assert np.abs(down @ plane @ across.T - expected).max() <= 1e-3


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", SHAPES)
def test_area_is_what_the_grey_reference_computes(shape: tuple[int, int], fit: Fit) -> None:
    image, model = noise(*shape), spec(32, fit=fit)
    assert_same(reference_picture(image, model), reference_luma(image, model))


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_become_the_grey_that_they_did(channels: int, dtype: Any) -> None:
    image = noise(70, 90, channels, dtype=dtype)
    assert_same(reference_picture(image, spec(32)), reference_luma(image, spec(32)), most=1)


def assert_same(found: Any, expected: Any, most: float = 0.001) -> None:
    """Equal but where a half was rounded the other way."""
    different = found.astype(int) - expected
    assert np.abs(different).max() <= 1
    assert np.abs(different).mean() <= min(most, 0.1)


def test_a_street_is_the_grey_reference_too() -> None:
    for size in ((1920, 1080), (853, 479)):
        assert_same(
            reference_picture(street(*size), spec(256)), reference_luma(street(*size), spec(256))
        )


@pytest.mark.parametrize("interpolation", ["area", *FILTERS, "bilinear-no-antialias"])
def test_a_part_is_resized_as_if_it_were_all(interpolation: Interpolation) -> None:
    part = axis_weights(100, 32, interpolation, 11, 88)
    assert np.allclose(part[:, 11:88], axis_weights(77, 32, interpolation), atol=1e-12)
    assert not part[:, :11].any()
    assert not part[:, 88:].any()


@pytest.mark.parametrize("interpolation", ["area", *FILTERS, "bilinear-no-antialias"])
@pytest.mark.parametrize("length", [20, 100])
def test_what_lies_beyond_is_weight_that_is_missing(
    interpolation: Interpolation, length: int
) -> None:
    wide = axis_weights(length, 32, interpolation, -7, length + 8)
    whole = axis_weights(length + 15, 32, interpolation)
    assert np.allclose(wide, whole[:, 7:-8], atol=1e-12)
    assert np.allclose(whole.sum(axis=1), 1)


@pytest.mark.parametrize("interpolation", ["area", *FILTERS, "bilinear-no-antialias"])
@pytest.mark.parametrize("shape", [(64, 96), (97, 64), (10, 33)])
def test_pad_adds_white_before_it_resizes(
    shape: tuple[int, int], interpolation: Interpolation
) -> None:
    image, model = noise(*shape, 3), spec(color="bgr", fit="pad", interpolation=interpolation)
    top, left, height, width = fitted_region(shape, model)
    padded = np.full((height, width, 3), 255, np.uint8)
    padded[-top : -top + shape[0], -left : -left + shape[1]] = image
    stretched = model.model_copy(update={"fit": "stretch"})
    assert_same(reference_picture(image, model), reference_picture(padded, stretched))


@pytest.mark.parametrize(
    ("fit", "shape", "region"),
    [
        ("stretch", (100, 300), (0, 0, 100, 300)),
        ("crop", (100, 301), (0, 75, 100, 150)),
        ("crop", (100, 90), (20, 0, 60, 90)),
        ("crop", (101, 90), (20, 0, 60, 90)),
        ("pad", (100, 300), (-50, 0, 200, 300)),
        ("pad", (101, 300), (-49, 0, 200, 300)),
        ("pad", (100, 91), (0, -29, 100, 150)),
        ("pad", (64, 96), (0, 0, 64, 96)),
        ("crop", (1, 1), (0, 0, 1, 1)),
    ],
)
def test_what_fits_has_the_models_aspect_ratio(
    fit: Fit, shape: tuple[int, int], region: tuple[int, int, int, int]
) -> None:
    assert fitted_region(shape, spec(fit=fit)) == region


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_planes_come_in_the_order_of_the_model(color: str) -> None:
    image = noise(64, 96, 3)
    picture = reference_picture(image, spec(color=color))
    assert picture.shape == (3, 32, 48)
    for plane, channel in zip(picture, range(3) if color == "bgr" else (2, 1, 0), strict=True):
        assert_same(plane, reference_picture(image[:, :, channel], spec()))


def test_alpha_lies_over_white_and_grey_is_three_equal_planes() -> None:
    image = noise(32, 48, 4)
    image[..., 3] = 0
    assert (reference_picture(image, spec(color="rgb")) == 255).all()
    grey = noise(32, 48)
    assert (reference_picture(grey, spec(color="rgb")) == grey).all()


def test_nothing_outside_the_crop_box_counts() -> None:
    image = noise(90, 120, 3)
    for interpolation in ("area", "bicubic"):
        model = spec(color="rgb", crop_box=(5, 20, -25, -20), interpolation=interpolation)
        inside = image[20:70, 5:95]
        whole = model.model_copy(update={"crop_box": None})
        assert np.array_equal(reference_picture(image, model), reference_picture(inside, whole))


def test_bicubic_overshoots_are_black_and_white() -> None:
    edge = np.repeat(np.array([0, 255], np.uint8), 24)[None].repeat(32, axis=0)
    picture = reference_picture(edge, spec((32, 96), interpolation="bicubic"))
    assert np.array_equal(np.unique(picture[:, :40]), [0])
    assert np.array_equal(np.unique(picture[:, 56:]), [255])


def test_large_pictures_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    image, model = noise(90, 120, 3), spec(color="rgb", fit="pad")
    whole = reference_picture(image, model)
    monkeypatch.setattr("motorvae.runtime.pixels.reference._STRIPE", 1000)
    assert_same(reference_picture(image, model), whole)


@pytest.mark.parametrize("shape", [(0, 4), (4, 4, 2), (0, 4, 3), (4,), (1, 4, 4, 3)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError):
        reference_picture(np.zeros(shape, np.uint8), spec())


def test_what_the_crop_box_takes_nothing_of_is_refused() -> None:
    with pytest.raises(ImageError, match="takes nothing of 30 x 40 pixels"):
        reference_picture(noise(40, 30), spec(crop_box=(5, 20, -25, -20)))


def test_floats_are_refused() -> None:
    with pytest.raises(ImageError, match="float64"):
        reference_picture(np.zeros((4, 4)), spec())


@pytest.mark.parametrize("size", [(48, 48), (32, 80), (80, 32)])
@pytest.mark.parametrize("shape", [(97, 211), (211, 97), (20, 31), (64, 64), (1, 90)])
def test_a_letterbox_is_pillows_resize_pasted_on_white(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    image, model = noise(*shape), spec(size, fit="letterbox", interpolation="lanczos")
    factor = min(size[0] / shape[0], size[1] / shape[1])
    tall, wide = (max(1, int(length * factor + 1e-9)) for length in shape)
    exact = Image.fromarray(image.astype(np.float32))  # of bytes Pillow clips after each axis
    small = exact.resize((wide, tall), Image.Resampling.LANCZOS)
    canvas = Image.new("F", size[::-1], 255)
    canvas.paste(small, ((size[1] - wide) // 2, (size[0] - tall) // 2))
    expected = np.clip(np.asarray(canvas), 0, 255)
    assert np.abs(reference_picture(image, model) - expected).max() <= 0.501
