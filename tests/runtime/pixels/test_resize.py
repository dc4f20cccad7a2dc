from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.reference import reference_luma
from motorvae.runtime.pixels.resize import fitted_plane, levels_from_averages
from motorvae.runtime.pixels.swscale_area import area_averages

SIDE = 32


def spec(fit: Any) -> ModelSpec:
    return ModelSpec(image_size=SIDE, channels=(8, 8), latent_size=4, fit=fit)


def blocks(height: int, width: int, down: int, across: int) -> Any:
    """A picture of blocks of one level, and the plane that has one pixel for each of them."""
    small = np.random.default_rng(5).integers(0, 256, (height // down, width // across), np.uint8)
    return np.repeat(np.repeat(small, down, axis=0), across, axis=1), small


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("divisors", [(2, 2), (1, 2), (2, 1), (4, 4)])
@pytest.mark.parametrize("shape", [(256, 384), (384, 256), (512, 512), (264, 440)])
def test_a_plane_at_a_fraction_of_the_size_is_fitted_as_the_whole_image(
    fit: str, divisors: tuple[int, int], shape: tuple[int, int]
) -> None:
    whole, part = blocks(*shape, *divisors)
    found = fitted_plane(part, spec(fit), shape)
    assert np.abs(found.astype(int) - fitted_plane(whole, spec(fit), shape)).max() <= 16


@pytest.mark.parametrize("shape", [(216, 384), (240, 320), (320, 240), (131, 320)])
@pytest.mark.parametrize("white", [235, 255])
def test_a_border_is_white_wherever_it_ends(shape: tuple[int, int], white: int) -> None:
    """Where it ends between two pixels, both shares are averaged."""
    plane = np.random.default_rng(1).integers(0, 200, shape, np.uint8)
    square = max(shape)
    padded = np.full((square, square), white, np.uint8)
    top, left = ((square - length) // 2 for length in shape)
    padded[top : top + shape[0], left : left + shape[1]] = plane
    found = fitted_plane(plane, spec("pad"), shape, white)
    assert np.abs(found.astype(int) - area_averages(padded, SIDE, SIDE)).max() <= 16


@pytest.mark.parametrize("shape", [(64, 20000), (20000, 40), (16, 9000)])
def test_ratios_that_no_camera_has_are_averaged_as_well(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    found = fitted_plane(plane, spec("stretch"), shape)
    assert np.abs(found / 256 - reference_luma(plane, spec("stretch"))).max() <= 1.5


def test_levels_are_rounded_once_and_stop_at_white() -> None:
    averages = np.array([[0, 127, 129, 256, 300 * 128, 255 * 256]], np.uint16)
    assert levels_from_averages(averages).tolist() == [[0, 0, 1, 1, 150, 255]]
    assert levels_from_averages(averages, 2.0).tolist() == [[0, 1, 1, 2, 255, 255]]
