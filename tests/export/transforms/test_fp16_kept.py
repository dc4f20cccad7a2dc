from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from motorvae.export.transforms.float_parts import FLOAT16_MAX, fragile_nodes
from motorvae.export.transforms.fp16 import check_precision, fp16_from_fp32
from motorvae.export.transforms.node_names import described, module_of, name_nodes, nodes_called
from motorvae.export.transforms.values_inside import opened_with_values
from motorvae.export.verify.activations import KEPT_FROM, Activations
from motorvae.runtime.core.errors import VerificationError
from motorvae.runtime.engines.open import open_file

from ..other_networks import SpatialDecoder, graph_of

FACTOR = 3e5
"""A convolution is multiplied by this and the next divided: float32 does not mind."""


def overflowing_decoder() -> bytes:
    torch.manual_seed(0)
    decoder = SpatialDecoder()
    decoder.up1.weight.data *= FACTOR
    decoder.up1.bias.data *= FACTOR
    decoder.up2.weight.data /= FACTOR
    return ir.to_proto(graph_of(decoder, (128,), "reconstruction")).SerializeToString()


@pytest.fixture(scope="module")
def data() -> bytes:
    return overflowing_decoder()


@pytest.fixture
def latents() -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((4, 128)).astype(np.float32)


def loaded(data: bytes) -> ir.Model:
    model: ir.Model = ir.from_proto(onnx.load_from_string(data))
    name_nodes(model)
    return model


def activations(model: ir.Model, latents: npt.NDArray[np.float32], folder: Path) -> Activations:
    with opened_with_values(model, folder) as engine:
        return Activations(model, engine, [latents[row : row + 1] for row in range(len(latents))])


def halved(data: bytes, kept: Collection[str], folder: Path) -> Path:
    model = loaded(data)
    fp16_from_fp32(model, kept)
    check_precision(model, "fp16", kept=kept)
    path = folder / "half.onnx"
    ir.save(model, path)
    onnx.checker.check_model(path, full_check=True)
    return path


