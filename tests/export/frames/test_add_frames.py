"""`motorvae-export --whole-frame`: into a bundle, into a file, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from motorvae.export.bundle import check_replaceable
from motorvae.export.cli import main
from motorvae.export.frames import encoder as frame_encoder
from motorvae.export.frames.fixed_size import FixedAxes
from motorvae.export.frames.judging_frames import (
    frame_from_image,
    image_from_pictures,
    picture_from_frame,
)
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.core.errors import BundleError
from motorvae.runtime.engines.open import EngineRequest, open_engine
from motorvae.runtime.pixels.convert import input_from_pixels

NV12 = GraphKey("encoder", "fp32", "nv12")


@pytest.fixture
def bundle(small_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle, tmp_path / "bundle"))


def files_of(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def export(*words: object) -> int:
    return main(["--model", *map(str, words)])


def test_it_is_in_the_bundle_verified_and_described(bundle: Path) -> None:
    assert export(bundle, "--whole-frame", "nv12:200x120:bt709:full") == 0
    found = load_bundle(bundle)
    frame = found.entry(NV12).frame
    assert frame is not None
    assert str(frame) == "nv12:200x120:bt709:full"
    entries = json.loads((bundle / "manifest.json").read_text())["graphs"]
    (entry,) = (one for one in entries if one["file"] == "encoder.nv12.onnx")
    assert entry["frame"] == {
        "layout": "nv12",
        "width": 200,
        "height": 120,
        "matrix": "bt709",
        "range": "full",
    }
    assert entry["inputs"] == [{"name": "frame", "dtype": "uint8", "shape": ["batch", 180, 200]}]
    titles = {report.title: report for report in found.manifest.verification if report.images <= 8}
    assert {"encoder fp32 nv12", "encoder fp16 nv12"} <= set(titles)
    assert all(report.passed for report in titles.values())
    # Who asks for an encoder of pictures never gets it.
    leanest = found.leanest(GraphKey("encoder"))
    assert leanest.frame is None


def test_its_latents_are_those_of_the_reference_pictures(bundle: Path) -> None:
    assert export(bundle, "--whole-frame", "nv12:200x120") == 0
    found = load_bundle(bundle)
    frame = found.entry(NV12).frame
    assert frame is not None
    images = np.load(bundle / "verification.npz")["images"]
    taken = [
        frame_from_image(image_from_pictures(images, number, frame.size), frame)
        for number in range(4)
    ]
    pictures = np.array([picture_from_frame(one, frame, found.spec) for one in taken])
    with open_engine(found, GraphKey("encoder")) as pixels:
        expected = pixels.run(input_from_pixels(pictures))["mu"]
    spread = np.sqrt(np.diag(np.load(bundle / "latents.npz")["covariance"]))
    for request in (EngineRequest(backend="onnx"), EngineRequest(backend="openvino")):
        if request.backend == "openvino":
            pytest.importorskip("openvino")
        with open_engine(found, NV12, request) as whole:
            mu = whole.run(np.array(taken))["mu"]
        # An untrained model of 32 x 32 pixels: one level of one pixel counts for much.
        assert np.abs((mu - expected) / np.maximum(spread, spread.max() / 100)).max() < 0.15


def test_other_frames_need_replace_or_a_file(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(bundle, "--whole-frame", "bgr:64x48") == 0
    before = files_of(bundle)
    assert export(bundle, "--whole-frame", "bgr:96x48") == 1
    assert "has an encoder fp32 bgr already, for bgr:64x48" in " ".join(
        capsys.readouterr().err.split()
    )
    assert files_of(bundle) == before
    assert export(bundle, "--whole-frame", "bgr:96x48", "--replace") == 0
    found = load_bundle(bundle)
    assert [str(one.frame) for one in found.manifest.graphs if one.frame] == ["bgr:96x48"] * 2
    reports = [one for one in found.manifest.verification if one.key.takes_frames]
    assert len(reports) == 4
    # An export of other weights names it as what would be lost.
    assert "encoders of whole bgr frames" in check_replaceable(bundle)


@pytest.mark.parametrize("text", ["bgr:free", "nv12:free"])
def test_of_any_size_it_is_a_file_with_a_description(
    bundle: Path, tmp_path: Path, text: str
) -> None:
    before = files_of(bundle)
    path = tmp_path / "camera.onnx"
    assert export(bundle, "--whole-frame", text, "--output", path) == 0
    assert files_of(bundle) == before
    said = json.loads((tmp_path / "camera.json").read_text())
    assert said["file"]["sha256"] == sha256_of(path)
    assert said["frame"]["width"] is None
    session = onnxruntime.InferenceSession(path)
    for height, width in ((48, 64), (90, 122)):
        shape = (height, width, 3) if text.startswith("bgr") else (height * 3 // 2, width)
        mu = session.run(["mu"], {"frame": np.full((2, *shape), 80, np.uint8)})[0]
        assert mu.shape == (2, load_bundle(bundle).spec.latent_size)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nv12:free:bt601"], "is kept outside of bundles"),
        (["nv12:free"], "is kept outside of bundles"),
        (["nv12:101x60"], "both sides of nv12 are even"),
        (["nv12:0x60"], "each side must be 1 to 8192"),
        (["yuy2:64x48"], "take such as nv12:1920x1080"),
        (["bgr:64"], "take such as nv12:1920x1080"),
        (["bgr:64x48:bt709"], "is no matrix or range"),
        (["nv12:64x48:bt709:bt601"], "is no matrix or range"),
        (["nv12:64x48:auto"], "is no matrix or range"),
        (["bgr:64x48", "--int8"], "has no part in --whole-frame"),
        (["bgr:64x48", "--output", "frame.txt"], "ends in .onnx"),
        (["bgr:64x48", "--output", "absent/frame.onnx"], "absent is not there: make that folder"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files_of(bundle)
    code = export(bundle, "--whole-frame", *words)
    assert code != 0
    error = " ".join(capsys.readouterr().err.split())
    assert said in error
    assert "Traceback" not in error
    assert files_of(bundle) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_without_a_bundle_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--whole-frame", "bgr:64x48"]) != 0
    assert "name one with --model" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("fault", ["half a pixel", "colours", "mirrored"])
def test_a_wrong_picture_leaves_nothing_behind(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    """Faults are planted in the graph that is made, not in what judges it."""
    resized, parts_of = FixedAxes.resized, frame_encoder.parts_of
    if fault == "colours":

        def swapped(*given: object) -> object:
            parts = parts_of(*given)  # type: ignore[arg-type]
            parts[0].mix[:] = parts[0].mix[:, ::-1]
            return parts

        monkeypatch.setattr(frame_encoder, "parts_of", swapped)
    else:

        def wrong(self: FixedAxes, levels: ir.Value, part: object) -> object:
            shifted = np.roll(self._across, 5, axis=1)
            self._across = shifted if fault == "half a pixel" else self._across[:, ::-1]
            return resized(self, levels, part)  # type: ignore[arg-type]

        monkeypatch.setattr(FixedAxes, "resized", wrong)
    before = files_of(bundle)
    assert export(bundle, "--whole-frame", "bgr:200x120") == 1
    assert "verification of whole frames bgr:200x120 failed" in " ".join(
        capsys.readouterr().err.split()
    )
    assert files_of(bundle) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_whose_frame_was_changed_is_refused(bundle: Path) -> None:
    assert export(bundle, "--whole-frame", "bgr:64x48") == 0
    path = bundle / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"width": 64', '"width": 80'))
    with pytest.raises(BundleError):
        load_bundle(bundle)
    path.write_text(text.replace('"layout": "bgr"', '"layout": "nv12"'))
    with pytest.raises(BundleError):
        load_bundle(bundle)
