"""From latents to the plane: principal components here, t-SNE and UMAP by their packages."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ....runtime.core.errors import ConfigError, DataError, needed_for
from ....runtime.core.lifecycle import loading

Method = Literal["umap", "tsne", "pca"]
TITLES: dict[Method, str] = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}
_PACKAGES: dict[Method, str] = {"umap": "umap", "tsne": "sklearn"}
LEAST: dict[Method, int] = {"umap": 16, "tsne": 8, "pca": 2}
"""Of images. With fewer, neither of the first two has neighbourhoods to keep."""

Floats = npt.NDArray[np.floating[Any]]
Float64s = npt.NDArray[np.float64]
Place = Callable[[Float64s], Float64s]  # (M, D) to (M, 2)


class Fit(Protocol):
    """A method: latents (N, D) to coordinates (N, 2), and what places new ones, if it can."""

    def __call__(self, latents: Float64s, *, seed: int) -> tuple[Float64s, Place | None]:
        """Fit it."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A map of N latents.

    Attributes:
        method: By which it was made.
        coordinates: (N, 2) float64.
        explained: The share of the latents' variance that PCA's two axes hold; None of others.
    """

    method: Method
    coordinates: Float64s
    explained: float | None
    _place: Place | None

    def place(self, latents: Floats) -> Float64s:
        """Return where other latents, (M, D), lie: (M, 2). Of t-SNE a ConfigError."""
        if self._place is None:
            raise ConfigError(
                f"--method={self.method}: {TITLES[self.method]} cannot place new points, take pca "
                "or umap"
            )
        return self._place(np.asarray(latents, np.float64))


def default_method() -> Method:
    """Return umap where its package is installed, else tsne where scikit-learn is, else pca."""
    methods: tuple[Method, ...] = ("umap", "tsne")
    there = (one for one in methods if importlib.util.find_spec(_PACKAGES[one]) is not None)
    return next(there, "pca")


def projected(latents: Floats, method: Method, *, seed: int) -> Projection:
    """Return a map of latents (N, D), the same for the same seed.

    PCA is Pearson 1901; t-SNE van der Maaten & Hinton 2008, "Visualizing Data using t-SNE"; UMAP
    McInnes et al. 2018, "UMAP: Uniform Manifold Approximation and Projection".

    Raises:
        DataError: There are too few latents for the method, or it needs some that differ.
        MissingDependencyError: Its package is not installed.
    """
    points = np.asarray(latents, np.float64)
    if len(points) < LEAST[method]:
        raise DataError(
            f"a map by {TITLES[method]} takes {LEAST[method]} images, there are {len(points)}: "
            f"{'give more' if method == 'pca' else 'give more, or take --method pca'}"
        )
    if method == "pca":
        return _principal(points)
    if not np.ptp(points, axis=0).any():
        raise DataError(
            f"all {len(points)} images have the same latents, of which {TITLES[method]} makes no "
            "map: give images that differ"
        )
    feature = f"--method {method}"
    extra, package = ("umap", "umap-learn") if method == "umap" else ("explore", "scikit-learn")
    instead = "take --method pca"
    with needed_for(feature, extra=extra, package=package, instead=instead), loading():
        found = _fit_of(method)(points, seed=seed)
    return Projection(method, found[0], None, found[1])


def _fit_of(method: Method) -> Fit:
    if method == "umap":
        from .by_umap import fit_umap  # noqa: PLC0415  # numba compiles for seconds

        return fit_umap
    from .by_tsne import fit_tsne  # noqa: PLC0415  # an extra's package

    return fit_tsne


def _principal(points: Float64s) -> Projection:
    mean = points.mean(0)
    _, sizes, axes = np.linalg.svd(points - mean, full_matrices=False)
    axes = axes[:2]
    if len(axes) < 2:  # of a single latent
        axes = np.vstack([axes, np.zeros((2 - len(axes), points.shape[1]))])
    # The sign of an axis is arbitrary: that of its largest part makes it the same everywhere.
    largest = np.abs(axes).argmax(1)
    axes = axes * np.where(axes[np.arange(2), largest] < 0, -1.0, 1.0)[:, None]

    def place(latents: Float64s) -> Float64s:
        found: Float64s = (latents - mean) @ axes.T
        return found

    squares = sizes**2
    explained = float(squares[:2].sum() / squares.sum()) if squares.sum() > 0 else 0.0
    return Projection("pca", place(points), explained, place)
