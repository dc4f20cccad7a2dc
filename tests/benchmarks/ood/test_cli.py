from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from motorvae.benchmarks.ood.cli import judged_images, main
from motorvae.benchmarks.ood.separation import load_separation
from motorvae.export.ood.images import altered_images, made_images
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.engines.open import open_engine
from motorvae.runtime.engines.request import EngineRequest
from motorvae.runtime.ood.detector import OODDetector, ood_detector_from_bundle
from motorvae.runtime.pixels.convert import input_from_luma

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*args: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return code, capsys.readouterr().err

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (6, 48, 64), np.uint8)
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def test_every_kind_is_measured_and_written(
    run: Run, small_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    output = tmp_path / "ood.json"
    code, said = run(
        *("--model", small_bundle, "--known", "vehicles", "--images", 24, "--threads", 1),
        *("--ood", f"mine={pictures}", pictures, "--output", output),
    )
    assert code == 0, said
    found = load_separation(output)
    assert [(kind.name, kind.known, kind.images) for kind in found.kinds] == [
        ("fresh vehicles", True, 240),
        ("held-out", True, 24),
        ("driving by, inside", True, found.kinds[2].images),
        ("driving by, outside", False, 48 - found.kinds[2].images),
        *((name, False, 24) for name in altered_images(np.zeros((1, 32, 32), np.uint8), 0)),
        *((name, False, 24) for name in made_images(0, 1, 32)),
        ("mine", False, 6),
        ("pictures", False, 6),
    ]
    assert found.reference == "fresh vehicles"
    assert found.kinds[-1].statistics == found.kinds[-2].statistics
    by_name = {kind.name: kind for kind in found.kinds}
    assert by_name["covered, dark"].is_ood.flagged == 1
    assert by_name["covered, dark"].statistics["mahalanobis"].auroc == 1
    assert by_name["held-out"].is_ood.flagged < 0.2
    for kind in found.kinds:
        assert kind.name in said
        assert kind.is_ood.flagged >= kind.statistics["appearance"].flagged
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ood.json", "pictures"]


def test_without_known_images_the_bundles_own_are_the_reference(
    run: Run, small_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "ood.json"
    code, said = run("--model", small_bundle, "--images", 3, "--threads", 1, "--output", output)
    assert code == 0, said
    found = load_separation(output)
    assert (found.reference, [kind.name for kind in found.kinds if kind.known]) == (
        "held-out",
        ["held-out"],
    )


def test_a_folder_of_ones_own_images_can_be_the_known_ones(
    run: Run, small_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    output = tmp_path / "ood.json"
    code, said = run(
        *("--model", small_bundle, "--known", f"mine={pictures}", "--images", 3),
        *("--threads", 1, "--output", output),
    )
    assert code == 0, said
    found = load_separation(output)
    assert found.reference == "mine"
    assert [kind.images for kind in found.kinds[:3]] == [6, 3, 3]  # all of the known ones


def test_images_are_judged_as_the_stream_judges_them(small_bundle: Path) -> None:
    bundle = load_bundle(small_bundle)
    detector = ood_detector_from_bundle(bundle)
    assert isinstance(detector, OODDetector)
    luma = np.random.default_rng(0).integers(0, 256, (19, 32, 32), np.uint8)
    request = EngineRequest(backend="onnx", threads=1)
    with (
        open_engine(bundle, GraphKey("encoder"), request) as encoder,
        open_engine(bundle, GraphKey("decoder"), request) as decoder,
    ):
        found = judged_images(luma, encoder, decoder, detector)
        latents = encoder.run(input_from_luma(luma[18:, None]))
        image = decoder.run(latents["mu"])["reconstruction"][0, 0]
    last = detector.scored(latents["mu"][0], latents["log_var"][0], detector.appearance(luma[18]))
    assert found.values["kl"][18] == pytest.approx(last.kl, rel=1e-4)
    assert found.values["mahalanobis"][18] == pytest.approx(last.mahalanobis, rel=1e-4)
    assert found.values["appearance"][18] == pytest.approx(last.appearance)
    assert found.scores[18] == pytest.approx(last.ood_score, rel=1e-4)
    assert found.values["log_var_distance"][18] == pytest.approx(last.log_var_distance, rel=1e-4)
    assert found.is_ood[18] == last.is_ood
    error = np.mean((input_from_luma(luma[18]) - image) ** 2)
    assert found.values["reconstruction_error"][18] == pytest.approx(error, rel=1e-4)
    assert {len(values) for values in found.values.values()} == {19}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--output", "result.txt"), "--output result.txt: name a file that ends in .json"),
        (("--images", 0), "--images 0: take 1 or more"),
        (("--threads", 0), "--threads 0: take 1 or more"),
        (("--seed", -1), "--seed -1: take 0 or more"),
        (("--model", "nowhere"), "no bundle at nowhere: run motorvae-export"),
        (("--ood-above", 101), "ood_above=101.0 is out of range"),
        (("--ood", "nowhere.mp4", "--images", 1), "no such source: 'nowhere.mp4'"),
        (("--known", "a=nowhere.mp4"), "no such source: 'nowhere.mp4'"),
        (("--ood", "synthetic", "--images", 1), "synthetic is live and has no end"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    run: Run,
    args: tuple[object, ...],
    message: str,
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run("--model", small_bundle, "--threads", 1, *args)
    assert code == 1
    (line,) = [line for line in said.splitlines() if not line.startswith("measuring: ")]
    assert line.startswith("python -m motorvae.benchmarks.ood: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []
