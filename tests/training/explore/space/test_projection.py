from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

from motorvae.runtime.core.errors import ConfigError, DataError
from motorvae.training.explore.space.distances import nearest, units_of
from motorvae.training.explore.space.projection import Method, default_method, projected

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import numpy as np
from motorvae.runtime.core.errors import MotorVAEError
from motorvae.training.explore.space.projection import projected
points = np.random.default_rng(0).standard_normal((40, 4))
for method in ("umap", "tsne", "pca"):
    try:
        print(projected(points, method, seed=0).method)
    except MotorVAEError as error:
        print(f"{type(error).__name__}: {error}")
"""


def clusters(count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.standard_normal((count, 6)), rng.standard_normal((count, 6)) + 12])


def test_pca_is_that_of_scikit_learn() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    points = clusters() @ np.random.default_rng(1).standard_normal((6, 6))
    theirs = decomposition.PCA(2).fit(points)
    ours = projected(points, "pca", seed=0)
    assert np.abs(ours.coordinates) == pytest.approx(np.abs(theirs.transform(points)))
    assert ours.explained == pytest.approx(theirs.explained_variance_ratio_.sum())
    assert ours.place(points[3:5]) == pytest.approx(ours.coordinates[3:5])


def test_pca_has_two_axes_of_a_single_latent() -> None:
    found = projected(np.array([[1.0], [2], [4]]), "pca", seed=0)
    assert found.coordinates.shape == (3, 2)
    assert (found.coordinates[:, 1] == 0).all()
    assert projected(np.zeros((4, 3)), "pca", seed=0).explained == 0


@pytest.mark.slow  # numba compiles UMAP
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_neighbourhoods_are_kept_and_a_seed_repeats(method: Method) -> None:
    pytest.importorskip("umap" if method == "umap" else "sklearn")
    points = clusters()
    found = projected(points, method, seed=3)
    assert np.array_equal(found.coordinates, projected(points, method, seed=3).coordinates)
    first, second = found.coordinates[:40], found.coordinates[40:]
    spread = max(first.std(0).max(), second.std(0).max())
    assert np.linalg.norm(first.mean(0) - second.mean(0)) > 2 * spread
    if method == "umap":
        placed = found.place(points[:4])
        middles = np.linalg.norm(placed - second.mean(0), axis=1)
        assert (np.linalg.norm(placed - first.mean(0), axis=1) < middles).all()
    else:
        with pytest.raises(ConfigError, match="t-SNE cannot place new points, take pca or umap"):
            found.place(points)


def test_too_few_images_are_one_line() -> None:
    with pytest.raises(DataError, match=r"by UMAP takes 16 images, there are 5.*--method pca"):
        projected(np.zeros((5, 2)), "umap", seed=0)
    with pytest.raises(DataError, match=r"by PCA takes 2 images, there are 1: give more$"):
        projected(np.zeros((1, 2)), "pca", seed=0)


@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_latents_that_are_all_the_same_are_one_line(method: Method) -> None:
    with pytest.raises(DataError, match=r"all 30 images have the same latents, of which .*-?[NM]"):
        projected(np.full((30, 3), 7.0), method, seed=0)


@pytest.mark.parametrize("latents", [1, 3])
def test_t_sne_keeps_neighbours_on_a_line(latents: int) -> None:
    """Of one latent, or of several of which one moves."""
    points = np.zeros((40, latents))
    points[:, 0] = np.linspace(0, 1, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = projected(points, "tsne", seed=0).coordinates
    assert (np.ptp(found, axis=0) > 0).all()
    away = np.linalg.norm(found[:, None] - found[None], axis=2) + np.diag(np.full(40, np.inf))
    steps = np.abs(away.argmin(1) - np.arange(40))
    assert np.median(steps) <= 2
    assert steps.max() <= 6


def test_the_default_is_what_is_installed() -> None:
    pytest.importorskip("umap")
    assert default_method() == "umap"


def test_a_missing_package_is_named_with_its_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "umap", "sklearn"],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    of_umap, of_tsne, of_pca = done.stdout.splitlines()
    assert "needs the package umap-learn" in of_umap
    assert "pip install 'motorvae[umap]', or take --method pca" in of_umap
    assert "needs the package scikit-learn" in of_tsne
    assert of_pca == "pca"


def test_a_collapsed_latent_hardly_counts() -> None:
    rng = np.random.default_rng(0)
    mu = np.stack([100 * rng.standard_normal(50), 0.01 * rng.standard_normal(50), np.zeros(50)], 1)
    log_var = np.tile(np.log([1.0, 1.0, 1.0]), (50, 1))
    units = units_of(mu.astype(np.float32), log_var.astype(np.float32))
    scaled = mu / units
    assert scaled.std(0) == pytest.approx([1, 0.01, 0], abs=0.005)
    # Without log_var nobody can tell.
    assert (mu / units_of(mu.astype(np.float32), None)).std(0) == pytest.approx([1, 1, 0])


def test_the_nearest_come_first_and_equal_ones_in_order() -> None:
    points = np.array([[3.0, 4], [0, 1], [0, -1], [0, 0]])
    rows, distances = nearest(np.zeros(2), points, 3)
    assert rows.tolist() == [3, 1, 2]
    assert distances.tolist() == [0, 1, 1]
