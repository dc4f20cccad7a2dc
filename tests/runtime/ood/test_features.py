from __future__ import annotations

import math

import numpy as np
import pytest

from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.ood.features import MOST_FLAT, feature_count, features_of


def spec_of(*shape: int) -> ModelSpec:
    spatial = shape if len(shape) > 1 else ()
    size = math.prod(shape)
    return ModelSpec(image_size=32, channels=None, latent_size=size, latent_shape=spatial)


def test_a_flat_latent_is_its_own_features() -> None:
    mu = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    found = features_of(mu, spec_of(7))
    np.testing.assert_array_equal(found, mu)
    assert found.dtype == np.float64


def test_maps_have_means_of_quarters_and_log_deviations() -> None:
    mu = np.random.default_rng(0).normal(size=(5, 3, 5, 2)).astype(np.float32)
    mu[2, 1] = 0.5  # a map of one value has no deviation, and its logarithm is a number
    found = features_of(mu.reshape(5, -1), spec_of(3, 5, 2))
    assert found.shape == (5, feature_count(spec_of(3, 5, 2))) == (5, 15)
    for image in range(5):
        for number in range(3):
            values = mu[image, number].astype(np.float64)
            quarters = [values[:3, :1], values[:3, 1:], values[3:, :1], values[3:, 1:]]
            for place, quarter in enumerate(quarters):
                assert found[image, 3 * place + number] == pytest.approx(quarter.mean(), abs=1e-9)
            assert found[image, 12 + number] == pytest.approx(np.log(values.std() + 1e-6))


def test_what_has_too_many_features_has_none() -> None:
    assert feature_count(spec_of(MOST_FLAT)) == MOST_FLAT
    assert feature_count(spec_of(MOST_FLAT + 1)) == 0
    assert feature_count(spec_of(4, 64, 64)) == 20
    assert feature_count(spec_of(8, 1, 1)) == 16
    assert feature_count(spec_of(8, 7)) == 24
    assert feature_count(spec_of(MOST_FLAT // 5 + 1, 2, 2)) == 0