def in_true_fp16(path: Path, latents: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Run a graph operator by operator in NumPy, whose float16 arithmetic overflows as a GPU's."""
    with np.errstate(all="ignore"):
        (found,) = ReferenceEvaluator(str(path)).run(None, {"z": latents})
    return np.asarray(found)


def full(data: bytes, latents: npt.NDArray[np.float32], folder: Path) -> npt.NDArray[np.float32]:
    path = folder / "full.onnx"
    ir.save(loaded(data), path)
    with open_file(path) as backend:
        return backend.run(latents)["reconstruction"]


def test_decoder_that_overflows_is_caught_named_and_mended(
    data: bytes, latents: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    model = loaded(data)
    fragile = fragile_nodes(model.graph)
    # Truly in FP16 nothing of it is a number, and ONNX Runtime on a CPU does not show it.
    half = halved(data, fragile, tmp_path)
    assert not np.isfinite(in_true_fp16(half, latents)).any()
    with open_file(half) as backend:
        assert np.isfinite(backend.run(latents)["reconstruction"]).all()

    found = activations(model, latents, tmp_path)
    assert not found.metric(fragile).passed
    (note,) = found.notes(fragile)
    assert "beyond FP16's 65504: node_conv2d_3 (Conv of up1) reaches " in note
    assert "node_upsample_nearest2d_1 (Resize behind up1)" in note

    kept = found.to_keep(fragile)
    assert {module_of(node) for node in model.graph if node.name in kept - fragile} == {
        "up1",
        "up2",
        "",
    }
    assert len(kept - fragile) == 3  # the Resize lies between both
    assert found.metric(kept).passed
    assert found.notes(kept) == ()
    mended = in_true_fp16(halved(data, kept, tmp_path), latents)
    np.testing.assert_allclose(mended, full(data, latents, tmp_path), atol=5e-3)


def test_keeping_one_node_of_them_is_not_enough(
    data: bytes, latents: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    found = activations(loaded(data), latents, tmp_path)
    assert not found.metric({"node_conv2d_3"}).passed  # the next reads it in FP16
    assert found.metric({"node_conv2d_3"}).value > KEPT_FROM


def test_cast_that_was_left_out_is_caught(
    data: bytes, latents: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    model = loaded(data)
    kept = activations(model, latents, tmp_path).to_keep(fragile_nodes(model.graph))
    fp16_from_fp32(model, kept)
    check_precision(model, "fp16", kept=kept)
    by_name = {str(node.name): node for node in model.graph}
    reader = by_name["node_conv2d_3"]
    before = reader.inputs[0].producer()
    assert before.op_type == "Cast"
    reader.replace_input_with(0, before.inputs[0])
    with pytest.raises(VerificationError, match=r"has type FLOAT16 at node_conv2d_3, not FLOAT"):
        check_precision(model, "fp16", kept=kept)


def test_exactly_the_kept_nodes_are_accepted(data: bytes) -> None:
    model = loaded(data)
    kept = fragile_nodes(model.graph)
    fp16_from_fp32(model, kept)
    check_precision(model, "fp16", kept=kept)
    with pytest.raises(VerificationError, match="has type FLOAT at node_mul_34, not FLOAT16"):
        check_precision(model, "fp16", kept=kept - {"node_mul_34"})
    with pytest.raises(VerificationError, match="has type FLOAT16 at node_softmax, not FLOAT"):
        check_precision(model, "fp16", kept=kept | {"node_softmax"})
    with pytest.raises(VerificationError, match=r"gone is to stay in float32.*no such node"):
        check_precision(model, "fp16", kept=kept | {"gone"})


def test_norm_that_is_written_out_stays_in_float32_from_its_squares_to_its_quotient(
    data: bytes,
) -> None:
    model = loaded(data)
    kept = fragile_nodes(model.graph)
    kinds = [node.op_type for node in model.graph if node.name in kept]
    assert kinds == ["Mul", "ReduceMean", "Add", "Sqrt", "Div"]


def test_scales_of_a_resize_and_numbers_of_shapes_stay_float32() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 1, 4, 4] image) => (float[batch, 1, 8, 8] reconstruction)
    <float[4] scales = {1, 1, 2, 2}, float two = {2.0}>
    {
        shape = Shape <start = 1, end = 2> (image)
        real = Cast <to = 1> (shape)
        count = Mul (real, two)
        doubled = Mul (image, two)
        scaled = Mul (doubled, count)
        reconstruction = Resize <mode = "nearest"> (scaled, , scales)
    }
    """
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    model = ir.from_proto(proto)
    fp16_from_fp32(model)
    check_precision(model, "fp16")
    types = {str(v.name): v.dtype for node in model.graph for v in node.outputs}
    assert types["real"] == types["count"] == ir.DataType.FLOAT
    assert types["scaled"] == types["count_fp16"] == ir.DataType.FLOAT16
    assert model.graph.initializers["scales"].dtype == ir.DataType.FLOAT
    # It is read in both precisions.
    assert model.graph.initializers["two"].dtype == ir.DataType.FLOAT
    assert model.graph.initializers["two_fp16"].dtype == ir.DataType.FLOAT16
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    images = np.ones((3, 1, 4, 4), np.float32)
    (found,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"image": images})
    np.testing.assert_array_equal(found, np.full((3, 1, 8, 8), 4, np.float32))


@pytest.mark.parametrize("size", [200.0, 400.0])
def test_squares_and_sums_inside_a_node_count(size: float, tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 2, 64] image) => (float[batch, 2, 64] reconstruction)
    <float[2] ones = {1, 1}, float[2] zeros = {0, 0}>
    {
        reconstruction = InstanceNormalization <epsilon = 1e-5> (image, ones, zeros)
    }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    name_nodes(model)
    values = size * np.resize(np.float32([-1, 1]), (1, 2, 64))
    with opened_with_values(model, tmp_path) as engine:
        found = Activations(model, engine, [values])
    assert found.metric().passed == (size == 200.0)
    assert found.metric().value == pytest.approx(size**2)
    if size == 400.0:
        assert found.notes()[0].endswith("reaches 1.6e+05 in a square")


def test_sum_of_a_mean_counts(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 1, 100, 100] image) => (float[batch, 1, 1, 1] mu)
    { mu = GlobalAveragePool (image) }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    name_nodes(model)
    with opened_with_values(model, tmp_path) as engine:
        found = Activations(model, engine, [np.full((1, 1, 100, 100), 7, np.float32)])
    assert found.metric().value == pytest.approx(70000)
    assert found.metric({str(node.name) for node in model.graph}).value == 0


@pytest.mark.parametrize("factor", [1e-6, 1e-8])
def test_values_too_small_for_fp16_are_kept_until_they_are_larger_again(
    factor: float, tmp_path: Path
) -> None:
    """No weight alone is that small: two products make it so, and two undo it."""
    root = float(np.float32(factor**0.5))
    chain = nn.Sequential(Times(root), Times(root), nn.ReLU(), Times(1 / root), Times(1 / root))
    small = bytes(ir.to_proto(graph_of(chain, (6,), "reconstruction")).SerializeToString())
    inputs = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    model = loaded(small)
    found = activations(model, inputs, tmp_path)
    assert found.beyond(FLOAT16_MAX) == []
    kept = found.to_keep()
    assert {node.op_type for node in model.graph if node.name in kept} == {"Mul", "Relu"}
    wanted = full(small, inputs, tmp_path)
    lost = in_true_fp16(halved(small, (), tmp_path), inputs) - wanted
    held = in_true_fp16(halved(small, kept, tmp_path), inputs) - wanted
    assert np.abs(lost).max() > 1e-2
    assert np.abs(held).max() < 2e-3


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([factor]).repeat(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_no_number_is_lost_to_a_nan(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 1] z) => (float[batch, 1] reconstruction) { reconstruction = Log (z) }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    name_nodes(model)
    inputs = [np.float32([[value]]) for value in (-1, 1)]
    with opened_with_values(model, tmp_path) as engine:
        found = Activations(model, engine, inputs)
    assert not found.metric().passed
    assert "reaches nan" in found.notes()[0]


def test_nodes_are_found_by_name_by_module_and_by_what_is_around_it(data: bytes) -> None:
    model = loaded(data)
    found = nodes_called(model, ["block", "block.conv2", "node_softmax", "nothing"])
    assert {*found["block.conv2"]} == {"node_conv2d_2"}
    assert found["block"] == ["node_conv2d_1", "node_conv2d_2"]
    assert found["node_softmax"] == ["node_softmax"]
    assert found["nothing"] == []
    (softmax,) = [node for node in model.graph if node.name == "node_softmax"]
    assert described(softmax) == "node_softmax (Softmax behind attention.q)"


def test_names_of_older_exporters_are_paths_and_become_unique() -> None:
    value = ir.val("x", ir.DataType.FLOAT, [1])
    names = ["/up_blocks.0/resnets.0/norm1/Mul", "/features/features.3/Mul", "", ""]
    nodes = []
    for number, name in enumerate(names):
        output = ir.val(f"y{number}", ir.DataType.FLOAT, [1])
        nodes.append(ir.node("Mul", [value, value], outputs=[output], name=name))
        value = output
    graph = ir.Graph([nodes[0].inputs[0]], [value], nodes=nodes, opset_imports={"": 20}, name="g")
    name_nodes(ir.Model(graph, ir_version=10))
    assert module_of(nodes[0]) == "up_blocks.0.resnets.0.norm1"
    assert module_of(nodes[1]) == "features.3"
    assert len({node.name for node in graph}) == 4
