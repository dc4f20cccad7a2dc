from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from motorvae.export.onnx_export import onnx_from_model
from motorvae.export.transforms.phases import phases_from_decoder
from motorvae.runtime.bundle.graph_key import TARGETS, GraphKey, Target
from motorvae.runtime.core.errors import VerificationError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.open import open_file

from ..conftest import SPEC, model_with_statistics


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    channels = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    return ModelSpec(
        image_size=draw(st.sampled_from([32, 64, 96, (80, 64)])),
        color=draw(st.sampled_from(["grey", "rgb"])),
        channels=tuple(channels),
        latent_size=draw(st.integers(1, 4)),
    )


# Five layers, of which the decoder's first gives odd sides: 5 x 9 cells, 5 x 10, 10 x 5.
ODD = [
    ModelSpec(image_size=size, color=color, channels=(3, 2, 2, 3, 4), latent_size=3)
    for size, color in (((80, 144), "grey"), ((80, 160), "rgb"), ((160, 80), "bgr"))
]


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), st.integers(0, 2**16), st.integers(1, 3))
@example(ODD[0], 1, 2)
@example(ODD[1], 2, 1)
@example(ODD[2], 3, 1)
def test_phases_give_the_same_image(spec: ModelSpec, seed: int, batch: int) -> None:
    decoder = onnx_from_model(model_with_statistics(spec, seed), spec, "decoder")
    z = np.random.default_rng(seed).standard_normal((batch, spec.latent_size), np.float32)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for form in ("as it was", None, *TARGETS, "cut"):
            model = decoder.clone()
            if form == "cut":
                phases_from_decoder(model, "onnx", cut=True)
            elif form != "as it was":
                phases_from_decoder(model, form)
            path = Path(folder) / f"{form}.onnx"
            ir.save(model, path)
            onnx.checker.check_model(path, full_check=True)
            with open_file(path) as backend:
                key = GraphKey("decoder", variant="phases")
                backend.check_tensors(key.inputs(spec), key.outputs(spec))
                results.append(backend.run(z)["reconstruction"])
    for found in results[1:]:
        np.testing.assert_allclose(found, results[0], atol=1e-5)


def in_float64(model: ir.Model, z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What a graph gives in the arithmetic of ONNX's own reference implementation."""
    proto = ir.to_proto(model)
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            wide = onnx.numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    del proto.graph.value_info[:]
    (image,) = ReferenceEvaluator(proto).run(None, {"z": z})
    assert image.dtype == np.float64
    return np.asarray(image)


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec(image_size=32, channels=(3, 5, 4), latent_size=3),
        ModelSpec(image_size=(80, 160), color="rgb", channels=(3, 2, 2, 3, 4), latent_size=3),
    ],
)
@pytest.mark.parametrize("form", [None, *TARGETS, "cut"])
def test_phases_are_the_same_sums(spec: ModelSpec, form: Target | Literal["cut"] | None) -> None:
    """In float64, where only rounding of 1e-16 is left: a tap that is missing would be seen."""
    decoder = onnx_from_model(model_with_statistics(spec, 3), spec, "decoder")
    z = np.random.default_rng(3).standard_normal((2, spec.latent_size))
    expected = in_float64(decoder, z)
    if form == "cut":
        phases_from_decoder(decoder, "onnx", cut=True)
    else:
        phases_from_decoder(decoder, form)
    np.testing.assert_allclose(in_float64(decoder, z), expected, rtol=0, atol=1e-13)
    assert np.ptp(expected) > 1e-3


def test_a_cut_decoder_holds_the_weights_of_the_whole_one_and_no_others(tmp_path: Path) -> None:
    spec = ModelSpec(image_size=64, channels=(16, 32, 48, 64), latent_size=4)
    decoder = onnx_from_model(model_with_statistics(spec), spec, "decoder")
    own = {name: value.const_value for name, value in decoder.graph.initializers.items()}
    phases_from_decoder(decoder, "onnx", cut=True)
    held = {name: value.const_value for name, value in decoder.graph.initializers.items()}
    cut = ["features.3.weight", "features.6.weight"]
    assert {*cut, "features.0.weight", "linear.weight"} <= held.keys()
    for name, tensor in held.items():
        assert tensor is not None
        if name in own:
            assert tensor.tobytes() == own[name].tobytes()  # type: ignore[union-attr]
        elif not name.startswith(("features.9.", "image.")):  # the last two layers are small
            assert tensor.nbytes <= 4 * spec.channels[-2]  # type: ignore[index]
    kinds = Counter(node.op_type for node in decoder.graph)
    assert (kinds["Slice"], kinds["ConvTranspose"]) == (8, 1)  # the first stays
    # ONNX Runtime cuts them as it opens the graph, not at each run.
    # https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    graph = ir.to_proto(decoder).SerializeToString()
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx").graph
    assert "Slice" not in {node.op_type for node in optimised.node}
    assert not {*cut} & {tensor.name for tensor in optimised.initializer}


@pytest.mark.parametrize(
    ("target", "left", "last"),
    [(None, 4, 8), ("onnx", 0, 8), ("openvino", 0, 8), ("tensorrt", 0, 2)],
)
def test_transposed_convolutions_are_gone_where_they_should_be(
    target: Target | None, left: int, last: int
) -> None:
    model = onnx_from_model(model_with_statistics(SPEC), SPEC, "decoder")
    phases_from_decoder(model, target)
    kinds = Counter(node.op_type for node in model.graph)
    assert kinds["ConvTranspose"] == left
    assert kinds["Conv"] == last + 4 * (4 - left)
    # What moves one number at a time in ONNX Runtime moves finished pixels only.
    assert kinds["DepthToSpace"] == (1 if target in {None, "onnx"} else 5)
    # No feature map of the full size is left: only the one channel of the image is.
    full = [
        value
        for node in model.graph
        for value in node.outputs
        if value.shape is not None and value.shape[2:] == (SPEC.image_size,) * 2
    ]
    assert [value.name for value in full] == ["reconstruction"]


@pytest.mark.parametrize("spec", ODD)
def test_a_first_layer_of_odd_sides_stays(spec: ModelSpec) -> None:
    model = onnx_from_model(model_with_statistics(spec), spec, "decoder")
    phases_from_decoder(model, "openvino")
    assert Counter(node.op_type for node in model.graph)["ConvTranspose"] == 1


@pytest.mark.parametrize("problem", ["strides", "padding", "odd", "bias", "activation"])
def test_decoder_of_another_form_is_refused(problem: str) -> None:
    model = onnx_from_model(model_with_statistics(SPEC), SPEC, "decoder")
    nodes = list(model.graph)
    if problem == "strides":
        node = next(node for node in nodes if node.op_type == "ConvTranspose")
        node.attributes["strides"] = ir.AttrInt64s("strides", [1, 1])
    elif problem == "padding":
        node = next(node for node in nodes if node.op_type == "ConvTranspose")
        del node.attributes["output_padding"]
    elif problem == "odd":
        node = [node for node in nodes if node.op_type == "ConvTranspose"][1]
        node.attributes["output_padding"] = ir.AttrInt64s("output_padding", [0, 1])
    elif problem == "bias":
        node = [node for node in nodes if node.op_type == "Conv"][-1]
        node.resize_inputs(2)
    else:
        node = [node for node in nodes if node.op_type == "LeakyRelu"][-1]
        node.op_type = "Relu"
    with pytest.raises(VerificationError, match=r"another form.*install the versions"):
        phases_from_decoder(model, "openvino")
