from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from motorvae.export.transforms.graph_ops import typed_node
from motorvae.export.transforms.phases import phases_from_decoder
from motorvae.export.transforms.qdq import (
    Activations,
    Method,
    check_int8,
    int8_from_fp32,
    layers_of,
)
from motorvae.runtime.bundle.graph_key import Part, Target
from motorvae.runtime.core.errors import VerificationError
from motorvae.runtime.engines.open import open_file
from motorvae.runtime.pixels.convert import input_from_pixels

from ..conftest import SPEC, coarse_images

IMAGES = input_from_pixels(coarse_images(SPEC)[:, None])
LATENTS = np.random.default_rng(0).standard_normal((24, SPEC.latent_size), np.float32)
RUNNERS: tuple[Target, ...] = ("onnx", "openvino", "tensorrt")


@pytest.fixture(scope="module")
def encoder(graphs: dict[Part, bytes]) -> ir.Model:
    return ir.from_proto(onnx.load_from_string(graphs["encoder"]))


@pytest.fixture(scope="module")
def in_encoder(encoder: ir.Model) -> Activations:
    return Activations(encoder, IMAGES)


@pytest.fixture(scope="module")
def phases(graphs: dict[Part, bytes]) -> ir.Model:
    model = ir.from_proto(onnx.load_from_string(graphs["decoder"]))
    phases_from_decoder(model, "openvino")
    return model


@pytest.fixture(scope="module")
def in_decoder(phases: ir.Model) -> Activations:
    return Activations(phases, LATENTS)


def quantisers_of(model: ir.Model) -> list[np.ndarray]:
    """Return the zero points of what is quantised while the graph runs."""
    return [
        node.inputs[2].const_value.numpy()
        for node in model.graph
        if node.op_type == "QuantizeLinear"
    ]


def test_ranges_hold_what_they_say(
    encoder: ir.Model, in_encoder: Activations, tmp_path: Path
) -> None:
    """Against values taken out of the running graph, one tensor by name."""
    exposed = encoder.clone()
    node = next(node for node in exposed.graph if node.op_type == "LeakyRelu")
    exposed.graph.outputs.append(node.outputs[0])
    ir.save(exposed, tmp_path / "exposed.onnx")
    with open_file(tmp_path / "exposed.onnx") as backend:
        values = backend.run(IMAGES)[str(node.outputs[0].name)]
    name = str(node.outputs[0].name)
    whole = in_encoder.ranges(Method())[name].range_value
    assert whole == pytest.approx((values.min(), values.max()), rel=1e-6)
    least, most = in_encoder.ranges(Method(99.0))[name].range_value
    outside = np.mean((values < least) | (values > most))
    assert 0.002 < outside < 0.015
    # The histograms are the same ones, whatever was asked before.
    assert in_encoder.ranges(Method())[name].range_value == whole


def test_input_of_a_decoder_has_room_beyond_what_was_seen(in_decoder: Activations) -> None:
    for method in (Method(), Method(99.9)):
        least, most = in_decoder.ranges(method)["z"].range_value
        assert least == pytest.approx(1.25 * LATENTS.min(), rel=1e-6)
        assert most == pytest.approx(1.25 * LATENTS.max(), rel=1e-6)


