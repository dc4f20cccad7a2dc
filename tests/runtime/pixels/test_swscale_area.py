from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from motorvae.runtime.pixels.swscale_area import PER_LEVEL, area_averages


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
    found = area_averages(plane, *size)
    assert found.shape == size
    assert found.dtype == np.uint16
    assert np.abs(found / PER_LEVEL - exact(plane, *size)).max() < 0.1


def test_how_a_plane_lies_in_memory_does_not_matter() -> None:
    whole = noise(90, 120)
    read_only = whole[10:80, 20:101]
    read_only.flags.writeable = False
    for view in (read_only, whole[::-1], whole[:, ::-1], whole[::2, ::3], whole.T, whole[:, 7:]):
        found = area_averages(view, 30, 30)
        assert np.array_equal(found, area_averages(np.ascontiguousarray(view), 30, 30))


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_a_flat_plane_stays_flat(level: int) -> None:
    found = area_averages(np.full((301, 457), level, np.uint8), 32, 96)
    assert (found == level * PER_LEVEL).all()


def test_threads_do_not_share_a_scaler() -> None:
    planes = [noise(300 + step, 400) for step in range(4)]
    expected = [area_averages(plane, 64, 64) for plane in planes]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            found = pool.map(lambda plane: area_averages(plane, 64, 64), planes)
            for one, other in zip(found, expected, strict=True):
                assert np.array_equal(one, other)
