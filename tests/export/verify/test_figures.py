from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motorvae.export.verify.figures import (
    cosines,
    floored_spread,
    neighbour_agreement,
    worst_psnr_db,
)


def test_collapsed_latent_does_not_divide_by_nothing() -> None:
    spread = floored_spread(np.array([1.0, 1.0, 0.0, 1e-9]))
    assert spread[0] == 1.0
    assert spread[2] == spread[3] == pytest.approx(0.01 * np.sqrt(0.5))
    assert (floored_spread(np.zeros(3)) > 0).all()


@given(st.integers(2, 30), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_neighbours_agree_with_themselves_and_under_rotation(n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    latents = rng.standard_normal((n, d))
    assert neighbour_agreement(latents, latents) == 1.0
    turned = latents @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    assert neighbour_agreement(turned, latents) > 0.9


def test_unrelated_latents_share_few_neighbours() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 200, 16))
    assert neighbour_agreement(one, other) < 0.15


def test_psnr_and_cosine_by_hand() -> None:
    one = np.zeros((2, 1, 2, 2))
    other = one.copy()
    assert worst_psnr_db(one, other) == float("inf")
    other[1] = 0.1
    assert worst_psnr_db(one, other) == pytest.approx(20.0)
    assert np.isnan(worst_psnr_db(one * np.float32("nan"), other))
    found = cosines(np.array([[1.0, 0], [1, 1]]), np.array([[1.0, 0], [1, 0]]))
    assert found == pytest.approx([1, np.sqrt(0.5)])


def test_near_equal_images_may_change_places() -> None:
    """A video that stands still: neighbours are nearer than any two scenes."""
    rng = np.random.default_rng(1)
    scenes = rng.standard_normal((8, 16)).repeat(20, axis=0)
    one, other = (scenes + 1e-3 * rng.standard_normal(scenes.shape) for _ in range(2))
    assert neighbour_agreement(one, other) == 1.0
    mixed = rng.permutation(one)
    assert neighbour_agreement(mixed, other) < 0.3