def test_calibrator_says_nothing_on_standard_output(
    encoder: ir.Model, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []
    Activations(encoder, IMAGES[:3], progress=seen.append).ranges(Method(99.9))
    assert seen == [1, 2, 3]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("runner", RUNNERS)
def test_each_engine_gets_the_types_that_it_takes(
    runner: Target, encoder: ir.Model, in_encoder: Activations
) -> None:
    model = int8_from_fp32(encoder, in_encoder.ranges(Method()), runner)
    zeros = quantisers_of(model)
    assert {zero.dtype.name for zero in zeros} == ({"int8"} if runner == "tensorrt" else {"uint8"})
    if runner == "tensorrt":
        assert not any(zero.any() for zero in zeros)
    weights = [
        node.inputs[1].producer().inputs[0].const_value.numpy()
        for node in model.graph
        if node.op_type in {"Conv", "Gemm"}
    ]
    assert {weight.dtype.name for weight in weights} == {"int8"}
    # ONNX Runtime has INT8 kernels for what lies between layers; the others fuse it.
    inputs = [node.inputs[0] for node in model.graph if node.op_type == "LeakyRelu"]
    quantised = {value.producer().op_type == "DequantizeLinear" for value in inputs}
    assert quantised == {runner == "onnx"}
    check_int8(model, ())


@pytest.mark.parametrize("runner", ["onnx", "openvino"])
def test_luma_s_own_steps_are_the_input_s(
    runner: Target, encoder: ir.Model, in_encoder: Activations
) -> None:
    model = int8_from_fp32(encoder, in_encoder.ranges(Method(99.9)), runner)
    first = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    assert first.inputs[0].name == "image"
    assert first.inputs[1].const_value.numpy() == np.float32(1 / 255)
    assert first.inputs[2].const_value.numpy() == 0


@pytest.mark.parametrize("runner", RUNNERS)
def test_quantised_decoder_draws_the_same_image_roughly(
    runner: Target, in_decoder: Activations, graphs: dict[Part, bytes], tmp_path: Path
) -> None:
    whole = ir.from_proto(onnx.load_from_string(graphs["decoder"]))
    # What flows between the layers has the same names in all forms, so the ranges fit each.
    source = whole.clone()
    phases_from_decoder(source, runner)
    images = []
    for model in (whole, int8_from_fp32(source, in_decoder.ranges(Method()), runner)):
        path = tmp_path / "g.onnx"
        ir.save(model, path)
        onnx.checker.check_model(path, full_check=True)
        with open_file(path) as backend:
            images.append(backend.run(LATENTS)["reconstruction"])
    assert 0 < np.abs(images[1] - images[0]).max() < 0.1
    assert np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1] > 0.98


def test_layers_are_named_alike_in_both_decoders(
    phases: ir.Model, graphs: dict[Part, bytes]
) -> None:
    whole = ir.from_proto(onnx.load_from_string(graphs["decoder"]))
    assert [*layers_of(phases)] == [*layers_of(whole)]
    assert {name: len(nodes) for name, nodes in layers_of(phases).items()}["features.0"] == 4


def test_joined_phases_have_the_steps_of_their_image(
    graphs: dict[Part, bytes], in_decoder: Activations
) -> None:
    """Else ONNX Runtime would round what is only moved again at each step."""
    model = ir.from_proto(onnx.load_from_string(graphs["decoder"]))
    phases_from_decoder(model, "onnx")
    ranges = in_decoder.ranges(Method(99.9))
    graph = int8_from_fp32(model, ranges, "onnx").graph
    steps: dict[str, set[bytes]] = {}
    for node in graph:
        if node.op_type == "QuantizeLinear" and (name := node.inputs[0].name).startswith("leaky"):
            constants = [value.const_value.numpy().tobytes() for value in node.inputs[1:]]
            steps.setdefault(name.partition(".phase")[0], set()).add(b"".join(constants))
    # The image is made of the last one's phases without joining them, so each has its own.
    assert [len(found) for found in steps.values()] == [1, 1, 1, 1, 4]


def test_openvino_shuffles_eight_bits(phases: ir.Model, in_decoder: Activations) -> None:
    graph = int8_from_fp32(phases, in_decoder.ranges(Method()), "openvino").graph
    shuffles = [node for node in graph if node.op_type == "DepthToSpace"]
    dtypes = [node.outputs[0].dtype for node in shuffles]
    assert dtypes == [ir.DataType.UINT8] * 4 + [ir.DataType.FLOAT]
    sources = [node.inputs[0].producer().op_type for node in graph if node.op_type == "Concat"]
    assert sources == ["QuantizeLinear"] * 4


def test_excluded_layer_stays_in_float_and_is_seen_there(
    phases: ir.Model, in_decoder: Activations
) -> None:
    ranges = in_decoder.ranges(Method())
    model = int8_from_fp32(phases, ranges, "openvino", excluded=["features.3"])
    floats = [
        node.inputs[1].name
        for node in model.graph
        if node.op_type in {"Conv", "Gemm"} and node.inputs[1].const_value is not None
    ]
    assert len(floats) == 4
    assert all(name.startswith("features.3.phase") for name in floats)
    check_int8(model, ["features.3"])
    for claimed in ((), ("features.0",)):
        with pytest.raises(VerificationError, match=r"float32 weights in \['features\.3'\]"):
            check_int8(model, claimed)
    with pytest.raises(VerificationError, match="labelled int8"):
        check_int8(phases, [*layers_of(phases)])


