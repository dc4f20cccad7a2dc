"""ONNX pairs and encoders alone: to a bundle, judged by the user's own files, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import motorvae as mv
from motorvae.export.cli import main as export_main
from motorvae.export.importing.onnx_pair import model_from_onnx
from motorvae.export.importing.options import ImportOptions
from motorvae.export.importing.user_model import UserModel
from motorvae.runtime.bundle.graph_key import Part
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.bundle.manifest import Manifest
from motorvae.runtime.cli import stream_main
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.encode_cli import encode_main

from .conftest import Says
from .networks import pool

RANGE = ("--value-range", -1, 1)


def manifest_of(folder: Path) -> Manifest:
    return load_bundle(folder).manifest


def test_a_pair_becomes_a_bundle_and_streams(
    images: Path, pair: tuple[Path, Path], here: Path, says: Says
) -> None:
    encoder, decoder = pair
    said = says(
        encoder, "--decoder", decoder, "--images", images, *RANGE, "--fp16", "--engine", "none"
    )
    assert "held-out images to compare graphs on" in said
    assert "next: motorvae-stream 0" in said
    manifest = manifest_of(here / "bundle")
    assert manifest.model.latent_shape == (3, 8, 8)
    assert manifest.model.value_range == (-1, 1)
    assert manifest.model.channels is None
    assert {(entry.graph, entry.precision) for entry in manifest.graphs} == {
        (half, precision) for half in ("encoder", "decoder") for precision in ("fp32", "fp16")
    }
    assert all(report.passed for report in manifest.verification)
    assert manifest.verification[0].reference.startswith("the original encoder.onnx, ONNX Runtime")
    assert manifest.origin is not None
    assert (manifest.origin.kind, manifest.origin.name) == ("onnx", "encoder.onnx")
    files = [encoder, decoder, *encoder.parent.glob("*.data")]
    assert manifest.origin.files == {file.name: sha256_of(file) for file in files}
    # The shape of its latents goes with them, and torch agrees.
    assert encode_main([str(images), "--model", "bundle", "--output", "latents.npz"]) == 0
    with np.load("latents.npz") as found:
        mu, shape = found["mu"], tuple(found["latent_shape"])
    assert (mu.shape, shape) == ((100, 192), (3, 8, 8))
    assert stream_main(["synthetic", "--model", "bundle", "--max-frames", "3"]) == 0
    rows = [json.loads(line) for line in Path("latents.jsonl").read_text().splitlines()]
    assert sum(row["status"] == "ok" for row in rows) == 3


def test_the_reference_is_the_users_file_by_the_users_scaling(
    pair: tuple[Path, Path],
) -> None:
    """Judged by torch, which knows of no bundle: images in [0, 1] against the module in -1 to 1."""
    options = ImportOptions(what=pair[0], decoder=pair[1], images="-", value_range=(-1, 1))
    model = model_from_onnx(options, pair[0])
    images = np.random.default_rng(1).random((5, 3, 32, 32), np.float32)
    module = pool()
    with torch.inference_mode():
        mean, log_var = module.encode(torch.from_numpy(images * 2 - 1))
        image = (module.decode(mean) + 1) / 2
    found = model.encoder.run(images)
    np.testing.assert_allclose(found["mu"], mean.flatten(1), atol=1e-6)
    np.testing.assert_allclose(found["log_var"], log_var.flatten(1), atol=1e-5)
    assert model.decoder is not None
    decoded = model.decoder.run(found["mu"])["reconstruction"]
    np.testing.assert_allclose(decoded, image, atol=1e-6)


def test_an_encoder_alone_has_no_decoder_anywhere(
    images: Path, pair: tuple[Path, Path], here: Path, says: Says
) -> None:
    said = says(
        pair[0], "--images", images, *RANGE, "--outputs", "mu=mean", "--engine", "none",
        "--fit", "crop", "--color", "bgr", "--output", "made",
    )  # fmt: skip
    assert "note: outputs that are not used: log_var" in said
    manifest = manifest_of(here / "made")
    spec = manifest.model
    assert (spec.has_decoder, spec.has_log_var, spec.color, spec.fit) == (
        *(False, False),
        *("bgr", "crop"),
    )
    assert {entry.graph for entry in manifest.graphs} == {"encoder"}
    assert manifest.origin is not None
    assert "log_var" in manifest.origin.notes[0]


def test_a_wrong_range_is_found_by_the_reconstructions(
    images: Path, pair: tuple[Path, Path], here: Path, says: Says
) -> None:
    """The network computes in -1 to 1, and nobody said so."""
    line = says(
        pair[0], "--decoder", pair[1], "--images", images, "--decoder-range", "unit", *RANGE, code=1
    )
    assert "has learned too little, no bundle was written: its reconstructions explain 0%" in line
    assert "try other --value-range" in line
    assert not [*here.iterdir()]


def test_an_existing_bundle_is_treated_as_export_treats_it(
    images: Path, pair: tuple[Path, Path], here: Path, says: Says
) -> None:
    args = [pair[0], "--images", images, *RANGE, "--engine", "none"]
    says(*args, "--fp16")
    before = {path.name: sha256_of(path) for path in (here / "bundle").iterdir()}
    # Other images of the same weights and graphs: what is there is kept.
    assert "is of the same weights, and what it holds is kept" in says(*args)
    # Another preparation is another model, though the weights are the same.
    line = says(*args, "--fit", "pad", code=1)
    assert "bundle holds fp16 graphs, which this export would not make again" in line
    assert {path.name: sha256_of(path) for path in (here / "bundle").iterdir()} == before
    says(*args, "--fit", "pad", "--replace")
    assert manifest_of(here / "bundle").model.fit == "pad"
    (here / "other").mkdir()
    (here / "other" / "mine.txt").write_text("x")
    assert "is not a bundle" in says(*args, "--output", "other", code=1)


def test_another_decoder_is_refused_and_nothing_is_left(
    images: Path, pair: tuple[Path, Path], here: Path, says: Says
) -> None:
    named = ("--outputs", "mu=mean", "reconstruction=mean")
    line = says(pair[0], "--decoder", pair[0], "--images", images, *named, code=1)
    assert "takes latents of shape" in line
    assert not [*here.iterdir()]


def test_a_graph_that_differs_from_the_original_is_not_kept(
    images: Path,
    pair: tuple[Path, Path],
    here: Path,
    says: Says,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gate by the original sees a fault of ours behind the proof of the form."""
    right = UserModel.graphs

    def wrong(self: UserModel, given: np.ndarray) -> dict[Part, ir.Model]:
        found = right(self, given)
        for value in found["encoder"].graph.initializers.values():
            held = value.const_value
            if held is not None and tuple(held.shape) == (3, 3, 4, 4):
                value.const_value = ir.tensor(held.numpy() * np.float32(1.002), name=value.name)
        return found

    monkeypatch.setattr(UserModel, "graphs", wrong)
    line = says(pair[0], "--images", images, *RANGE, code=1)
    assert "verification failed, no bundle was written: encoder fp32 mu" in line
    assert "give --images that differ more" in line
    assert not [path for path in here.iterdir() if not path.name.startswith(".")]


