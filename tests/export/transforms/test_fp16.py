from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from motorvae.export.transforms.fp16 import check_precision, fp16_from_fp32
from motorvae.runtime.bundle.graph_key import GraphKey, Part
from motorvae.runtime.core.errors import VerificationError
from motorvae.runtime.engines.open import open_file

from ..conftest import SPEC


def loaded(data: bytes) -> ir.Model:
    return ir.from_proto(onnx.load_from_string(data))


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_weights_and_arithmetic_are_half_and_inputs_and_outputs_stay_float(
    graph: Part, graphs: dict[Part, bytes], tmp_path: Path
) -> None:
    model = loaded(graphs[graph])
    fp16_from_fp32(model)
    floats = [v for v in model.graph.initializers.values() if v.dtype != ir.DataType.INT64]
    assert {value.dtype for value in floats} == {ir.DataType.FLOAT16}
    assert {node.outputs[0].dtype for node in model.graph if node.op_type != "Cast"} == {
        ir.DataType.FLOAT16
    }
    path = tmp_path / "half.onnx"
    ir.save(model, path)
    onnx.checker.check_model(path, full_check=True)
    with open_file(path) as backend:
        backend.check_tensors(GraphKey(graph).inputs(SPEC), GraphKey(graph).outputs(SPEC))


def test_half_graph_is_close_to_the_full_one_but_not_equal(
    graphs: dict[Part, bytes], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).random((4, 1, 32, 32), np.float32)
    outputs = []
    for half in (False, True):
        model = loaded(graphs["encoder"])
        if half:
            fp16_from_fp32(model)
        path = tmp_path / f"{half}.onnx"
        ir.save(model, path)
        with open_file(path) as backend:
            outputs.append(backend.run(images)["mu"])
    difference = np.abs(outputs[0] - outputs[1]).max()
    assert 0 < difference < 0.01 * outputs[0].std()


def test_same_graph_gives_the_same_half_bytes(graphs: dict[Part, bytes]) -> None:
    twice = []
    for _ in range(2):
        model = loaded(graphs["decoder"])
        fp16_from_fp32(model)
        twice.append(ir.to_proto(model).SerializeToString())
    assert twice[0] == twice[1]


def test_weight_beyond_half_range_is_named(graphs: dict[Part, bytes]) -> None:
    model = loaded(graphs["encoder"])
    name = "mu.weight"
    weights = model.graph.initializers[name]
    large = weights.const_value.numpy().copy()
    large.flat[0] = -70000.0
    weights.const_value = ir.tensor(large, name=name)
    with pytest.raises(VerificationError, match=re.escape(name) + r" reaches 70000.*without"):
        fp16_from_fp32(model)


def test_subnormal_weights_are_counted(graphs: dict[Part, bytes]) -> None:
    counts = []
    for tiny in (0, 7):
        model = loaded(graphs["encoder"])
        weights = model.graph.initializers["mu.weight"]
        values = np.full(weights.const_value.shape.numpy(), 0.5, np.float32)
        values.flat[:tiny] = 1e-5
        values.flat[tiny : tiny + 3] = 0.0
        weights.const_value = ir.tensor(values, name="mu.weight")
        counts.append(fp16_from_fp32(model))
    assert counts[1] - counts[0] == 7


def test_casts_and_constant_nodes_inside_the_graph_are_retyped(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 2] z) => (float[batch, 2] reconstruction) {
        two = Constant <value = float[1] {2.0}> ()
        count = Shape <start = 0, end = 1> (z)
        n = Cast <to = 1> (count)
        a = Mul (z, two)
        reconstruction = Mul (a, n)
    }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    path = tmp_path / "g.onnx"
    ir.save(model, path)
    full = ir.load(path)
    onnx.checker.check_model(path, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(ir.to_proto(full))
    model = ir.from_proto(inferred)
    fp16_from_fp32(model)
    ir.save(model, path)
    onnx.checker.check_model(path, full_check=True)
    with open_file(path) as backend:
        found = backend.run(np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(found["reconstruction"], np.full((3, 2), 6, np.float32))


def test_label_is_read_back_from_the_graph(graphs: dict[Part, bytes]) -> None:
    model = loaded(graphs["encoder"])
    check_precision(model, "fp32")
    with pytest.raises(VerificationError, match="of a graph labelled fp16 has type FLOAT"):
        check_precision(model, "fp16")
    fp16_from_fp32(model)
    check_precision(model, "fp16")


@pytest.mark.parametrize("op", ["RandomNormalLike", "Bernoulli", "BatchNormalization"])
def test_graph_with_what_must_not_be_inside_is_refused(op: str) -> None:
    arguments = {"RandomNormalLike": "z", "Bernoulli": "z", "BatchNormalization": "z, z, z, z, z"}[
        op
    ]
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[2] z) => (float[2] reconstruction) {{ reconstruction = {op} ({arguments}) }}
    """
    with pytest.raises(VerificationError, match=f"holds {op}"):
        check_precision(ir.from_proto(onnx.parser.parse_model(text)), "fp32")