def test_nothing_is_rounded_between_two_layers_in_float(
    graphs: dict[Part, bytes], in_decoder: Activations
) -> None:
    """ONNX Runtime's graphs round what is only moved, too: here an activation, for nothing."""
    decoder = ir.from_proto(onnx.load_from_string(graphs["decoder"]))
    phases_from_decoder(decoder, "onnx")
    excluded = ["features.12", "image"]
    model = int8_from_fp32(decoder, in_decoder.ranges(Method()), "onnx", excluded=excluded)
    check_int8(model, excluded)
    to_image = [
        node
        for node in model.graph
        if node.op_type == "Conv" and str(node.inputs[1].name).startswith("image.phase")
    ]
    assert len(to_image) == 4
    for node in to_image:
        activation = node.inputs[0].producer()
        assert activation is not None
        assert activation.op_type == "LeakyRelu"
        before = activation.inputs[0]
        assert before is not None
        maker = before.producer()
        assert maker is not None
        assert maker.op_type == "Conv"


def test_rows_of_phases_are_joined_in_float_for_a_layer_in_float(
    graphs: dict[Part, bytes], in_decoder: Activations, tmp_path: Path
) -> None:
    """ONNX Runtime dequantises what several nodes read once for each of them."""
    decoder = ir.from_proto(onnx.load_from_string(graphs["decoder"]))
    phases_from_decoder(decoder, "onnx")
    excluded = ["features.12", "image"]
    model = int8_from_fp32(decoder, in_decoder.ranges(Method()), "onnx", excluded=excluded)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    data = ir.to_proto(model).SerializeToString()
    ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("DequantizeLinear") == 2  # a row of pixels each, and not 4 whole images
    # Nothing is lost by it: rounded once more behind the joining, all values stay.
    graph = ir.from_proto(onnx.load_from_string(data)).graph
    (join,) = (
        node
        for node in graph
        if node.op_type == "Concat" and node.outputs[0].name == "leaky_relu_3.phase_rows"
    )
    dequantise = join.inputs[0].producer()
    assert dequantise.op_type == "DequantizeLinear"
    joined, step, quantised = join.outputs[0], dequantise.inputs[1:], dequantise.inputs[0]
    users = [usage.node for usage in joined.uses()]
    down = typed_node(
        "QuantizeLinear", [joined, *step], "down", shape=joined.shape, dtype=quantised.dtype
    )
    up = typed_node("DequantizeLinear", [down.outputs[0], *step], "up", shape=joined.shape)
    graph.insert_after(join, [down, up])
    for user in users:
        user.replace_input_with(0, up.outputs[0])
    results = []
    for name, one in (("as_it_is", model.graph), ("rounded", graph)):
        path = tmp_path / f"{name}.onnx"
        ir.save(ir.Model(one, ir_version=10), path)
        with open_file(path) as backend:
            results.append(backend.run(LATENTS)["reconstruction"])
    np.testing.assert_array_equal(results[0], results[1])


REPEAT = """
import hashlib, sys
import numpy as np, onnx_ir as ir
from motorvae.export.transforms.qdq import Activations, Method, int8_from_fp32
model = ir.load(sys.argv[1])
ranges = Activations(model, np.load(sys.argv[2])).ranges(Method(99.99))
for runner in ("onnx", "openvino", "tensorrt"):
    quantised = ir.to_proto(int8_from_fp32(model, ranges, runner))
    print(hashlib.sha256(quantised.SerializeToString(deterministic=True)).hexdigest())
"""


def test_same_graph_and_images_give_the_same_bytes_in_another_process(
    phases: ir.Model, tmp_path: Path
) -> None:
    ir.save(phases, tmp_path / "g.onnx")
    np.save(tmp_path / "z.npy", LATENTS[:4])
    printed = [
        subprocess.run(
            [sys.executable, "-c", REPEAT, str(tmp_path / "g.onnx"), str(tmp_path / "z.npy")],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert len(set(printed[0].split())) == 3
    assert printed[0] == printed[1]
