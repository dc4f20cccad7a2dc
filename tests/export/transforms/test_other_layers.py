"""Equalising, quantising and 8-bit inputs on graphs of networks unlike the card's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
import torch

from motorvae.export.transforms.equalise import correct_biases, equalise, links_of, reach_over
from motorvae.export.transforms.io_variants import luma_from_float
from motorvae.export.transforms.qdq import (
    Activations,
    Method,
    check_int8,
    int8_from_fp32,
    layers_of,
)
from motorvae.runtime.bundle.graph_key import Target
from motorvae.runtime.core.errors import VerificationError
from motorvae.runtime.engines.open import open_file

from ..other_networks import (
    FLAT,
    SPATIAL,
    FlatEncoder,
    SpatialDecoder,
    SpatialEncoder,
    graph_of,
    pictures,
)

Arrays = dict[str, npt.NDArray[np.float32]]


def images_of(count: int) -> npt.NDArray[np.float32]:
    return pictures(SPATIAL, count).astype(np.float32) / np.float32(255)


@pytest.fixture(scope="module")
def spatial() -> bytes:
    torch.manual_seed(0)
    model = graph_of(SpatialEncoder(), SPATIAL.input_shape, "mu", "log_var")
    return bytes(ir.to_proto(model).SerializeToString())


def loaded(data: bytes) -> ir.Model:
    model: ir.Model = ir.from_proto(onnx.load_from_string(data))
    return model


def outputs_of(model: ir.Model, inputs: np.ndarray, folder: Path) -> Arrays:
    ir.save(model, folder / "graph.onnx")
    with open_file(folder / "graph.onnx") as backend:
        return backend.run(inputs)


def test_only_what_is_understood_is_equalised(spatial: bytes, tmp_path: Path) -> None:
    model, inputs = loaded(spatial), images_of(3)
    # Norms and residual additions part all other layers.
    assert [(link.name, link.channels) for link in links_of(model)] == [("conv2d", 8)]
    before = outputs_of(model, inputs, tmp_path)
    reach = {"conv2d": np.geomspace(1e-2, 1, 8)}
    equalise(model, reach)
    after = outputs_of(model, inputs, tmp_path)
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, atol=2e-5)


def test_layers_in_groups_are_left_alone_and_relu_links_the_others(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = graph_of(FlatEncoder(), FLAT.input_shape, "mu")
    assert [link.name for link in links_of(model)] == ["relu_2"]
    inputs = pictures(FLAT, 4)[:, None].astype(np.float32) / np.float32(255)
    before = outputs_of(model, inputs, tmp_path)
    equalise(model, {"relu_2": np.geomspace(1e-3, 1, 16)})
    np.testing.assert_allclose(outputs_of(model, inputs, tmp_path)["mu"], before["mu"], atol=2e-5)
    assert reach_over(model, inputs, tmp_path).keys() == {"relu_2"}


def test_weights_that_two_layers_share_are_left_alone() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 2] z) => (float[batch, 2] reconstruction)
    <float[2, 2] w = {1, 2, 3, 4}>
    {
        one = Gemm <transB = 1> (z, w)
        reconstruction = Gemm <transB = 1> (one, w)
    }
    """
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    assert links_of(ir.from_proto(proto)) == ()


