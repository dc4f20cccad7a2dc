from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.convert import fitted, input_from_pixels, luma_from_image, write_input
from motorvae.runtime.pixels.geometry import Geometry

Array = npt.NDArray[np.uint8]
BT601_BGR = np.array([0.114, 0.587, 0.299])
SIDE = 32


def input_from_image(image: Any, spec: ModelSpec, out: Any = None) -> Any:
    """The steps from any image to the encoder's input."""
    luma = fitted(luma_from_image(image), spec)
    if out is None:
        return input_from_pixels(luma)
    write_input(luma, out)
    return out


def spec(fit: str = "stretch", side: int = SIDE) -> ModelSpec:
    return ModelSpec.model_validate({"image_size": side, "fit": fit, "channels": (4,)})


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def area_weights(size: int, smaller: int) -> npt.NDArray[np.float64]:
    """(smaller, size): how much of each output cell each input cell covers."""
    edges = np.arange(smaller + 1) * size / smaller
    cells = np.arange(size)
    low = np.maximum(edges[:-1, None], cells)
    high = np.minimum(edges[1:, None], cells + 1)
    return np.clip(high - low, 0, None) * smaller / size


def linear_weights(size: int, larger: int) -> npt.NDArray[np.float64]:
    """(larger, size): linear interpolation between cell centres, the border repeated."""
    centre = np.clip((np.arange(larger) + 0.5) * size / larger - 0.5, 0, size - 1)
    return np.clip(1 - np.abs(centre[:, None] - np.arange(size)), 0, None)


def test_luma_has_bt601_weights() -> None:
    image = noise(64, 80, 3)
    reference = image.astype(np.float64) @ BT601_BGR
    assert np.abs(luma_from_image(image) - reference).max() <= 1


def test_white_stays_white_and_black_black() -> None:
    for level in (0, 255):
        assert (luma_from_image(np.full((4, 4, 3), level, np.uint8)) == level).all()


def test_alpha_goes_over_white() -> None:
    image = noise(40, 50, 4)
    alpha = image[:, :, 3:] / 255
    reference = (image[:, :, :3] * alpha + 255 * (1 - alpha)) @ BT601_BGR
    assert np.abs(luma_from_image(image) - reference).max() <= 1
    assert (luma_from_image(np.zeros((3, 3, 4), np.uint8)) == 255).all()


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_sixteen_bits_scale_to_eight(channels: int) -> None:
    eight = noise(30, 20, channels) if channels else noise(30, 20)
    exact = eight.astype(np.uint16) * 257
    assert np.abs(luma_from_image(exact).astype(int) - luma_from_image(eight)).max() == 0
    assert luma_from_image(np.full((2, 2), 65535, np.uint16)).max() == 255


def test_grey_is_not_copied() -> None:
    grey = noise(9, 7)
    assert np.shares_memory(luma_from_image(grey), grey)
    assert np.shares_memory(luma_from_image(grey[:, :, None]), grey)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 3), np.int32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((), np.uint8),
    ],
)
def test_another_shape_or_dtype_is_refused_and_quoted(image: npt.NDArray[np.generic]) -> None:
    with pytest.raises(ImageError) as caught:
        luma_from_image(image)
    assert str(image.shape) in str(caught.value)
    assert str(image.dtype) in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0, 3)])
def test_an_image_without_pixels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="no pixels"):
        luma_from_image(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(64, 64), (96, 160), (480, 640), (100, 37), (33, 250), (32, 99)])
def test_shrinking_averages_areas(shape: tuple[int, int]) -> None:
    luma = noise(*shape)
    down, across = (area_weights(size, SIDE) for size in shape)
    reference = down @ luma.astype(np.float64) @ across.T
    assert np.abs(fitted(luma, spec()) - reference).max() <= 1


@pytest.mark.parametrize("shape", [(16, 16), (20, 31), (32, 8), (1, 1), (5, 32)])
def test_growing_interpolates(shape: tuple[int, int]) -> None:
    luma = noise(*shape)
    down, across = (linear_weights(size, SIDE) for size in shape)
    reference = down @ luma.astype(np.float64) @ across.T
    assert np.abs(fitted(luma, spec()) - reference).max() <= 1


@pytest.mark.parametrize("shape", [(128, 16), (16, 128), (45, 31), (31, 45)])
def test_one_axis_shrinks_by_area_while_the_other_grows(shape: tuple[int, int]) -> None:
    luma = noise(*shape)
    down, across = (
        area_weights(size, SIDE) if size > SIDE else linear_weights(size, SIDE) for size in shape
    )
    reference = down @ luma.astype(np.float64) @ across.T
    assert np.abs(fitted(luma, spec()) - reference).max() <= 1.5  # rounded twice


