from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console

from motorvae.benchmarks.measure.result import environment_now, load_now
from motorvae.benchmarks.ood import (
    Judged,
    SeparationResult,
    judged_images,
    kind_of_images,
    main,
    print_separation,
)
from motorvae.export.ood import altered_images, made_images
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.documents import save_document
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.open import EngineRequest, open_engine
from motorvae.runtime.ood.appearance import Appearance
from motorvae.runtime.ood.detector import STATISTIC_NAMES, OODDetector, ood_detector_from_bundle
from motorvae.runtime.pixels.convert import input_from_pixels

LOOKS = len(Appearance(32, 32).names)


@pytest.fixture
def detector() -> OODDetector:
    """One latent dimension; every limit is 9 or, for the two that decide, 9.2 and 9.5."""
    return OODDetector(
        {
            "mean": np.zeros(1),
            "covariance": np.eye(1),
            "covariance_ridge": np.array(0.0),
            "covariance_shrinkage": np.array(0.0),
            "appearance_mean": np.zeros(LOOKS),
            "appearance_deviation": np.ones(LOOKS),
            "appearance_references": np.zeros((1, LOOKS)),
            **{f"{name}_excess": np.array(0.0) for name in ("appearance", "mahalanobis")},
            **{f"{name}_effective_count": np.array(9.0) for name in ("appearance", "mahalanobis")},
            "log_var_mean": np.zeros(1),
            "log_var_deviation": np.ones(1),
            "log_var_ridge": np.array(0.0),
            "quantile_levels": np.array([0.0, 0.95, 1.0]),
            "quantile_count": np.array(100.0),
            **{f"{name}_quantiles": np.array([0.0, 9.5, 10.0]) for name in STATISTIC_NAMES},
        },
        ModelSpec(image_size=32, latent_size=1),
        ood_above=90,
    )


def judged(detector: OODDetector, values: list[float], is_ood: list[bool]) -> Judged:
    found: Judged = {
        name: (np.array(values), np.array([detector.is_beyond(name, value) for value in values]))
        for name in STATISTIC_NAMES
    }
    return {**found, "is_ood": (np.array(values) / 9, np.array(is_ood))}


def load_separation(path: Path) -> SeparationResult:
    return SeparationResult.model_validate_json(path.read_bytes())


@pytest.fixture
def result(detector: OODDetector, small_spec: ModelSpec) -> SeparationResult:
    known = judged(detector, [1, 2, 3, 4], [False] * 4)
    noise = judged(detector, [2, 10, 11], [False, False, True])
    return SeparationResult(
        created="2026-11-23T12:00:00+00:00",
        environment=environment_now(threads={}, load_start=load_now()),
        model=small_spec,
        weights_sha256="ab" * 32,
        backend="ONNX Runtime",
        seed=0,
        ood_above=90,
        known_images=100,
        effective_images=9.0,
        false_alarms=0.2,
        reference="vehicles",
        kinds=(
            kind_of_images("vehicles", known, reference=None, known=True),
            kind_of_images("noise", noise, reference=known, known=False),
        ),
    )


def test_a_kind_says_what_is_past_which_limit(result: SeparationResult) -> None:
    known, noise = result.kinds
    assert (known.images, noise.images) == (4, 3)
    assert (known.is_ood.flagged, known.is_ood.auroc) == (0, None)
    assert known.statistics["mahalanobis"].auroc is None
    found = noise.statistics["mahalanobis"]
    assert found.auroc == pytest.approx((1.5 + 4 + 4) / 12)
    assert found.flagged == pytest.approx(2 / 3)
    # 2 is as near to the middle of 1 to 4 as 3 is, and nearer than 1 and 4; 10 and 11 are outside.
    assert found.two_sided == pytest.approx(((1 + 1) / 2 + 4 + 4) / 12)
    # What the runtime called out of distribution, not what could be worked out here.
    assert noise.is_ood.flagged == pytest.approx(1 / 3)
    assert noise.is_ood.auroc == pytest.approx((1.5 + 4 + 4) / 12)


def test_a_result_reads_back_equal(result: SeparationResult, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    save_document(path, result)
    assert load_separation(path) == result


def test_a_result_of_another_version_is_refused(result: SeparationResult, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    save_document(path, result)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"schema_version": 1}), encoding="utf-8")
    with pytest.raises(ValidationError, match="schema_version"):
        load_separation(path)


def test_the_table_shows_each_figure(result: SeparationResult) -> None:
    said = io.StringIO()
    print_separation(Console(file=said, width=80), result)
    text = said.getvalue()
    caption = " ".join(" ".join(text.splitlines()[:3]).split())
    assert "AUROC against vehicles; flagged past 90 %, by 100 held-out images worth 9" in caption
    (row,) = [line for line in text.splitlines() if line.lstrip().startswith("noise")]
    assert row.split() == ["noise", "3", *["0.792", "67%"] * 4, "0.792", "33%"]
    (row,) = [line for line in text.splitlines() if line.lstrip().startswith("vehicles")]
    assert row.split() == ["vehicles", "4", *["0%"] * 5]


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
        *((name, False, 24) for name in made_images(0, 1, (32, 32))),
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
        latents = encoder.run(input_from_pixels(luma[18:, None]))
        image = decoder.run(latents["mu"])["reconstruction"][0, 0]
    last = detector.scored(latents["mu"][0], latents["log_var"][0], detector.appearance(luma[18]))
    assert found["kl"][0][18] == pytest.approx(last.kl, rel=1e-4)
    assert found["mahalanobis"][0][18] == pytest.approx(last.mahalanobis, rel=1e-4)
    assert found["appearance"][0][18] == pytest.approx(last.appearance)
    assert found["is_ood"][0][18] == pytest.approx(last.ood_score, rel=1e-4)
    assert found["log_var_distance"][0][18] == pytest.approx(last.log_var_distance, rel=1e-4)
    assert found["is_ood"][1][18] == last.is_ood
    error = np.mean((input_from_pixels(luma[18]) - image) ** 2)
    assert found["reconstruction_error"][0][18] == pytest.approx(error, rel=1e-4)
    assert {len(values) for values, _ in found.values()} == {19}
    limit = [detector.is_beyond("mahalanobis", value) for value in found["mahalanobis"][0]]
    assert found["mahalanobis"][1].tolist() == limit


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--output", "result.txt"), "--output result.txt: name a file that ends in .json"),
        (("--images", 0), "--images 0: take 1 or more"),
        (("--threads", 0), "--threads 0: take 1 or more"),
        (("--seed", -1), "--seed -1: take 0 or more"),
        (("--model", "nowhere"), "no bundle at nowhere: run motorvae-export"),
        (("--ood-above", 101), "--ood-above=101.0 is out of range"),
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


def test_the_published_result_is_of_the_schema_that_is_read() -> None:
    path = Path(__file__).parents[2] / "docs" / "results" / "ood.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    assert len(results) == 4
    for result in results.values():
        SeparationResult.model_validate_json(json.dumps(result))