def test_bias_of_spatial_latents_is_corrected_behind_slice_and_reshape(
    spatial: bytes, tmp_path: Path
) -> None:
    model, inputs = loaded(spatial), images_of(6)
    true = outputs_of(model, inputs, tmp_path)
    bias = model.graph.initializers["moments.bias"]
    assert bias.const_value is not None
    shift = np.linspace(-0.4, 0.3, 8, dtype=np.float32)
    wrong = bias.const_value.numpy() + shift
    bias.const_value = ir.tensor(wrong, name="moments.bias")
    found = outputs_of(model, inputs, tmp_path)
    assert np.abs(found["mu"] - true["mu"]).max() > 0.2
    correct_biases(model, found, true)
    mended = outputs_of(model, inputs, tmp_path)
    for name, values in true.items():
        np.testing.assert_allclose(mended[name], values, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "corrected"),
    [
        ("h = MatMul (z, w) s = Add (h, b) mu = Mul (s, two)", True),
        ("h = Gemm (z, w, b) mu = Div (h, two)", True),
        ("h = Gemm (z, w, b) mu = Tanh (h)", False),
        ("h = Gemm (z, w, b) mu = Mul (h, w0)", False),
        ("mu = Neg (z)", False),
    ],
)
def test_biases_are_found_or_left_alone(body: str, corrected: bool) -> None:
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 2] z) => (float[batch, 2] mu)
    <float[2, 2] w = {{1, 0, 0, 1}}, float[2] b = {{1, 2}}, float two = {{2.0}},
     float[2] w0 = {{1, 2}}>
    {{ {body} }}
    """
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    wanted = {"mu": np.zeros((3, 2), np.float32)}
    correct_biases(model, {"mu": np.ones((3, 2), np.float32)}, wanted)
    bias = model.graph.initializers["b"]
    assert bias.const_value is not None
    factor = 2.0 if "Mul (s" in body else 0.5
    expected = np.float32([1, 2]) - (1 / factor if corrected else 0)
    np.testing.assert_array_equal(bias.const_value.numpy(), expected)


def test_layers_have_their_modules_names_whatever_their_weights_are_called(spatial: bytes) -> None:
    assert [*layers_of(loaded(spatial))] == [
        "first",
        "down1",
        "block.conv1",
        "block.conv2",
        "down2",
        "node_MatMul_62",
        "node_MatMul_64",
        "node_MatMul_67",
        "node_MatMul_69",
        "moments",
    ]


def test_folded_weights_are_called_after_their_nodes() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 1, 4, 4] image) => (float[batch, 1, 4, 4] mu)
    <float[1, 1, 1, 1] w1 = {1}, float[1, 1, 1, 1] w2 = {2}>
    {
        one = Conv (image, w1)
        mu = Conv (one, w2)
    }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    first, second = model.graph
    first.name, second.name = "/encoder/encoder.0/Conv", "/encoder/encoder.1/Conv"
    assert [*layers_of(model)] == ["encoder.0", "encoder.1"]


@pytest.mark.parametrize("runner", ["onnx", "openvino", "tensorrt"])
def test_products_with_weights_are_int8_and_those_of_attention_are_not(
    runner: Target, spatial: bytes, tmp_path: Path
) -> None:
    model, inputs = loaded(spatial), images_of(6)
    true = outputs_of(model, inputs, tmp_path)
    quantised = int8_from_fp32(model, Activations(model, inputs).ranges(Method()), runner)
    check_int8(quantised, ())
    makers = {
        str(node.name): [value.producer() for value in node.inputs if value is not None]
        for node in quantised.graph
        if node.op_type == "MatMul"
    }
    kinds = {name: {one.op_type for one in of if one} for name, of in makers.items()}
    assert kinds["node_MatMul_62"] == {"DequantizeLinear"}
    assert "DequantizeLinear" not in kinds["node_matmul"] | kinds["node_matmul_1"]
    found = outputs_of(quantised, inputs, tmp_path)
    assert np.corrcoef(found["mu"].ravel(), true["mu"].ravel())[0, 1] > 0.98
    with pytest.raises(VerificationError, match="labelled int8 has float32 weights"):
        check_int8(model, ())


def test_scaled_pixels_end_at_black_and_white_and_latents_have_room(spatial: bytes) -> None:
    inputs = images_of(6)
    for method in (Method(), Method(99.0)):
        ranges = Activations(loaded(spatial), inputs).ranges(method)
        least, most = ranges["sub_1"].range_value
        assert (least, most) == (2 * inputs.min() - 1, 2 * inputs.max() - 1)
    torch.manual_seed(0)
    decoder = graph_of(SpatialDecoder(), (128,), "reconstruction")
    latents = np.random.default_rng(0).standard_normal((4, 128)).astype(np.float32)
    found = Activations(decoder, latents).ranges(Method(99.0))["view"].range_value
    assert found == pytest.approx((1.25 * latents.min(), 1.25 * latents.max()), rel=1e-6)


def test_colour_planes_of_8_bits_are_scaled_inside_bit_for_bit(
    spatial: bytes, tmp_path: Path
) -> None:
    floats, luma = loaded(spatial), loaded(spatial)
    luma_from_float(luma)
    levels = pictures(SPATIAL, 3)
    scaled = levels.astype(np.float32) * np.float32(1 / 255)
    expected = outputs_of(floats, scaled, tmp_path)
    found = outputs_of(luma, levels, tmp_path)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
