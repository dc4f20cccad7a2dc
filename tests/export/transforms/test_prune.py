"""Channels left out of an encoder: which, how many, and what of them stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from motorvae.export.cli import main
from motorvae.export.transforms.graph_ops import array_of
from motorvae.export.transforms.node_names import name_nodes
from motorvae.export.transforms.prune import Pruned, prune_channels
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.engines.base import Arrays
from motorvae.runtime.engines.open import open_file
from motorvae.runtime.sources.synthetic.vehicles import vehicle


@pytest.fixture
def encoder(pruned_bundle: Path) -> ir.Model:
    """Of 64 channels before the heads 24 say something, and 40 are 0.3 for any image."""
    bundle = load_bundle(pruned_bundle)
    content = bundle.content(bundle.entry(GraphKey("encoder")))
    model = ir.from_proto(onnx.load_from_string(content))
    name_nodes(model)
    return model


@pytest.fixture
def images() -> np.ndarray:
    pictures = [vehicle(7, number, 32)[0][None] for number in range(24)]
    return np.stack(pictures).astype(np.float32) / np.float32(255)


def run(model: ir.Model, images: np.ndarray, folder: Path) -> Arrays:
    ir.save(model, folder / "graph.onnx")
    onnx.checker.check_model(folder / "graph.onnx", full_check=True)
    with open_file(folder / "graph.onnx") as backend:
        return backend.run(images)


def widths(model: ir.Model) -> list[int]:
    return [len(array_of(node.inputs[1])) for node in model.graph if node.op_type == "Conv"]


def pruned(model: ir.Model, images: np.ndarray, folder: Path, most: float) -> tuple[Pruned, ...]:
    scales = {"mu": np.ones(8), "log_var": np.ones(8)}
    return prune_channels(model, images, scales, folder, most=most)


def test_channels_that_say_nothing_go_and_what_they_gave_stays(
    encoder: ir.Model, images: np.ndarray, tmp_path: Path
) -> None:
    wanted = run(encoder, images, tmp_path)
    (found,) = pruned(encoder, images, tmp_path, most=1e-4)
    assert (found.kept, found.of) == (32, 64)
    assert widths(encoder) == [8, 32]
    unseen = np.random.default_rng(2).random((3, 1, 32, 32), np.float32)
    for given in (images, unseen):
        expected = wanted if given is images else None
        result = run(encoder, given, tmp_path)
        if expected is not None:
            for name, values in expected.items():
                np.testing.assert_allclose(result[name], values, rtol=0, atol=1e-4)
    heads = [array_of(node.inputs[1]).shape for node in encoder.graph if node.op_type == "Gemm"]
    assert heads == [(8, 32 * 64), (8, 32 * 64)]


def test_none_goes_where_all_would_be_missed(
    encoder: ir.Model, images: np.ndarray, tmp_path: Path
) -> None:
    for node in encoder.graph:
        if node.op_type == "Conv" and len(array_of(node.inputs[1])) == 64:
            draw = np.random.default_rng(4)
            weight = node.inputs[1]
            shape = array_of(weight).shape
            weight.const_value = ir.tensor(draw.normal(0, 0.3, shape).astype(np.float32))
    assert pruned(encoder, images, tmp_path, most=1e-4) == ()
    assert widths(encoder) == [8, 64]


def test_an_export_prunes_int8_encoders_alone_and_says_so(pruned_bundle: Path) -> None:
    bundle = load_bundle(pruned_bundle)
    seen = 0
    for entry in bundle.manifest.graphs:
        model = onnx.load_from_string(bundle.content(entry))
        (size,) = {
            tensor.dims[0]
            for tensor in model.graph.initializer
            if len(tensor.dims) == 4 and tensor.dims[0] in {32, 64} and entry.graph == "encoder"
        } or {None}
        if entry.graph == "encoder":
            assert size == (32 if entry.precision == "int8" else 64), entry.title
        if entry.calibration is not None:
            seen += 1
            said = entry.calibration.channels
            assert said == (("features.3: 32 of 64",) if entry.graph == "encoder" else ())
    assert seen >= 6  # two encoders for each engine


def test_it_is_about_int8(pruned_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(pruned_bundle), "--fp16", "--prune-channels"]) == 1
    assert "--prune-channels is for INT8 graphs" in capsys.readouterr().err
    assert main(["--model", str(pruned_bundle), "--int8", "--prune-channels"]) == 1
    assert "--prune-channels would change nothing" in capsys.readouterr().err
