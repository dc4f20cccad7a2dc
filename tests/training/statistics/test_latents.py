from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.ood.appearance import Appearance
from motorvae.runtime.ood.detector import STATISTIC_NAMES
from motorvae.training.data.dataset import DataSet
from motorvae.training.model.vae import MotorVAE
from motorvae.training.statistics import latents
from motorvae.training.statistics.latents import (
    QUANTILE_LEVELS,
    appearance_statistics,
    latent_statistics,
    mahalanobis,
    save_held_out,
    save_latents,
)


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
        single = {name for name, array in found.items() if array.dtype != np.float64}
        assert single == {"appearance_references"}
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
        shrunk = mahalanobis(
            mu.double().numpy()[unseen],
            found["mean"],
            (1 - found["covariance_shrinkage"]) * found["covariance"]
            + found["covariance_shrinkage"] * np.diag(np.diag(found["covariance"])),
            float(found["covariance_ridge"]),
        )
        assert found["covariance_shrinkage"] > 0.05  # 40 images, 8 latents
        np.testing.assert_allclose(
            found["mahalanobis_quantiles"], np.quantile(shrunk, levels), rtol=1e-4
        )
        for name in STATISTIC_NAMES:
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


def test_appearance_is_judged_by_images_that_are_no_neighbours(data: DataSet) -> None:
    found = appearance_statistics(data)
    looks = np.stack([Appearance(32).measure(image).copy() for image in data.images])
    scaled = (looks - found["appearance_mean"]) / found["appearance_deviation"]
    np.testing.assert_allclose(found["appearance_references"], scaled[:40], rtol=1e-4, atol=1e-5)
    handled = [latents._handled(image, row) for row, image in enumerate(data.images)]
    looks = np.stack([Appearance(32).measure(image).copy() for image in handled])
    points = (looks - found["appearance_mean"]) / found["appearance_deviation"]
    expected = []
    for row in range(70):  # 70 / 20: three rows to each side do not count
        others = [other for other in range(40) if abs(other - row) > 3]
        expected.append(np.linalg.norm(scaled[others] - points[row], axis=1).min())
    np.testing.assert_allclose(
        found["appearance_quantiles"], np.quantile(expected, QUANTILE_LEVELS)
    )
    assert found["appearance_count"] == 70


def test_a_recording_of_many_like_frames_counts_as_the_few_images_that_it_is() -> None:
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (20, 32, 32), np.uint8)
    noise = rng.integers(0, 3, (400, 32, 32), np.uint8)
    frames = np.minimum(np.repeat(scenes, 20, axis=0), 252) + noise
    held_out = np.flatnonzero(np.arange(400) // 4 % 10 == 3)
    train = np.setdiff1d(np.arange(400), held_out)
    recording = DataSet(frames, [""] * 400, train, held_out, 0)
    found = appearance_statistics(recording)
    assert found["appearance_effective_count"] < 80
    # A frame of a further scene looks as far from all of them as these scenes from each other;
    # had each been judged by its own neighbours, every one of those would be foreign.
    further = rng.integers(0, 256, (9, 32, 32), np.uint8)
    fresh = np.stack([Appearance(32).measure(scene).copy() for scene in further])
    scaled = (fresh - found["appearance_mean"]) / found["appearance_deviation"]
    nearest = np.linalg.norm(scaled[:, None] - found["appearance_references"], axis=2).min(1)
    assert np.median(nearest) < found["appearance_quantiles"][-1]


def test_another_decoders_picture_of_a_fixed_scene_is_known(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All frames of a fixed camera are nearly equal; a level's difference made each foreign."""
    rng = np.random.default_rng(3)
    scene = cv2.GaussianBlur(rng.integers(0, 256, (32, 32), np.uint8), (0, 0), 2)
    scene[:4] = 255
    frames = np.clip(scene + rng.normal(0, 0.6, (70, 32, 32)), 0, 255).astype(np.uint8)
    fixed = replace(data, images=frames)
    another = np.minimum(frames[50], 254) + np.uint8(1)

    def share_of_limit() -> float:
        found = appearance_statistics(fixed)
        look = (Appearance(32).measure(another) - found["appearance_mean"]).astype(np.float32)
        away = found["appearance_references"] - look / found["appearance_deviation"]
        return float(np.linalg.norm(away, axis=1).min() / found["appearance_quantiles"].max())

    assert share_of_limit() < 1.2
    monkeypatch.setattr(latents, "_handled", lambda image, _turn: image)
    assert share_of_limit() > 2
