from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from motorvae.runtime.spec import ModelSpec
from motorvae.training.data import DataSet
from motorvae.training.latents import latent_statistics, mahalanobis, save_held_out, save_latents
from motorvae.training.model import MotorVAE


@pytest.fixture
def data() -> DataSet:
    images = np.random.default_rng(0).integers(0, 256, (70, 32, 32), np.uint8)
    rows = np.arange(70)
    return DataSet(images, [f"{row}.png" for row in rows], rows[:40], rows[40:], 0)


def test_means_are_of_training_images_and_quantiles_of_unseen_ones(
    spec: ModelSpec, data: DataSet, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = MotorVAE(spec).eval()
    save_latents(tmp_path, latent_statistics(model, data))
    images = torch.from_numpy(data.images[:, None].astype(np.float32) / np.float32(255))
    with torch.inference_mode():
        reconstruction, mu, log_var = model(images)
    mu64, unseen = mu.double().numpy()[:40], slice(40, 70)
    with np.load(tmp_path / "latents.npz", allow_pickle=False) as found:
        assert {array.dtype for array in found.values()} == {np.dtype(np.float64)}
        assert found["count"] == 40
        np.testing.assert_allclose(found["mean"], mu64.mean(0), atol=1e-6)
        np.testing.assert_allclose(
            found["covariance"], np.cov(mu64.T, bias=True), rtol=1e-3, atol=1e-9
        )
        log_var64 = log_var.double().numpy()
        np.testing.assert_allclose(found["log_var_mean"], log_var64[:40].mean(0), atol=1e-6)
        np.testing.assert_allclose(
            found["posterior_variance_mean"], log_var[:40].exp().mean(0), rtol=1e-5
        )
        np.testing.assert_allclose(
            found["log_var_deviation"], log_var[:40].double().numpy().std(0), rtol=1e-4
        )
        assert found["quantile_count"] == 30
        squares = (images - reconstruction).square().mean((1, 2, 3))
        error = squares.double().numpy()[unseen]
        levels = found["quantile_levels"]
        np.testing.assert_allclose(
            found["reconstruction_error_quantiles"], np.quantile(error, levels), rtol=1e-4
        )
        deviation = np.sqrt(log_var64[:40].var(0) + found["log_var_ridge"])
        away = (log_var64[unseen] - log_var64[:40].mean(0)) / deviation
        np.testing.assert_allclose(
            found["log_var_distance_quantiles"],
            np.quantile(np.linalg.norm(away, axis=1), levels),
            rtol=1e-3,
        )
        for name in ("kl", "mahalanobis", "log_var_distance", "reconstruction_error"):
            quantiles = found[f"{name}_quantiles"]
            assert quantiles.shape == levels.shape
            assert np.all(np.diff(quantiles) >= 0)


def test_mahalanobis_counts_spreads() -> None:
    mean, covariance = np.zeros(2), np.diag([4.0, 9.0])
    mu = np.array([[2.0, 0.0], [0.0, 9.0], [2.0, 3.0]])
    np.testing.assert_allclose(mahalanobis(mu, mean, covariance, 0.0), [1, 3, 2**0.5])


def test_latents_that_never_move_give_finite_statistics(data: DataSet) -> None:
    model = MotorVAE(ModelSpec(image_size=32, channels=(2,), latent_size=3)).eval()
    for parameter in model.parameters():
        parameter.data.zero_()
    found = latent_statistics(model, data)
    assert all(np.isfinite(array).all() for array in found.values())
    assert found["mahalanobis_quantiles"].max() == 0
    assert found["log_var_distance_quantiles"].max() == 0


def test_held_out_images_keep_their_names(data: DataSet, tmp_path: Path) -> None:
    save_held_out(tmp_path, data)
    with np.load(tmp_path / "held_out.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["images"], data.images[40:])
        assert found["images"].dtype == np.uint8
        assert found["names"].tolist() == [f"{row}.png" for row in range(40, 70)]
