"""Reconstructions are ranked by their real error, over the whole held-out set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from motorvae.training.checkpoint import model_from_checkpoint
from motorvae.training.explore.cli import explored
from motorvae.training.explore.options import ReconstructionsOptions
from motorvae.training.explore.verbs.reconstructions import ranked
from motorvae.training.model import decoding_of, encoding_of


def test_best_median_and_worst_are_what_they_say() -> None:
    errors = np.array([5.0, 1, 3, 2, 4, 0, 6])
    found = ranked(errors, 2)
    assert {name: errors[rows].tolist() for name, rows in found.items()} == {
        "best": [0, 1],
        "median": [2, 3],
        "worst": [5, 6],
    }


@pytest.mark.parametrize("images", range(1, 12))
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_no_image_is_shown_twice_and_few_are_all_shown(images: int, count: int) -> None:
    errors = np.random.default_rng(images).permutation(images).astype(np.float64)
    best, median, worst = (errors[rows].tolist() for rows in ranked(errors, count).values())
    assert best + median + worst == sorted({*best, *median, *worst})
    assert len(best + median + worst) == min(images, 3 * count)
    assert max(map(len, (best, median, worst))) <= count
    assert best[0] == 0
    assert images == 1 or worst[-1] == images - 1


@pytest.mark.parametrize("run", ["finished_run", "colour_run"])
def test_errors_are_those_of_the_model(
    run: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(run)
    result = explored("reconstructions", ReconstructionsOptions(model=folder, output=tmp_path))
    model, _ = model_from_checkpoint(folder)
    with np.load(folder / "held_out.npz") as held_out:
        images, names = held_out["images"], held_out["names"]
    batch = images.reshape(len(images), *model.spec.input_shape) / np.float32(255)
    mu, _ = encoding_of(model)(batch)
    error = np.square(decoding_of(model)(mu).astype(np.float64) - batch).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(result.arrays["squared_error"], error, rtol=1e-4)
    np.testing.assert_allclose(result.arrays["psnr_db"], -10 * np.log10(error), rtol=1e-4)
    shown = json.loads((tmp_path / "reconstructions.json").read_text())["numbers"]["shown"]
    assert shown["best"][0]["name"] == names[error.argmin()]
    assert shown["worst"][-1]["name"] == names[error.argmax()]
    assert shown["worst"][-1]["squared_error"] == pytest.approx(error.max(), rel=1e-4)
    assert (tmp_path / "reconstructions.png").is_file()
