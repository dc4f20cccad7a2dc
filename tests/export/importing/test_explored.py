"""motorvae explore on bundles of other networks: maps for latents, no log_var, no decoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from motorvae.commands import main
from motorvae.runtime.bundle.load import load_bundle

DRAWING = [
    ["reconstructions"],
    ["samples", "--images", "pictures", "--count", "2"],
    ["traversals", "--dimensions", "1", "--steps", "2"],
    ["interpolate", "held-out:0", "held-out:1", "--steps", "2"],
    ["arithmetic", "held-out:0", "-", "held-out:1", "+", "held-out:2"],
    ["average"],
]
LOOKING = [["neighbours", "pictures/003.png"], ["map", "--method", "pca"]]


@pytest.fixture(scope="module")
def folder(pair: tuple[Path, Path], images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pictures`, and the bundles `means`, without log_var, and `encoder`."""
    here = tmp_path_factory.mktemp("explored")
    (here / "pictures").symlink_to(images)
    common = ["--images", images, "--value-range", "-1", "1", "--engine", "none"]
    means = [pair[0], "--decoder", pair[1], "--outputs", "mu=mean", "--output", here / "means"]
    for words in (means, [pair[0], "--output", here / "encoder"]):
        assert main(["import", *map(str, [*words, *common])]) == 0
    assert not load_bundle(here / "means").spec.has_log_var
    return here


@pytest.mark.parametrize("words", [*DRAWING, *LOOKING], ids=lambda words: words[0])
def test_every_verb_takes_a_model_without_log_var(
    words: list[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    output = tmp_path / "out"
    assert main(["explore", *words, "--model", "means", "--output", str(output)]) == 0
    document = json.loads((output / f"{words[0]}.json").read_text())
    assert {*document["files"]} == {one.name for one in output.iterdir()}
    if words[0] == "traversals":
        assert {one["kl_nats"] for one in document["numbers"]["ranking"]} == {None}


@pytest.mark.parametrize("words", DRAWING, ids=lambda words: words[0])
def test_what_draws_refuses_an_encoder_alone_and_leaves_nothing(
    words: list[str],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    output = tmp_path / "out"
    assert main(["explore", *words, "--model", "encoder", "--output", str(output)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "encoder has no decoder, and this draws what one makes of latents" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", ["means", "encoder"])
def test_latents_are_those_of_the_original(
    model: str, folder: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    from motorvae.training.explore.options import ModelOptions
    from motorvae.training.explore.subject import open_subject

    with open_subject(ModelOptions(output=tmp_path, model=folder / model)) as subject:
        pictures = subject.held_out().pixels[:3]
        found = subject.encode(pictures)
    original = ort.InferenceSession(pair[0])
    batch = pictures.astype(np.float32) / np.float32(127.5) - 1
    mu, log_var = original.run(["mean", "log_var"], {original.get_inputs()[0].name: batch})
    np.testing.assert_allclose(found.mu, mu.reshape(3, -1), atol=1e-5)
    assert (found.log_var is None) == (model == "means")
    if found.log_var is not None:
        np.testing.assert_allclose(found.log_var, log_var.reshape(3, -1), atol=1e-5)
