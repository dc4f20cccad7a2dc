"""A traversal moves one dimension, in units of the aggregate posterior, and ranks by the effect."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from motorvae.training.explore.aggregate import Aggregate, aggregate_of
from motorvae.training.explore.cli import explored
from motorvae.training.explore.options import ModelOptions, TraversalsOptions
from motorvae.training.explore.subject import Subject, open_subject
from motorvae.training.explore.verbs.traversals import latents_along, ranked_by_effect

from ..linear import GAINS, SPEC

PLACES = np.linspace(-2, 2, 5)


def aggregate(**changed: object) -> Aggregate:
    parts = {
        "mean": np.array([1.0, 2, 3, 4]),
        "mu_variance": np.array([3.0, 0.96, 15, 0]),
        "posterior_variance": np.array([1.0, 0.04, 1, 1]),
        "kl": np.array([1.0, 2, 3, 0]),
        "source": "nothing",
    }
    return Aggregate(**(parts | changed))  # type: ignore[arg-type]


def test_one_dimension_moves_and_the_others_stay() -> None:
    base = np.array([9, 8, 7, 6], np.float32)
    found = latents_along(aggregate(), base, 0, PLACES)
    np.testing.assert_allclose(found[:, 0], 1 + PLACES * 2)  # the root of 3 + 1
    np.testing.assert_array_equal(found[:, 1:], np.tile(base[1:], (5, 1)))


@pytest.mark.parametrize("latent_shape", [(), (1, 2, 2)])
def test_dimensions_are_ranked_by_what_they_do(
    latent_shape: tuple[int, ...], linear_subject: Callable[..., Subject]
) -> None:
    subject = linear_subject(SPEC.model_copy(update={"latent_shape": latent_shape}))
    moved = ranked_by_effect(subject, aggregate(), np.zeros(4, np.float32), PLACES)
    # Gains times deviations (2, 1, 4, 1): 0.02, 0.1, 0.08, 0.
    assert moved.dimensions.tolist() == [1, 2, 0, 3]
    expected = [
        (GAINS[d] * aggregate().deviation[d]) ** 2 * PLACES.var() / 16 for d in (1, 2, 0, 3)
    ]
    np.testing.assert_allclose(moved.pixel_variance, expected, rtol=1e-3, atol=1e-9)
    rows = moved.pictures[0].std(axis=(0, 2)) > 0
    assert rows.tolist() == [row == 1 for row in range(16)]


def test_collapsed_dimensions_are_known() -> None:
    assert aggregate().informative.tolist() == [True, True, True, False]
    without = aggregate(kl=None, posterior_variance=np.zeros(4))
    assert without.informative.tolist() == [True, True, True, False]


def test_moments_in_latents_npz_give_the_kl_of_the_latents_themselves(
    finished_run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "earlier"
    shutil.copytree(finished_run, copy)
    (copy / "train_latents.npz").unlink()
    with np.load(finished_run / "train_latents.npz") as train:
        mu, log_var = train["mu"].astype(np.float64), train["log_var"].astype(np.float64)
    kl = (0.5 * (mu**2 + np.exp(log_var) - 1 - log_var)).mean(axis=0)
    for folder in (finished_run, copy):
        with open_subject(ModelOptions(model=folder)) as subject:
            found = aggregate_of(subject)
        assert found.kl is not None
        np.testing.assert_allclose(found.kl, kl, rtol=1e-3, atol=1e-5)
        deviation = np.sqrt(mu.var(axis=0) + np.exp(log_var).mean(axis=0))
        np.testing.assert_allclose(found.deviation, deviation, rtol=1e-3)


def test_a_sheet_of_all_and_files_of_the_first(
    colour_run: Path, small_bundle: Path, tmp_path: Path
) -> None:
    asked = TraversalsOptions(
        image="held-out:0", model=colour_run, output=tmp_path / "a", dimensions=2, animation="mp4"
    )
    result = explored("traversals", asked)
    first, second = (row["dimension"] for row in result.numbers["ranking"][:2])
    assert {path.name for path in result.files} == {
        *("traversals.png", "traversals.json", "traversals.npz"),
        *(f"traversal-{one}.{kind}" for one in (first, second) for kind in ("png", "mp4")),
    }
    variances = [row["pixel_variance"] for row in result.numbers["ranking"]]
    assert variances == sorted(variances, reverse=True)
    assert len(variances) == 4
    of_bundle = TraversalsOptions(model=small_bundle, output=tmp_path / "b", dimensions=1, steps=3)
    assert len(explored("traversals", of_bundle).files) == 5
