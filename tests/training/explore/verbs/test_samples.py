"""The mixture finds what latents are made of, and samples are measured by their pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.core.errors import ConfigError
from motorvae.training.explore.cli import explored
from motorvae.training.explore.options import SamplesOptions
from motorvae.training.explore.verbs.mixture import gaussian_of, mixture_of
from motorvae.training.explore.verbs.samples import nearest_distances


def two_clusters() -> np.ndarray:  # type: ignore[type-arg]
    generator = np.random.default_rng(0)
    latents = generator.normal(0, 0.1, (400, 3)) * (1, 100, 1)
    latents[:200, 0] += 5
    latents[200:, 1] += 300
    latents[:, 2] = 7.0  # a dimension that never moves
    return latents.astype(np.float32)


def test_the_mixture_finds_two_clusters_of_any_scale() -> None:
    latents = two_clusters()
    found = mixture_of(latents, (1, 2, 4), seed=0)
    assert found.components == 2
    assert found.bic == min(one["bic"] for one in found.candidates)
    drawn = found.draw(1000)
    assert drawn.shape == (1000, 3)
    np.testing.assert_allclose(drawn[:, 2], 7.0, rtol=1e-6)
    in_first = drawn[:, 0] > 2.5
    assert 0.4 < in_first.mean() < 0.6
    assert np.abs(drawn[in_first, 0] - 5).max() < 0.6
    assert np.abs(drawn[~in_first, 1] - 300).max() < 60
    # They are not drawn cluster by cluster.
    assert 0.3 < in_first[:100].mean() < 0.7
    np.testing.assert_array_equal(drawn, found.draw(1000))
    np.testing.assert_array_equal(drawn, mixture_of(latents, (1, 2, 4), seed=0).draw(1000))
    assert not np.array_equal(drawn, mixture_of(latents, (1, 2, 4), seed=1).draw(1000))


def test_a_mixture_of_too_few_images_is_no_error() -> None:
    latents = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    assert mixture_of(latents, (1, 2, 64), seed=0).components == 1
    assert (mixture_of(np.ones((5, 2), np.float32), (1,), seed=0).draw(4) == 1).all()


def test_a_single_gaussian_has_its_mean_and_covariance() -> None:
    covariance = np.array([[4.0, 1.9], [1.9, 1.0]])
    drawn = gaussian_of(np.array([1.0, -2.0]), covariance, seed=3).draw(20000)
    np.testing.assert_allclose(drawn.mean(axis=0), [1, -2], atol=0.06)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.12)


def test_nearest_distances_are_of_standardised_latents() -> None:
    known = np.array([[0, 0, 5], [2, 200, 5]], np.float32)  # deviations 1, 100, 0
    found = nearest_distances(np.array([[0, 0, 5], [2, 100, 5]], np.float32), known)
    np.testing.assert_allclose(found, [0, np.sqrt(1 / 2)], atol=1e-6)


def test_samples_of_a_run_and_of_a_bundle(
    finished_run: Path, small_bundle: Path, tmp_path: Path
) -> None:
    asked = SamplesOptions(model=finished_run, output=tmp_path / "run", count=4, components=(1, 2))
    first = explored("samples", asked)
    assert first.numbers["mixture"]["fitted_to"].endswith("training images")
    assert first.numbers["sets"]["prior"]["measured"] == 256
    assert set(first.numbers["sets"]) == {"prior", "mixture", "held_out"}
    content = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    explored("samples", asked)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == content
    # Samples of the mixture are where training latents are.
    with np.load(finished_run / "train_latents.npz") as train:
        centre, spread = train["mu"].mean(axis=0), train["mu"].std(axis=0)
    away = (first.arrays["mixture_z"] - centre) / spread
    assert np.abs(away.mean(axis=0)).max() < 0.5
    bundle = explored("samples", SamplesOptions(model=small_bundle, output=tmp_path / "b", count=4))
    assert "mean and covariance" in bundle.lines[0]
    assert bundle.numbers["sets"]["prior"]["nearest_median"] is None
    assert bundle.numbers["sets"]["prior"]["mahalanobis_median"] > 0


def test_a_run_without_any_statistics_is_one_line(finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bare"
    shutil.copytree(finished_run, copy)
    (copy / "train_latents.npz").unlink()
    np.savez(copy / "latents.npz", mu_deviation=np.ones(8))
    with pytest.raises(ConfigError, match="without latents to fit a mixture to: name images with"):
        explored("samples", SamplesOptions(model=copy, output=tmp_path / "explore"))
    assert not (tmp_path / "explore").exists()


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--count=0: take 1 to 256"):
        explored("samples", SamplesOptions(output=tmp_path, count=0))
    with pytest.raises(ConfigError, match=r"--components=.*take numbers from 1"):
        explored("samples", SamplesOptions(output=tmp_path, components=(0,)))
