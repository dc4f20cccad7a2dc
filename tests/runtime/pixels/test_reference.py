from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.convert import fitted, luma_from_image
from motorvae.runtime.pixels.reference import reference_picture

from .real_pictures import assert_within_bound, street

SIDE = 32
SIZES = [(1920, 1080), (1280, 720), (640, 480), (1367, 771)]


def spec(fit: Any = "stretch", side: int = SIDE) -> ModelSpec:
    return ModelSpec(image_size=side, channels=(8, 8), latent_size=4, fit=fit)


def weights(size: int) -> npt.NDArray[np.float64]:
    """(SIDE, size): what each pixel weighs, one pair at a time."""
    found = np.zeros((SIDE, size))
    for row in range(SIDE):
        if size >= SIDE:
            first, last = row * size / SIDE, (row + 1) * size / SIDE
            for pixel in range(size):
                inside = max(0.0, min(last, pixel + 1) - max(first, pixel))
                found[row, pixel] = inside * SIDE / size
        else:
            place = min(max((row + 0.5) * size / SIDE - 0.5, 0), size - 1)
            for pixel in range(size):
                found[row, pixel] = max(0.0, 1 - abs(place - pixel))
    return found


@pytest.mark.parametrize(
    "shape", [(64, 64), (100, 37), (33, 250), (20, 31), (1, 1), (1, 90), (128, 16), (32, 50)]
)
def test_it_is_the_product_with_two_matrices(shape: tuple[int, int]) -> None:
    luma = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
    expected = weights(shape[0]) @ luma.astype(np.float64) @ weights(shape[1]).T
    assert np.abs(reference_picture(luma, spec()) - expected).max() <= 0.5 + 1e-6


def test_colours_weigh_as_bt_601_says() -> None:
    image = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    blue, green, red = (image[:, :, channel].astype(float) for channel in range(3))
    expected = 0.299 * red + 0.587 * green + 0.114 * blue
    assert np.abs(reference_picture(image, spec()) - expected).max() <= 0.5 + 1e-6


def test_what_has_the_models_size_is_luma_and_nothing_else() -> None:
    grey = np.random.default_rng(4).integers(0, 256, (SIDE, SIDE), np.uint8)
    assert np.array_equal(reference_picture(grey, spec()), grey)


@pytest.mark.parametrize("shape", [(64, 96), (97, 64), (10, 33)])
def test_crop_and_pad_are_stretch_of_the_square(shape: tuple[int, int]) -> None:
    luma = np.random.default_rng(6).integers(0, 256, shape, np.uint8)
    top, left = ((length - min(shape)) // 2 for length in shape)
    centre = luma[top : top + min(shape), left : left + min(shape)]
    assert np.array_equal(reference_picture(luma, spec("crop")), reference_picture(centre, spec()))
    padded = np.full((max(shape), max(shape)), 255, np.uint8)
    top, left = ((max(shape) - length) // 2 for length in shape)
    padded[top : top + shape[0], left : left + shape[1]] = luma
    assert np.array_equal(reference_picture(luma, spec("pad")), reference_picture(padded, spec()))


@pytest.mark.parametrize("shape", [(0, 4), (4, 4, 2), (0, 4, 3)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError):
        reference_picture(np.zeros(shape, np.uint8), spec())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_the_fast_path_of_images_is_within_the_bound(size: tuple[int, int], fit: str) -> None:
    image, model = street(*size), spec(fit, 256)
    assert_within_bound(fitted(luma_from_image(image), model), reference_picture(image, model))
