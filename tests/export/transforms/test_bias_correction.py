from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from motorvae.export.transforms.bias_correction import correct_biases
from motorvae.runtime.bundle.graph_key import Part
from motorvae.runtime.engines.open import open_file
from motorvae.runtime.pixels.convert import input_from_luma

from ..conftest import SPEC, coarse_images


def test_mean_error_goes_and_nothing_else_changes(
    graphs: dict[Part, bytes], tmp_path: Path
) -> None:
    model = ir.from_proto(onnx.load_from_string(graphs["encoder"]))
    images = input_from_luma(coarse_images(SPEC)[:, None])
    runs = []
    shift = np.linspace(-1, 1, SPEC.latent_size, dtype=np.float32)
    for corrected in (False, True):
        if corrected:
            rng = np.random.default_rng(0)
            noise = rng.standard_normal((len(images), SPEC.latent_size)).astype(np.float32)
            noise -= noise.mean(axis=0)
            found = {"mu": runs[0]["mu"] + shift + noise, "log_var": runs[0]["log_var"]}
            correct_biases(model, found, runs[0])
        path = tmp_path / f"{corrected}.onnx"
        ir.save(model, path)
        with open_file(path) as backend:
            runs.append(backend.run(images))
    expected = np.broadcast_to(-shift, runs[0]["mu"].shape)
    np.testing.assert_allclose(runs[1]["mu"] - runs[0]["mu"], expected, atol=1e-5)
    np.testing.assert_array_equal(runs[1]["log_var"], runs[0]["log_var"])


def test_output_without_a_bias_is_named() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[2] image) => (float[2] mu) { mu = Neg (image) }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    values = {"mu": np.zeros((1, 2), np.float32)}
    with pytest.raises(ValueError, match="mu comes from no layer with a bias"):
        correct_biases(model, values, values)
