from __future__ import annotations

import cv2
import numpy as np
import pytest

from motorvae.runtime.ood.appearance import Appearance
from motorvae.runtime.sources.synthetic.vehicles import vehicle


def values_of(image: np.ndarray) -> dict[str, float]:
    appearance = Appearance(*image.shape)
    return dict(zip(appearance.names, appearance.measure(image).tolist(), strict=True))


def test_bands_are_energies_of_the_haar_transform() -> None:
    """Against the sum of squared differences of each step, worked out the long way."""
    image = vehicle(1, 2, 64)[0]
    found, mean = values_of(image), image.astype(np.float64)
    for block in (2, 4, 8, 16):
        parts = [mean[i::2, j::2] for i in (0, 1) for j in (0, 1)]
        coarse = np.mean(parts, axis=0)
        energy = np.mean([(part - coarse) ** 2 for part in parts])
        assert found[f"band {block}"] == pytest.approx(np.log(energy + 0.05), rel=1e-3)
        blocks = image.reshape(64 // block, block, -1, block).astype(np.float64)
        if block == 4:
            texture = np.log(blocks.var(axis=(1, 3)) + 0.05)
            assert found[f"texture {block}"] == pytest.approx(texture.mean(), abs=2e-2)
            spread = np.log(texture.std() + 0.02)
            assert found[f"texture spread {block}"] == pytest.approx(spread, abs=2e-2)
        mean = coarse


def test_exposure_and_layout_are_told() -> None:
    image = np.full((64, 64), 100, np.uint8)
    image[:16], image[16:32] = 255, 0
    found = values_of(image)
    assert found["white"] == pytest.approx(np.log(0.25 + 1e-3))
    assert found["black"] == pytest.approx(np.log(0.25 + 1e-3))
    assert found["quantile 0.5"] == 100 / 16
    assert found["quantile 0.98"] == 255 / 16
    rows = [[found[f"layout {row},{column}"] for column in (1, 2, 3, 4)] for row in (1, 2, 3, 4)]
    np.testing.assert_allclose(rows, np.repeat([[255 / 16], [0], [6.25], [6.25]], 4, axis=1))


@pytest.mark.parametrize("side", [8, 32, 34, 64, 96, 160, 224, 256, 320, 512])
def test_every_side_has_its_values_under_as_many_names(side: int) -> None:
    appearance = Appearance(side, side)
    image = cv2.resize(vehicle(1, 1, 64)[0], (side, side))
    first = appearance.measure(image).copy()
    assert first.shape == (len(appearance.names),) == (len(set(appearance.names)),)
    assert np.isfinite(first).all()
    assert not np.array_equal(first, appearance.measure(255 - image))
    np.testing.assert_array_equal(first, appearance.measure(image))  # nothing is left over


@pytest.mark.parametrize("shade", [0, 1, 128, 255])
def test_a_flat_image_has_finite_values(shade: int) -> None:
    assert np.isfinite(Appearance(64, 64).measure(np.full((64, 64), shade, np.uint8))).all()


def test_a_large_image_is_averaged_down_first() -> None:
    image = vehicle(1, 3, 256)[0]
    large = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(
        Appearance(512, 512).measure(large), Appearance(256, 256).measure(image).copy()
    )