@pytest.mark.parametrize("shape", [(64, 96), (97, 64), (64, 64), (33, 40)])
def test_crop_keeps_the_centre(shape: tuple[int, int]) -> None:
    luma = noise(*shape)
    square = min(shape)
    top, left = ((size - square) // 2 for size in shape)
    centre = luma[top : top + square, left : left + square]
    assert np.array_equal(fitted(luma, spec("crop")), fitted(centre, spec()))


@pytest.mark.parametrize("shape", [(64, 96), (97, 64), (10, 33)])
def test_pad_adds_white_on_both_sides(shape: tuple[int, int]) -> None:
    luma = noise(*shape)
    square = max(shape)
    padded = np.full((square, square), 255, np.uint8)
    top, left = ((square - size) // 2 for size in shape)
    padded[top : top + shape[0], left : left + shape[1]] = luma
    assert np.array_equal(fitted(luma, spec("pad")), fitted(padded, spec()))


@pytest.mark.parametrize(
    ("shape", "aspect"), [((15, 65_499), 1.0), ((65_499, 15), 1.0), ((1, 32_001), 16.0)]
)
def test_what_is_too_long_to_be_padded_takes_no_memory(
    shape: tuple[int, int], aspect: float
) -> None:
    luma = np.full(shape, 255, np.uint8)
    with pytest.raises(ImageError, match=r"million when padded to a square.*another --fit"):
        fitted(luma, spec("pad"), Geometry(aspect=aspect))
    assert fitted(luma, spec(), Geometry(aspect=aspect)).min() == 255


def test_an_image_that_fits_is_not_copied() -> None:
    luma = noise(SIDE, SIDE)
    assert fitted(luma, spec()) is luma


def test_the_input_is_luma_over_255_in_the_buffer_given() -> None:
    image = noise(SIDE, SIDE)
    buffer = np.full((SIDE, SIDE), np.nan, np.float32)
    result = input_from_image(image, spec(), buffer)
    assert result is buffer
    assert np.array_equal(result, image * np.float32(1 / 255))
    again = input_from_image(255 - image, spec(), buffer)
    assert again is buffer
    assert np.array_equal(again, (255 - image) * np.float32(1 / 255))


def test_a_slot_of_a_batch_is_filled_in_place_and_alone() -> None:
    batch = np.full((3, 1, SIDE, SIDE), -1, np.float32)
    input_from_image(noise(50, 60, 3), spec(), batch[1, 0])
    assert (batch[[0, 2]] == -1).all()
    assert (batch[1] >= 0).all()
    assert (batch[1] <= 1).all()


def test_every_level_maps_to_its_own_float() -> None:
    levels = np.arange(256, dtype=np.uint8)
    scaled = input_from_pixels(levels)
    assert scaled.dtype == np.float32
    assert len(np.unique(scaled)) == 256
    assert scaled[0] == 0
    assert scaled[255] <= 1
    assert np.abs(scaled - levels / 255).max() < 1e-7


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad", "letterbox"])
@pytest.mark.parametrize("channels", [None, 3, 4])
def test_how_an_image_lies_in_memory_does_not_matter(fit: str, channels: int | None) -> None:
    shape = (70, 90) if channels is None else (70, 90, channels)
    image = noise(*shape)
    mirrored, flipped, coarse = image[:, ::-1], image[::-1], image[::2, ::3]
    swapped = image.swapaxes(0, 1)
    fortran = np.asfortranarray(image)
    for view in (mirrored, flipped, coarse, swapped, fortran):
        found = input_from_image(view, spec(fit))
        assert np.array_equal(found, input_from_image(view.copy(order="C"), spec(fit)))


def test_a_read_only_image_is_left_as_it_was() -> None:
    image = noise(50, 40, 4)
    image.setflags(write=False)
    before = image.copy()
    input_from_image(image, spec("pad"))
    assert np.array_equal(image, before)


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    channels=st.sampled_from([None, 1, 3, 4]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    fit=st.sampled_from(["stretch", "crop", "pad", "letterbox"]),
)
def test_any_image_becomes_a_whole_input(
    data: st.DataObject,
    height: int,
    width: int,
    channels: int | None,
    dtype: type[np.uint8 | np.uint16],
    fit: str,
) -> None:
    shape = (height, width) if channels is None else (height, width, channels)
    image = data.draw(st_numpy.arrays(dtype, shape))
    before = image.copy()
    found = input_from_image(image, spec(fit))
    assert found.shape == (SIDE, SIDE)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert np.array_equal(image, before)
    assert np.array_equal(found, input_from_image(image, spec(fit)))


@settings(max_examples=60, deadline=None)
@given(
    level=st.integers(0, 255),
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    fit=st.sampled_from(["stretch", "crop"]),
)
def test_a_flat_image_stays_flat(level: int, height: int, width: int, fit: str) -> None:
    luma = fitted(np.full((height, width), level, np.uint8), spec(fit))
    assert (luma == level).all()
