from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from motorvae.export.compare.graph_facts import facts_of
from motorvae.runtime.core.errors import BackendError

from .graphs import FLOAT, encoder, heads, save_graph


def test_precision_is_that_of_most_weights_or_int8_where_anything_is_quantised(
    tmp_path: Path,
) -> None:
    weights = heads()
    path = encoder(tmp_path / "graph.onnx", weights)
    facts = facts_of(path)
    assert facts.precision == "fp32"
    assert facts.random_nodes == ()
    assert facts.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    half = {name: values.astype(np.float16) for name, values in weights.items()}
    assert facts_of(encoder(path, half)).precision == "fp16"
    quantised = save_graph(
        path,
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        {"x": (FLOAT, ("n", 4))},
        {"y": (FLOAT, ("n", 4))},
        {"s": np.float32(1), "z": np.int8(0)},  # type: ignore[dict-item]  # scalars are arrays
    )
    assert facts_of(quantised).precision == "int8"


def test_random_nodes_are_found_inside_branches_too(tmp_path: Path) -> None:
    branches = [
        helper.make_graph(
            [helper.make_node("RandomNormal", [], ["r"], shape=[2], name=name)],
            name,
            [],
            [helper.make_tensor_value_info("r", FLOAT, (2,))],
        )
        for name in ("one", "other")
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    path = save_graph(
        tmp_path / "graph.onnx",
        [node],
        {"c": (TensorProto.BOOL, ())},
        {"y": (FLOAT, (2,))},
        {},
    )
    assert set(facts_of(path).random_nodes) == {"RandomNormal 'one'", "RandomNormal 'other'"}


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "graph"
    folder.mkdir()
    path = encoder(folder / "graph.onnx", heads())
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../w.data"
    path.write_bytes(model.SerializeToString())
    (folder / "w.data").rename(tmp_path / "w.data")
    with pytest.raises(BackendError, match="outside its folder"):
        facts_of(path)


def test_a_graph_has_one_input(tmp_path: Path) -> None:
    path = save_graph(
        tmp_path / "graph.onnx",
        [onnx.helper.make_node("Add", ["x", "t"], ["y"])],
        {"x": (FLOAT, ("n", 4)), "t": (FLOAT, ("n", 4))},
        {"y": (FLOAT, ("n", 4))},
        {},
    )
    with pytest.raises(BackendError, match=r"has 2 inputs \(x, t\).*export it with one input"):
        facts_of(path)


@pytest.mark.parametrize("name", ["graph.json", "graph.textproto", "graph.onnxtxt", "graph"])
def test_no_name_makes_a_file_another_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('{"schema_version": 6}')
    with pytest.raises(BackendError, match="is no ONNX file"):
        facts_of(path)
    encoder(tmp_path / "right.onnx", heads()).rename(path)
    assert facts_of(path).outputs == ("mu", "log_var")


@pytest.mark.parametrize("content", [b"", b"text", b"\x00" * 64])
def test_what_is_no_graph_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(content)
    with pytest.raises(BackendError, match="is no ONNX file"):
        facts_of(path)
