"""What of a user's file is refused, and how its inputs and outputs are found."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from motorvae.export.onnx_import.read import decoder_from_file, encoder_from_file
from motorvae.runtime.core.errors import GraphError

from .imports import graph_file, imported_decoder, imported_encoder, spec_of

WEIGHT = np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)


def heads(*names: str) -> list[onnx.NodeProto]:
    """Return nodes that give outputs of these names, of 6 numbers each."""
    made = [helper.make_node("Flatten", ["x"], ["flat"])]
    return made + [
        node
        for name in names
        for node in (
            helper.make_node("MatMul", ["flat", "w"], [f"{name}_h"]),
            helper.make_node("Tanh", [f"{name}_h"], [name]),
        )
    ]


def encoder(path: Path, *names: str, **more: Any) -> Path:
    settings: dict[str, Any] = {"shape": ("n", 1, 8, 8), "constants": {"w": WEIGHT}} | more
    return graph_file(path, heads(*names), outputs=names, **settings)


def refusal(path: Path, **more: Any) -> str:
    with pytest.raises(GraphError) as caught:
        encoder_from_file(path, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("mu", "log_var"), {"mu": "mu", "log_var": "log_var"}),
        (("z_log_var", "z_mean", "z"), {"mu": "z_mean", "log_var": "z_log_var"}),
        (("mean", "logvar"), {"mu": "mean", "log_var": "logvar"}),
        (("model/fc_mu", "model/fc_logvar"), {"mu": "model/fc_mu", "log_var": "model/fc_logvar"}),
        (("embedding",), {"mu": "embedding"}),
        (("output",), {"mu": "output"}),
        (("mu", "std"), {"mu": "mu"}),
    ],
)
def test_outputs_are_found_by_their_names(
    tmp_path: Path, names: tuple[str, ...], found: dict[str, str]
) -> None:
    user = encoder_from_file(encoder(tmp_path / "e.onnx", *names))
    assert {ours: str(value.name) for ours, value in user.ends.outputs.items()} == found
    dropped = set(names) - set(found.values())
    assert all(any(name in one for one in user.remarks) for name in dropped)


def test_two_outputs_whose_names_say_nothing_are_for_the_user_to_name(tmp_path: Path) -> None:
    path = encoder(tmp_path / "e.onnx", "a", "b")
    said = refusal(path)
    assert "--outputs mu=a,log_var=b" in said
    assert "a (" in said or "a of unknown shape" in said
    user = encoder_from_file(path, outputs={"mu": "b", "log_var": "a"})
    assert str(user.ends.outputs["mu"].name) == "b"
    assert "no value 'c'" in refusal(path, outputs={"mu": "c"})
    assert "names no mu" in refusal(path, outputs={"log_var": "a"})
    assert "mu, log_var, moments" in refusal(path, outputs={"sigma": "a"})


def test_free_sides_and_flat_images_take_the_users_size(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Tanh", ["p"], ["mu"]),
    ]
    path = graph_file(tmp_path / "free.onnx", nodes, shape=("n", 3, "h", "w"))
    assert "--size HEIGHT WIDTH" in refusal(path)
    proto, user, _ = imported_encoder(path, size=(16, 24))
    assert user.facts.image_shape == (3, 16, 24)
    assert [axis.dim_value for axis in proto.graph.input[0].type.tensor_type.shape.dim[1:]] == [
        *(3, 16, 24)
    ]
    flat = encoder(tmp_path / "flat.onnx", "mu", shape=("n", 64))
    assert "no image" in refusal(flat)
    assert imported_encoder(flat, size=(8, 8))[1].facts.layout == "flat"
    assert "do not fill it" in refusal(flat, size=(8, 9))
    fixed = encoder(tmp_path / "fixed.onnx", "mu")
    assert "not (9, 9)" in refusal(fixed, size=(9, 9))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((4, 1, 8, 8), "a batch fixed to 4"),
        (("n", 4, 8, 2), "with 2 channels"),
        (("n", 1, 1, 8, 8), "no image of 1 or 3 channels"),
    ],
)
def test_an_input_that_is_no_image_is_refused(
    tmp_path: Path, shape: tuple[int | str, ...], words: str
) -> None:
    assert words in refusal(encoder(tmp_path / "e.onnx", "mu", shape=shape))


def test_what_is_not_standard_onnx_of_numbers_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "e.onnx"
    assert "cannot read" in refusal(path)
    path.write_bytes(b"no graph at all")
    assert "no ONNX file" in refusal(path) or "not valid ONNX" in refusal(path)
    assert "of opset 8" in refusal(encoder(path, "mu", opset=8))

    model = onnx.load(encoder(path, "mu"))
    model.graph.node[1].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)
    assert "MatMul from com.microsoft" in refusal(path)

    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "b",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    nodes = [helper.make_node("If", ["c"], ["mu"], then_branch=branch, else_branch=branch)]
    graph_file(path, nodes, shape=("n", 1, 8, 8), constants={"c": np.array(True)})
    assert "control flow: If" in refusal(path)

    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["s"], axis=1),
        helper.make_node("ConcatFromSequence", ["s"], ["mu"], axis=1),
    ]
    graph_file(path, nodes, shape=("n", 3, 8, 8))
    assert "SplitToSequence" in refusal(path)
    for kind in (TensorProto.UINT8, TensorProto.DOUBLE):
        nodes = [helper.make_node("Identity", ["x"], ["mu"])]
        graph_file(path, nodes, shape=("n", 3, 8, 8), dtype=kind)
        assert "float input" in refusal(path)
    graph_file(path, nodes, shape=("n", 3, 8, 8), constants={"mu_": WEIGHT}, outputs=["mu"])
    nodes = [helper.make_node("Tanh", ["w"], ["mu"]), helper.make_node("Tanh", ["x"], ["other"])]
    graph_file(path, nodes, shape=("n", 3, 8, 8), constants={"w": WEIGHT}, outputs=["mu", "other"])
    assert "does not depend on the input" in refusal(path)


def test_weights_in_another_file_are_read_or_missed_by_name(tmp_path: Path) -> None:
    path = encoder(tmp_path / "e.onnx", "mu")
    onnx.save(
        onnx.load(path),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    imported_encoder(path)
    (tmp_path / "weights.bin").unlink()
    said = refusal(path)
    assert "'weights.bin', which is not beside it" in said


def test_functions_are_put_in_place_of_their_calls(tmp_path: Path) -> None:
    path = encoder(tmp_path / "e.onnx", "mu")
    model = onnx.load(path)
    body = [helper.make_node("Sigmoid", ["a"], ["s"]), helper.make_node("Mul", ["a", "s"], ["b"])]
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("own", "Swish", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "Swish", "own"
    onnx.save(model, path)
    proto, _, _ = imported_encoder(path)
    assert not proto.functions
    assert {node.op_type for node in proto.graph.node} == {"Reshape", "MatMul", "Sigmoid", "Mul"}


def test_a_decoder_belongs_to_its_encoder(tmp_path: Path) -> None:
    user = encoder_from_file(encoder(tmp_path / "e.onnx", "mu"))
    spec = spec_of(user)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Sigmoid", ["h"], ["y"]),
    ]
    path = graph_file(
        tmp_path / "d.onnx", nodes, shape=("n", 6), outputs=["y"], constants={"w": WEIGHT.T}
    )
    proto = imported_decoder(path, spec, gives="unit")
    assert proto.graph.output[0].name == "reconstruction"
    for latent, image, words in (
        ((5,), (1, 8, 8), "the encoder gives"),
        ((6,), (1, 8, 9), "gives images of shape"),
    ):
        with pytest.raises(GraphError, match=words):
            decoder_from_file(path, latent_shape=latent, image_shape=image)


def test_damage_is_one_line_or_another_graph(tmp_path: Path) -> None:
    """Bytes of a file are changed at random: nothing but a refusal in one line comes of it."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], strides=[2, 2], auto_pad="SAME_UPPER"),
        helper.make_node("Shape", ["a"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["a", "t"], ["f"]),
        helper.make_node("Split", ["f", "halves"], ["mu", "log_var"], axis=1),
    ]
    constants = {
        "w": WEIGHT[:4, :1].reshape(4, 1, 1, 1),
        "zero": np.array([0]),
        "rest": np.array([-1]),
        "halves": np.array([32, 32]),
    }
    path = graph_file(
        tmp_path / "e.onnx",
        nodes,
        shape=("n", 1, 8, 8),
        outputs=["mu", "log_var"],
        opset=13,
        constants=constants,
    )
    imported_encoder(path)
    whole, rng = path.read_bytes(), random.Random(5)
    refused = 0
    for _ in range(300):
        changed = bytearray(whole)
        at = rng.randrange(len(changed))
        changed[at] = rng.choice((0, 1, 0x7F, 0xFF, changed[at] ^ 1 << rng.randrange(8)))
        path.write_bytes(bytes(changed))
        try:
            imported_encoder(path)
        except GraphError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017 - most are refused, and each is looked at
    assert refused > 150
