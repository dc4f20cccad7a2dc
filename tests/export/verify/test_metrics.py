from __future__ import annotations

import math

import numpy as np
import pytest

from motorvae.export.verify.metrics import (
    FEWEST_FOR_BOUND,
    extreme_metric,
    metric,
    note_on_few,
    psnr_metric,
    share_of_limit,
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
        assert f"only {images} held-out image" in notes[0]
