from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from motorvae.export.transforms.fp16 import fp16_from_fp32
from motorvae.export.transforms.io_variants import (
    luma_from_float,
    luma_from_quantised,
    mu_from_encoder,
)
from motorvae.runtime.bundle.graph_key import GraphKey, Part
from motorvae.runtime.engines.base import Arrays
from motorvae.runtime.engines.open import open_file
from motorvae.runtime.pixels.convert import input_from_pixels

from ..conftest import SPEC, coarse_images

LUMA = coarse_images(SPEC)[:, None]


@pytest.fixture
def encoder(graphs: dict[Part, bytes]) -> ir.Model:
    return ir.from_proto(onnx.load_from_string(graphs["encoder"]))


def run(model: ir.Model, batch: np.ndarray, path: Path) -> Arrays:
    ir.save(model, path)
    onnx.checker.check_model(path, full_check=True)
    with open_file(path) as backend:
        return backend.run(batch)


def test_luma_gives_bit_for_bit_what_scaled_luma_gives(encoder: ir.Model, tmp_path: Path) -> None:
    every_level = np.resize(np.arange(256, dtype=np.uint8), (2, 1, 32, 32))
    expected = run(encoder, input_from_pixels(every_level), tmp_path / "float.onnx")
    luma_from_float(encoder)
    found = run(encoder, every_level, tmp_path / "luma.onnx")
    with open_file(tmp_path / "luma.onnx") as backend:
        key = GraphKey("encoder", variant="luma")
        backend.check_tensors(key.inputs(SPEC), key.outputs(SPEC))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_mu_alone_is_the_same_mu_without_the_other_head(encoder: ir.Model, tmp_path: Path) -> None:
    luma_from_float(encoder)
    expected = run(encoder, LUMA, tmp_path / "luma.onnx")
    mu_from_encoder(encoder)
    found = run(encoder, LUMA, tmp_path / "mu.onnx")
    assert list(found) == ["mu"]
    np.testing.assert_array_equal(found["mu"], expected["mu"])
    assert not [name for name in encoder.graph.initializers if name.startswith("log_var")]
    head = SPEC.latent_size * SPEC.flat_size * 4
    sizes = [(tmp_path / name).stat().st_size for name in ("luma.onnx", "mu.onnx")]
    assert sizes[0] - sizes[1] >= head


def test_fp16_takes_luma_too(encoder: ir.Model, tmp_path: Path) -> None:
    expected = run(encoder, input_from_pixels(LUMA), tmp_path / "float.onnx")
    luma_from_float(encoder)
    fp16_from_fp32(encoder)
    found = run(encoder, LUMA, tmp_path / "half.onnx")
    assert np.abs(found["mu"] - expected["mu"]).max() < 0.01 * expected["mu"].std()


QUANTISED = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, 2] image) => (float[batch, 2] mu)
<float scale = {{{scale}}}, uint8 zero = {{{zero}}}> {{
    q = QuantizeLinear (image, scale, zero)
    mu = DequantizeLinear (q, scale, zero)
}}
"""


@pytest.mark.parametrize(
    ("scale", "zero", "operators"),
    [
        (float(np.float32(1 / 255)), 0, ["DequantizeLinear"]),
        (float(np.float32(1 / 254)), 0, ["Cast", "Mul", "QuantizeLinear", "DequantizeLinear"]),
        (float(np.float32(1 / 255)), 3, ["Cast", "Mul", "QuantizeLinear", "DequantizeLinear"]),
    ],
)
def test_quantised_input_is_read_as_it_is_only_where_that_is_exact(
    scale: float, zero: int, operators: list[str], tmp_path: Path
) -> None:
    text = QUANTISED.format(scale=repr(scale), zero=zero)
    model = ir.from_proto(onnx.parser.parse_model(text))
    luma_from_quantised(model)
    assert [node.op_type for node in model.graph] == operators
    luma = np.array([[0, 1], [128, 252]], np.uint8)
    found = run(model, luma, tmp_path / "g.onnx")["mu"]
    np.testing.assert_allclose(found, luma / 255, atol=scale / 2 if len(operators) > 1 else 1e-7)
