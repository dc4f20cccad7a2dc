from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.ood.appearance import Appearance
from motorvae.runtime.ood.detector import STATISTIC_NAMES
from motorvae.training import latent_statistics as statistics_module
from motorvae.training.dataset import DataSet
from motorvae.training.latent_statistics import (
    QUANTILE_LEVELS,
    appearance_statistics,
    distances_to_others,
    effective_count,
    latent_statistics,
    mahalanobis,
    mean_excess,
    save_held_out,
    save_latents,
    shrinkage_of,
)
from motorvae.training.model import MotorVAE, decoding_of, encoding_of


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
    save_latents(
        tmp_path / "latents.npz",
        latent_statistics(data, model.spec, encoding_of(model), decoding_of(model)),
    )
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
    found = latent_statistics(data, model.spec, encoding_of(model), decoding_of(model))
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
    looks = np.stack([Appearance(32, 32).measure(image).copy() for image in data.images])
    scaled = (looks - found["appearance_mean"]) / found["appearance_deviation"]
    np.testing.assert_allclose(found["appearance_references"], scaled[:40], rtol=1e-4, atol=1e-5)
    handled = [
        statistics_module._handled(image, "grey", row) for row, image in enumerate(data.images)
    ]
    looks = np.stack([Appearance(32, 32).measure(image).copy() for image in handled])
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
    fresh = np.stack([Appearance(32, 32).measure(scene).copy() for scene in further])
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
        look = (Appearance(32, 32).measure(another) - found["appearance_mean"]).astype(np.float32)
        away = found["appearance_references"] - look / found["appearance_deviation"]
        return float(np.linalg.norm(away, axis=1).min() / found["appearance_quantiles"].max())

    assert share_of_limit() < 1.2
    monkeypatch.setattr(statistics_module, "_handled", lambda image, _color, _turn: image)
    assert share_of_limit() > 2


def test_shrinkage_is_that_of_ledoit_and_wolf() -> None:
    """Against the paper's own b² / d², image by image (lemmas 3.2 to 3.4)."""
    rng = np.random.default_rng(0)
    for count in (10, 60, 600):
        samples = rng.normal(size=(count, 20)) @ rng.normal(size=(20, 20))
        scaled = (samples - samples.mean(0)) / samples.std(0)
        mean = scaled.T @ scaled / count
        d2 = np.linalg.norm(mean - np.eye(20)) ** 2 / 20
        b2 = sum(np.linalg.norm(np.outer(x, x) - mean) ** 2 / 20 for x in scaled) / count**2
        assert shrinkage_of(samples) == pytest.approx(min(b2, d2) / d2, rel=1e-9)


def test_shrinkage_falls_with_the_count_and_ignores_scale_and_what_never_moves() -> None:
    rng = np.random.default_rng(1)
    mixed = rng.normal(size=(3000, 20)) @ rng.normal(size=(20, 20))
    found = [shrinkage_of(mixed[:count]) for count in (12, 60, 600, 3000)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.2
    assert found[-1] < 0.02
    still = np.concatenate([mixed * 10.0 ** np.arange(-10, 10), np.ones((3000, 3))], axis=1)
    assert shrinkage_of(still) == pytest.approx(found[-1], rel=1e-6)
    assert shrinkage_of(rng.normal(size=(5000, 20))) > 0.9  # there is nothing but the diagonal
    assert shrinkage_of(np.ones((4, 3))) == 0


def test_shrinkage_restores_what_few_images_lose() -> None:
    """As many images as latents: a plain covariance calls the known far and the foreign near."""
    rng = np.random.default_rng(2)
    mix = rng.normal(size=(64, 64))
    train, known = rng.normal(size=(70, 64)) @ mix, rng.normal(size=(500, 64)) @ mix
    foreign = known + 1.5 * rng.normal(size=(500, 64)) @ mix
    detected = []
    for shrinkage in (0.0, shrinkage_of(train)):
        covariance = np.cov(train.T, bias=True)
        covariance = (1 - shrinkage) * covariance + shrinkage * np.diag(np.diag(covariance))
        factor = np.linalg.cholesky(covariance + 1e-6 * np.eye(64))
        near, far = (
            np.linalg.norm(np.linalg.solve(factor, (x - train.mean(0)).T), axis=0)
            for x in (known, foreign)
        )
        detected.append((far > np.quantile(near, 0.99)).mean())
    assert detected[0] < 0.6
    assert detected[1] > 0.9


def test_like_neighbours_count_as_one() -> None:
    rng = np.random.default_rng(3)
    independent = rng.normal(size=2000)
    assert effective_count(independent) > 1500
    assert effective_count(np.repeat(independent[:100], 20)) == pytest.approx(100, rel=0.4)
    assert effective_count(np.ones(50)) == 1
    assert effective_count(np.array([1.0])) == 1
    assert effective_count(np.array([1.0, 2.0])) >= 1


def test_the_mean_excess_is_over_the_95th_percentile() -> None:
    values = np.arange(101.0)
    assert mean_excess(values) == np.mean([1, 2, 3, 4, 5])
    assert mean_excess(np.zeros(9)) == 0


def test_a_neighbour_does_not_count_unless_there_is_no_other() -> None:
    points = np.array([[0.0], [1.0], [2.0], [10.0]])
    rows = np.arange(4)
    found = distances_to_others(points, rows, points, rows, 0)
    np.testing.assert_allclose(found, [1, 1, 1, 8])
    np.testing.assert_allclose(distances_to_others(points, rows, points, rows, 1), [2, 9, 2, 9])
    np.testing.assert_allclose(distances_to_others(points, rows, points, rows, 3), 0)


def test_statistics_and_images_need_no_torch() -> None:
    """Weights of others come as ONNX graphs to machines without torch."""
    source = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['lightning'] = None\n"
        "import motorvae.training.dataset, motorvae.training.latent_statistics\n"
        "import motorvae.training.learned, motorvae.training.options\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
