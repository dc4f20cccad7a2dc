from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import motorvae as mv
from motorvae.training.explore.factors.dci import DCI
from motorvae.training.explore.factors.figure import figure_of
from motorvae.training.explore.factors.options import FactorsOptions
from motorvae.training.explore.factors.rate import Spending, spending_of
from motorvae.training.explore.factors.scores import FactorScore, Scores
from motorvae.training.explore.factors.table import lines_of
from motorvae.training.explore.options import ModelOptions
from motorvae.training.explore.subject import open_subject
from motorvae.training.latent_statistics import kl_of


def test_a_run_and_a_bundle_are_measured_on_the_same_new_vehicles(
    finished_run: Path, small_bundle: Path, tmp_path: Path
) -> None:
    found = mv.explore.factors(finished_run, compare=small_bundle, count=100, output=tmp_path)
    assert {path.name for path in found.files} == {"factors.png", "factors.json", "factors.npz"}
    run, bundle = found.numbers["models"]
    assert run["model"] != bundle["model"]
    assert [one["name"] for one in run["factors"]] == [one["name"] for one in bundle["factors"]]
    by_name = {one["name"]: one for one in run["factors"]}
    assert len(by_name) == 12
    assert by_name["body"]["is_categorical"]
    assert by_name["y"]["chance"] == 0
    # Even a network that has hardly learned anything tells something of a vehicle.
    assert max(one["probe"] for one in run["factors"] if not one["is_categorical"]) > 0.1
    for scores in (run, bundle):
        assert 0 <= scores["mig"] <= 1
        assert 0 <= scores["disentanglement"] <= 1
        assert scores["latents"] == 8
        assert scores["rate_nats"] > 0
        assert scores["distortion"] > 0
    assert found.arrays["importance"].shape == found.arrays["information_2"].shape == (8, 12)
    assert max(map(len, "\n".join(found.lines).splitlines())) <= 80
    with pytest.raises(mv.MotorVAEError, match="was trained on these vehicles, take another"):
        mv.explore.factors(finished_run, count=100, seed=0, output=tmp_path)


def test_labels_of_a_table_are_factors(finished_run: Path, tmp_path: Path) -> None:
    with open_subject(ModelOptions(model=finished_run, images="vehicles")) as subject:
        pictures = subject.held_out()
    table = tmp_path / "labels.csv"
    darkness = 255 - pictures.pixels.reshape(len(pictures), -1).mean(1)
    rows = [f"{name},{dark:.3f},same" for name, dark in zip(pictures.names, darkness, strict=True)]
    table.write_text("name,dark,all\n" + "\n".join(rows[:100]) + "\n")
    found = mv.explore.factors(finished_run, images="vehicles", labels=table, output=tmp_path)
    (scores,) = found.numbers["models"]
    (dark,) = scores["factors"]
    assert dark["name"] == "dark"
    assert dark["images"] == 100
    assert "all is left out: fewer than two of its classes have 8 images" in found.lines
    assert any("412 images have no row, 0 rows no image" in line for line in found.lines)
    assert scores["disentanglement"] is None or np.isnan(scores["disentanglement"])


def test_models_that_keep_different_images_are_not_compared_without_a_word(
    finished_run: Path, tmp_path: Path
) -> None:
    with np.load(finished_run / "held_out.npz") as file:
        images = np.resize(file["images"], (48, 32, 32))
    for name, first in (("one", 0), ("other", 8)):
        shutil.copytree(finished_run, tmp_path / name)
        names = np.array([f"vehicle-{row:06d}" for row in range(first, first + 48)])
        np.savez(tmp_path / name / "held_out.npz", images=images, names=names)
    table = tmp_path / "labels.csv"
    table.write_text("name,x\n" + "".join(f"vehicle-{row:06d},{row}\n" for row in range(56)))
    found = mv.explore.factors(
        tmp_path / "one", compare=tmp_path / "other", labels=table, output=tmp_path / "o"
    )
    assert any("measured on different images" in line for line in found.lines)


def test_images_without_labels_are_refused() -> None:
    with pytest.raises(mv.MotorVAEError, match=r"--images=photos: nothing is known .*--labels"):
        FactorsOptions(images="photos").check()


def test_rate_and_distortion_are_as_training_reports_them(finished_run: Path) -> None:
    with open_subject(ModelOptions(model=finished_run)) as subject:
        pictures = subject.held_out().pixels
        latents = subject.encode(pictures)
        found = spending_of(subject, pictures, latents, seed=0)
        assert latents.log_var is not None
        assert found.rate_nats == pytest.approx(kl_of(latents.mu, latents.log_var).mean())
        assert found.kl_of_units is not None
        assert found.kl_of_units.sum() == pytest.approx(found.rate_nats)
        variance = latents.mu.astype(np.float64).var(0)
        assert found.active_units == (variance > 0.01).sum()
        metrics = np.genfromtxt(finished_run / "metrics.csv", delimiter=",", names=True)
        reported = metrics["held_out_reconstruction"]
        assert found.distortion == pytest.approx(reported.min(), rel=0.2)
        certain = latents._replace(log_var=None)
        of_mu = spending_of(subject, pictures, certain, seed=0)
        assert of_mu.rate_nats is None
        away = subject.rebuild(latents.mu).reshape(pictures.shape) - pictures / 255
        assert of_mu.distortion == pytest.approx(np.square(away).sum() / len(pictures), rel=1e-4)


def test_the_table_has_what_is_missing_as_a_dash_and_names_as_they_are() -> None:
    row = FactorScore("[b]$x$[/b]", False, 50, 0.5, 0.0, 0.1, None, None)
    spending = Spending(1, None, None, None)
    scores = Scores("m_{1}$", (row,), 0.1, None, 600, spending, np.ones((600, 1)), None)
    text = "\n".join(lines_of([scores]))
    assert "[b]$x$[/b]" in text
    assert text.count(" -") >= 5
    assert figure_of([scores])[:4] == b"\x89PNG"
    with_trees = Scores(
        "m", (row,), 0.1, DCI(0.1, 0.2, 0.3), 2, spending, np.ones((2, 1)), np.ones((2, 1))
    )
    assert figure_of([scores, with_trees])[:4] == b"\x89PNG"
