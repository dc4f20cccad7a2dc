from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.convert import fitted_plane
from motorvae.runtime.pixels.reference import reference_picture
from motorvae.runtime.pixels.resample import PER_LEVEL, averaged, levels_from_averages

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
    assert np.abs(found.astype(int) - averaged(padded, SIDE, SIDE)).max() <= 16


@pytest.mark.parametrize("shape", [(64, 20000), (20000, 40), (16, 9000)])
def test_ratios_that_no_camera_has_are_averaged_as_well(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    found = fitted_plane(plane, spec("stretch"), shape)
    assert np.abs(found / 256 - reference_picture(plane, spec("stretch"))).max() <= 1.5


def test_levels_are_rounded_once_and_stop_at_white() -> None:
    averages = np.array([[0, 127, 129, 256, 300 * 128, 255 * 256]], np.uint16)
    assert levels_from_averages(averages).tolist() == [[0, 0, 1, 1, 150, 255]]
    assert levels_from_averages(averages, 2.0).tolist() == [[0, 1, 1, 2, 255, 255]]


def weights(size: int, count: int) -> npt.NDArray[np.float64]:
    """(count, size): the share of each pixel in each area, each row summing to 1."""
    edges = np.arange(count + 1) * size / count
    pixels = np.arange(size)
    first = np.maximum(edges[:-1, None], pixels)
    last = np.minimum(edges[1:, None], pixels + 1)
    return np.clip(last - first, 0, None) * count / size


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(height + width).integers(0, 256, (height, width), np.uint8)


def exact(plane: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.float64]:
    rows, columns = (weights(*sizes) for sizes in zip(plane.shape, (height, width), strict=True))
    return rows @ plane.astype(np.float64) @ columns.T


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1080, 1920), (256, 256)),
        ((771, 1367), (256, 256)),
        ((257, 256), (256, 256)),
        ((256, 1000), (256, 96)),
        ((33, 47), (32, 32)),
        ((64, 128 * 32), (32, 32)),
    ],
)
def test_each_pixel_counts_by_the_share_of_it_that_lies_inside(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    plane = noise(*shape)
    found = averaged(plane, *size)
    assert found.shape == size
    assert found.dtype == np.uint16
    assert np.abs(found / PER_LEVEL - exact(plane, *size)).max() < 0.1


def test_how_a_plane_lies_in_memory_does_not_matter() -> None:
    whole = noise(90, 120)
    read_only = whole[10:80, 20:101]
    read_only.flags.writeable = False
    for view in (read_only, whole[::-1], whole[:, ::-1], whole[::2, ::3], whole.T, whole[:, 7:]):
        found = averaged(view, 30, 30)
        assert np.array_equal(found, averaged(np.ascontiguousarray(view), 30, 30))


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_a_flat_plane_stays_flat(level: int) -> None:
    found = averaged(np.full((301, 457), level, np.uint8), 32, 96)
    assert (found == level * PER_LEVEL).all()


def test_threads_do_not_share_a_scaler() -> None:
    planes = [noise(300 + step, 400) for step in range(4)]
    expected = [averaged(plane, 64, 64) for plane in planes]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            found = pool.map(lambda plane: averaged(plane, 64, 64), planes)
            for one, other in zip(found, expected, strict=True):
                assert np.array_equal(one, other)