def test_torch_is_not_needed(images: Path, pair: tuple[Path, Path], here: Path) -> None:
    """In a process where torch cannot be imported, all the way to an FP16 bundle."""
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from motorvae.export.importing.cli import import_main\n"
        f"sys.exit(import_main({[str(pair[0]), '--decoder', str(pair[1]), '--images', str(images)]}"
        " + ['--value-range', '-1', '1', '--fp16', '--engine', 'none']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert manifest_of(here / "bundle").origin is not None


def test_engines_are_built_of_both_halves(
    images: Path, pair: tuple[Path, Path], here: Path, says: Says
) -> None:
    """By the real builder of TensorRT-RTX, which needs no GPU."""
    pytest.importorskip("tensorrt_rtx")
    says(
        pair[0], "--decoder", pair[1], "--images", images, *RANGE, "--fp16",
        "--engine", "tensorrt-rtx",
    )  # fmt: skip
    built = sorted(path.name for path in (here / "bundle" / "engines").glob("*.engine"))
    assert {name.partition(".")[0] for name in built} == {"encoder", "decoder"}
    assert all("fp16" in name for name in built)


def test_the_same_from_python(images: Path, pair: tuple[Path, Path], here: Path) -> None:
    bundle = mv.import_weights(
        pair[0], images, here / "made", decoder=pair[1], value_range=(-1, 1), engine="none"
    )
    assert bundle.manifest.origin is not None
    with bundle.encoder() as encode:
        assert encode(images / "000.png").mu.shape == (192,)
    with pytest.raises(mv.MotorVAEError, match=r"outputs mean: give NAME of the graph as mu"):
        mv.import_weights(pair[0], images, here / "other", outputs=["mean"])


def test_names_are_asked_for_where_they_say_nothing(
    images: Path, pair: tuple[Path, Path], here: Path, says: Says
) -> None:
    proto = onnx.load(pair[0])
    for value, name in zip(proto.graph.output, ("first", "second"), strict=True):
        for node in proto.graph.node:
            node.output[:] = [name if one == value.name else one for one in node.output]
        value.name = name
    onnx.save(proto, here / "encoder.onnx")
    line = says("encoder.onnx", "--images", images, *RANGE, code=1)
    assert "say --outputs mu=first,log_var=second" in line
    says(
        "encoder.onnx", "--images", images, *RANGE, "--outputs", "mu=first,log_var=second",
        "--engine", "none",
    )  # fmt: skip
    assert manifest_of(here / "bundle").model.has_log_var
    # A precision is added later as to any other bundle, and the origin stays.
    before = manifest_of(here / "bundle").origin
    assert export_main(["--model", "bundle", "--fp16", "--engine", "none"]) == 0
    assert manifest_of(here / "bundle").origin == before
