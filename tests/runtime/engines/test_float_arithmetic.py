from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from motorvae.runtime.engines.float_arithmetic import float32_arithmetic
from motorvae.runtime.engines.open_graph import open_graph

FILES = ["encoder.fp16.onnx", "encoder.luma.fp16.onnx", "encoder.mu.fp16.onnx", "decoder.fp16.onnx"]


def results(content: bytes, count: int = 3) -> list[npt.NDArray[np.float32]]:
    session = ort.InferenceSession(content)
    (taken,) = session.get_inputs()
    rng = np.random.default_rng(5)
    shape = (count, *taken.shape[1:])
    batch = rng.integers(0, 256, shape, dtype=np.uint8)
    if taken.type == "tensor(float)":
        batch = (batch / 255).astype(np.float32)
    return [np.asarray(values) for values in session.run(None, {taken.name: batch})]


@pytest.mark.parametrize("name", FILES)
def test_nothing_of_it_is_fp16_any_more(small_bundle: Path, name: str) -> None:
    model = onnx.load_from_string(float32_arithmetic((small_bundle / name).read_bytes()))
    onnx.checker.check_model(model, full_check=True)
    types = {tensor.data_type for tensor in model.graph.initializer}
    assert TensorProto.FLOAT in types
    assert TensorProto.FLOAT16 not in types
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert casts
    assert all(node.attribute[0].i != TensorProto.FLOAT16 for node in casts)


@pytest.mark.parametrize("name", FILES)
def test_weights_keep_their_fp16_values(small_bundle: Path, name: str) -> None:
    before = onnx.load(small_bundle / name)
    after = onnx.load_from_string(float32_arithmetic((small_bundle / name).read_bytes()))
    assert len(before.graph.initializer) == len(after.graph.initializer)
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        assert (old.name, list(old.dims)) == (new.name, list(new.dims))
        assert np.array_equal(
            numpy_helper.to_array(old).astype(np.float64),
            numpy_helper.to_array(new).astype(np.float64),
        )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere it may add up in FP16")
@pytest.mark.parametrize("name", FILES)
def test_on_x86_onnx_runtime_computes_the_same_by_itself(small_bundle: Path, name: str) -> None:
    content = (small_bundle / name).read_bytes()
    for ours, theirs in zip(results(float32_arithmetic(content)), results(content), strict=True):
        assert np.array_equal(ours, theirs)


def test_sums_in_fp16_are_none_of_a_graph_on_a_cpu(small_bundle: Path) -> None:
    """As on arm64, where ONNX Runtime has kernels that do: float64 is the judge."""
    path = small_bundle / "encoder.mu.fp16.onnx"
    (expected,) = results(float32_arithmetic(path.read_bytes()))
    rng = np.random.default_rng(5)
    with open_graph(path, "onnx", precision="fp16") as backend:
        batch = rng.integers(0, 256, (3, *backend.image_shape), dtype=np.uint8)
        assert np.abs(backend.run(batch)["mu"] - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_a_damaged_file_is_a_value_error(small_bundle: Path, cut: float) -> None:
    content = (small_bundle / "encoder.fp16.onnx").read_bytes()
    with pytest.raises(ValueError, match=r"cut short|damaged|field"):
        float32_arithmetic(content[: int(cut * len(content))])


def other_graph(tmp_path: Path, taken: int, one: onnx.NodeProto | onnx.TensorProto) -> Path:
    """Write x + 1 in FP16, where the one is an initializer or what a node gives."""
    graph = helper.make_graph(
        [
            *([one] if isinstance(one, onnx.NodeProto) else []),
            helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
            helper.make_node("Add", ["h", "one"], ["s"]),
            helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT),
        ],
        "g",
        [helper.make_tensor_value_info("x", taken, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [one] if isinstance(one, onnx.TensorProto) else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "other.onnx"
    onnx.save(model, path)
    return path


RAW = numpy_helper.from_array(np.ones(1, np.float16), "one")


@pytest.mark.parametrize(
    ("taken", "one", "why"),
    [
        (
            TensorProto.FLOAT,
            helper.make_tensor("one", TensorProto.FLOAT16, [1], [1.0]),
            "it keeps FP16 numbers one by one",
        ),
        (TensorProto.FLOAT, helper.make_node("Constant", [], ["one"], value=RAW), "a field 5"),
        (TensorProto.FLOAT16, RAW, "it takes or gives FP16"),
    ],
    ids=["numbers", "constant", "input"],
)
def test_a_graph_that_is_none_of_ours_runs_as_it_is(
    tmp_path: Path,
    taken: int,
    one: onnx.NodeProto | onnx.TensorProto,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = other_graph(tmp_path, taken, one)
    with pytest.raises(ValueError, match=why):
        float32_arithmetic(path.read_bytes())
    dtype = np.float16 if taken == TensorProto.FLOAT16 else np.float32
    for machine, count in (("x86_64", 0), ("aarch64", 1)):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        with open_graph(path, "onnx", precision="fp16") as backend:
            assert backend.run(np.ones((2, 1), dtype))["y"].tolist() == [[2.0], [2.0]]
            said = [note for note in backend.notes if "add up in FP16" in note]
        assert len(said) == count
        assert all(why in note for note in said)


def test_a_file_of_countless_fields_is_given_up_at_once(small_bundle: Path) -> None:
    """As the check of a bundle does; each empty node is two bytes, and an object here."""
    content = (small_bundle / "encoder.mu.fp16.onnx").read_bytes()
    nodes = b"\x0a\x00" * 3_000_000
    length = bytes(
        (len(nodes) >> shift & 0x7F) | (0x80 if shift < 21 else 0) for shift in (0, 7, 14, 21)
    )
    with pytest.raises(ValueError, match="more than 200000 fields"):
        float32_arithmetic(b"\x3a" + length + nodes)
    with pytest.raises(ValueError, match="stands twice"):
        float32_arithmetic(content + content)
