"""Single layers that an FP16 graph keeps in float32, in engines that the real builder makes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from rich.console import Console

from motorvae.export.tensorrt.build import EngineBuildRequest, engine_from_onnx
from motorvae.export.transforms.float_parts import kept_in_engines
from motorvae.export.transforms.fp16 import check_precision, fp16_from_fp32
from motorvae.export.transforms.io_variants import luma_from_float
from motorvae.export.transforms.node_names import name_nodes
from motorvae.runtime.engines.gpu_info import NoGpu
from motorvae.runtime.engines.tensorrt.engine_manifest import BatchProfile, PrecisionReport
from motorvae.runtime.engines.tensorrt.package import import_tensorrt

LAYERS = {
    "Conv": ("pads = [1, 1, 1, 1]", (16, 16, 3, 3)),
    "ConvTranspose": ("strides = [2, 2]", (16, 16, 2, 2)),
}


def network(
    layer: str = "Conv", activation: str = "Relu", *, behind: str = "", luma: bool = False
) -> ir.Model:
    """Three layers, `first`, `inner` and `last`, with activations or `behind` between them."""
    attributes, shape = LAYERS[layer]
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 1, 16, 16] image) => (float[batch, 24, n, m] mu)
    {{ [first] a = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
       [before] r = {activation} (a)
       [inner] c = {layer} <{attributes}> (r, w2, b2)
       [behind] s = {behind or activation} (c)
       [last] mu = Conv (s, w3, b3) }}
    """
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    shapes = {"w1": (16, 1, 3, 3), "w2": shape, "w3": (24, 16, 3, 3)}
    shapes |= {"b1": (16,), "b2": (16,), "b3": (24,)}
    for name, size in shapes.items():
        array = rng.normal(size=size).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    name_nodes(model)
    if luma:
        luma_from_float(model)
    return model


def built(model: ir.Model, kept: set[str]) -> PrecisionReport:
    """Make it FP16 with those nodes in float32, and read its engine back."""
    package = pytest.importorskip("tensorrt_rtx") and import_tensorrt("tensorrt-rtx")
    names = tuple(str(node.name) for node in model.graph if node.name in kept)
    fp16_from_fp32(model, names)
    check_precision(model, "fp16", kept=names)
    request = EngineBuildRequest(package, NoGpu("none is here"), "fp16", BatchProfile())
    content = ir.to_proto(model).SerializeToString()
    console = Console(quiet=True)
    engine = engine_from_onnx(content, request, name="it", title="it", console=console, kept=names)
    return engine.precision_report


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        (network(), {"inner"}),
        (network(activation="Tanh"), {"inner"}),
        (network(behind="Transpose <perm = [0, 1, 3, 2]>"), {"inner"}),
        (network(behind="Transpose <perm = [0, 1, 3, 2]>"), {"inner", "behind"}),
        (network("ConvTranspose"), {"inner"}),
        (network(luma=True), {"first"}),
        (network(luma=True), {"first", "inner"}),
        (network(), {"last"}),
    ],
    ids=[
        "inner",
        "tanh",
        "moved",
        "moved, kept",
        "transposed",
        "first of luma",
        "two of luma",
        "last",
    ],
)
def test_engines_compute_a_kept_layer_in_float32(model: ir.Model, asked: set[str]) -> None:
    """A layer alone between Casts came back as FP16, and the export failed after the build."""
    report = built(model, kept_in_engines(model.graph, asked))
    assert report.multiplications_from == "engine file"
    assert report.asked["fp32"] > 0
    assert report.multiplications["fp32"] == report.asked["fp32"]


def test_what_is_kept_beside_a_layer_is_one_node_or_the_scaling() -> None:
    graph = network(luma=True).graph
    scaling = {str(node.name) for node in graph if node.op_type in {"Cast", "Mul"}}
    for asked, beside in (
        ({"first"}, scaling),
        ({"inner"}, {"behind"}),
        ({"inner", "before"}, set()),
        ({"last"}, set()),  # its output is the graph's, which is float32
        (set(), set()),
    ):
        assert kept_in_engines(graph, asked) == asked | beside
    assert kept_in_engines(network().graph, {"first"}) == {"first"}  # it reads float32
