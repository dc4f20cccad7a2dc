from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motorvae.export.verify.metrics import (
    FEWEST_FOR_BOUND,
    cosines,
    extreme_metric,
    floored_spread,
    metric,
    neighbour_agreement,
    note_on_few,
    psnr_metric,
    share_of_limit,
    squared_errors,
)


def test_largest_figure_is_judged_by_what_fresh_images_may_reach() -> None:
    samples = np.random.default_rng(0).exponential(0.02, 256)
    found = extreme_metric("error", samples, 1.0)
    assert found.bound is not None
    assert found.value == samples.max() < found.bound < 3 * samples.max()
    between = (found.value + found.bound) / 2
    assert found.passed
    assert not extreme_metric("error", samples, between).passed
    few = extreme_metric("error", samples[: FEWEST_FOR_BOUND - 1], between)
    assert few.bound is None
    assert few.passed


def test_psnr_is_bounded_from_below() -> None:
    errors = np.random.default_rng(0).exponential(1e-5, 256)
    found = psnr_metric("PSNR", errors, 20.0)
    assert found.bound is not None
    assert found.bound < found.value
    assert found.passed
    assert not psnr_metric("PSNR", errors, (found.bound + found.value) / 2).passed


def test_nan_never_passes_and_uses_more_than_all_of_a_limit() -> None:
    found = metric("error", math.nan, limit=1.0)
    assert not found.passed
    assert share_of_limit(found) == math.inf
    broken = extreme_metric("error", np.full(256, np.nan), 1.0)
    assert not broken.passed


def test_share_of_a_limit_is_of_the_bound() -> None:
    assert share_of_limit(metric("error", 0.1, limit=1.0)) == pytest.approx(0.1)
    assert share_of_limit(metric("error", 0.1, limit=1.0, bound=0.5)) == pytest.approx(0.5)
    of_psnr = metric("PSNR", 60.0, unit="dB", limit=40.0, higher=True)
    assert share_of_limit(of_psnr) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("images", "share"), [(1, "95%"), (2, "78%"), (24, "12%"), (58, "5%"), (59, None), (256, None)]
)
def test_few_images_are_called_a_weak_verdict_and_how_weak(images: int, share: str | None) -> None:
    notes = note_on_few(images)
    assert len(notes) == (share is not None)
    if share is not None:
        assert f"fewer than {share} of images" in notes[0]
        assert f"only {images} image" in notes[0]


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
    assert psnr_metric("PSNR", squared_errors(one, other), None).value == float("inf")
    other[1] = 0.1
    assert psnr_metric("PSNR", squared_errors(one, other), None).value == pytest.approx(20.0)
    nothing = squared_errors(one * np.float32("nan"), other)
    assert np.isnan(psnr_metric("PSNR", nothing, None).value)
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
