"""Which graphs are opened: all that exports write, and of others none."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from motorvae.runtime.bundle.graph_check import budget_of, check_graph
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.graph_shapes import OPERATORS
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.bundle.manifest import GraphEntry
from motorvae.runtime.core.spec import ModelSpec

Edit = Callable[[onnx.ModelProto], object]


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return load_bundle(small_bundle)


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> tuple[bytes, GraphEntry, ModelSpec]:
    entry = bundle.entry(GraphKey("encoder"))
    return (bundle.folder / entry.file).read_bytes(), entry, bundle.spec


def test_all_that_exports_write_is_taken_and_nothing_else_is_on_the_list(
    bundle: Bundle, int8_bundle: Path
) -> None:
    found: dict[str, set[str]] = {}
    for one in (bundle, load_bundle(int8_bundle)):
        for entry in one.manifest.graphs:
            data = (one.folder / entry.file).read_bytes()
            check_graph(data, entry, one.spec)
            assert len(data) < budget_of(one.spec).file_bytes
            for node in onnx.load_from_string(data).graph.node:
                names = {attribute.name for attribute in node.attribute}
                found.setdefault(node.op_type, set()).update(names)
    assert set(OPERATORS) == set(found)
    for op, names in found.items():
        assert names <= set(OPERATORS[op].attributes)


def refusal(data: bytes, entry: GraphEntry, spec: ModelSpec) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        check_graph(data, entry, spec)
    assert caught.type is ValueError
    assert "\n" not in str(caught.value)
    return str(caught.value)


def node(op: str, inputs: Sequence[str], output: str, **more: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], **more)


def behind_input(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Put nodes that turn `image` into `changed` in front of all others."""
    first = model.graph.node[0]
    first.input[0] = "changed"
    others = [*model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *others])


def with_constant(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))


def loop_for_ever(model: onnx.ModelProto) -> None:
    body = helper.make_graph(
        [node("Identity", ["go"], "still"), node("Identity", ["x"], "y")],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    with_constant(model, "true", np.array(True))
    behind_input(model, node("Loop", ["", "true", "image"], "changed", body=body))


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../../etc/passwd"), ("length", "8")):
        tensor.external_data.add(key=key, value=value)


def function(model: onnx.ModelProto) -> None:
    body = [node("Identity", ["a"], "b")]
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], body, opsets))


def sparse(model: onnx.ModelProto) -> None:
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 40]))


def outer_product(model: onnx.ModelProto) -> None:
    with_constant(model, "column", np.ones((1, 1, 32, 1), np.float32))
    with_constant(model, "wide", np.ones((1, 4096, 1, 1), np.float32))
    behind_input(model, node("Mul", ["image", "wide"], "changed"))


def doubled(model: onnx.ModelProto) -> None:
    names = ["image", *(f"twice{turn}" for turn in range(39)), "changed"]
    pairs = itertools.pairwise(names)
    behind_input(model, *(node("Concat", [a, a], b, axis=1) for a, b in pairs))


def convolution(**attributes: Any) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        with_constant(model, "kernel", np.ones((1, 1, 1, 1), np.float32))
        behind_input(model, node("Conv", ["image", "kernel"], "changed", **attributes))

    return edit


def many_convolutions(model: onnx.ModelProto) -> None:
    with_constant(model, "kernel", np.ones((1, 1, 31, 31), np.float32))
    names = ["image", *(f"blurred{turn}" for turn in range(500)), "changed"]
    pads = {"pads": [15, 15, 15, 15]}
    pairs = itertools.pairwise(names)
    behind_input(model, *(node("Conv", [a, "kernel"], b, **pads) for a, b in pairs))


def inserted(op: str, *constants: str, domain: str = "", **attributes: Any) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        made = node(op, ["image", *constants], "changed", domain=domain, **attributes)
        behind_input(model, made)

    return edit


def first_constant(**fields: Any) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        for name, value in fields.items():
            if name == "dims":
                tensor.dims[:] = value
            else:
                setattr(tensor, name, value)

    return edit


ATTACKS: dict[str, tuple[Edit, str]] = {
    "external data": (external, "data in another file"),
    "a loop without an end": (loop_for_ever, "a graph inside a node|control flow"),
    "functions": (function, "functions of its own"),
    "sparse constants": (sparse, "sparse constants"),
    "another domain": (inserted("Gelu", domain="com.microsoft"), "com.microsoft"),
    "an import of another domain": (
        lambda model: model.opset_import.append(helper.make_opsetid("x.y", 1)),
        "operators of 'x.y'",
    ),
    "another opset": (
        lambda model: model.opset_import[0].CopyFrom(helper.make_opsetid("", 99)),
        "its opset is 99",
    ),
    "another IR": (lambda model: setattr(model, "ir_version", 99), "IR version is 99"),
    "random": (inserted("RandomNormalLike"), "'RandomNormalLike', which is random"),
    "constants without an end": (inserted("ConstantOfShape"), "'ConstantOfShape'"),
    "an operator that is not ours": (inserted("Relu"), "has an operator 'Relu'"),
    "an attribute that is not ours": (inserted("Sigmoid", alpha=1.0), "attribute 'alpha'"),
    "an attribute of another type": (inserted("LeakyRelu", alpha=1), "attribute 'alpha'"),
    "gigantic padding": (convolution(pads=[1 << 40] * 4), "a Conv in it does not take"),
    "much padding": (convolution(pads=[4000] * 4), "it multiplies more"),
    "negative padding": (convolution(pads=[-1] * 4), "a Conv in it does not take"),
    "automatic padding": (convolution(auto_pad="SAME_UPPER"), "a Conv in it does not take"),
    "no step": (convolution(strides=[0, 0]), "a Conv in it does not take"),
    "another kernel": (convolution(kernel_shape=[3, 3]), "a Conv in it does not take"),
    "broadcasting": (outer_product, "a Mul in it does not take"),
    "doubling": (doubled, "numbers for one image"),
    "work without an end": (many_convolutions, "it multiplies more"),
    "bytes that are missing": (first_constant(dims=[1 << 40]), "has not the bytes"),
    "a negative axis": (first_constant(dims=[-1, -9]), "shape"),
    "an axis of none": (first_constant(dims=[0, 3]), "shape"),
    "strings": (first_constant(data_type=TensorProto.STRING), "is of type 8"),
    "two kinds of bytes": (first_constant(float_data=None, dims=[4]), "has not the bytes"),
    "a node from nowhere": (
        lambda model: model.graph.node[0].input.__setitem__(0, "nowhere"),
        "reads 'nowhere', which nothing before gives",
    ),
    "one name twice": (
        lambda model: model.graph.node[1].output.__setitem__(0, model.graph.node[0].output[0]),
        "two values called",
    ),
    "another input": (
        lambda model: setattr(model.graph.input[0], "name", "picture"),
        "the manifest announces",
    ),
    "a third output": (
        lambda model: model.graph.output.append(
            helper.make_tensor_value_info("secret", TensorProto.FLOAT, ["batch", 8])
        ),
        "the manifest announces",
    ),
    "an output that is not what it says": (
        lambda model: setattr(model.graph.node[-1], "op_type", "Sigmoid"),
        "does not take|the attribute",
    ),
    "a note that is not true": (
        lambda model: setattr(
            model.graph.value_info[0].type.tensor_type.shape.dim[1], "dim_value", 1 << 30
        ),
        "it notes",
    ),
    "more nodes than any": (
        lambda model: model.graph.node.extend([node("Sigmoid", ["image"], "x")] * 3000),
        "more than 2000 nodes",
    ),
    "no graph": (lambda model: model.ClearField("graph"), "no ONNX graph"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_by_name(
    encoder: tuple[bytes, GraphEntry, ModelSpec], name: str
) -> None:
    edit, words = ATTACKS[name]
    data, entry, spec = encoder
    model = onnx.load_from_string(data)
    if name == "two kinds of bytes":
        model.graph.initializer[0].float_data.append(1.0)
    else:
        edit(model)
    found = refusal(model.SerializeToString(), entry, spec)
    assert any(word in found for word in words.split("|")), found


def test_what_a_merging_reader_would_add_is_refused(
    encoder: tuple[bytes, GraphEntry, ModelSpec],
) -> None:
    """Protobuf joins two graphs of one file into one, and skips what it does not know."""
    data, entry, spec = encoder
    more = onnx.ModelProto()
    more.graph.node.append(node("Loop", ["image"], "mu2"))
    assert "stands twice" in refusal(data + more.SerializeToString(), entry, spec)
    for tail in (b"\xf8\x3f\x01", b"\x0b\x0c", b"\x08\x0a", b"\x82", b"\x3a\xff\xff\xff\xff\x0f"):
        refusal(data + tail, entry, spec)
    assert "more than 64 bits" in refusal(b"\x08" + b"\xff" * 10 + b"\x01", entry, spec)
    for damaged in (b"", b"no protobuf", bytes(5000), data[:-1], data[: len(data) // 2]):
        refusal(damaged, entry, spec)


def test_damage_is_a_refusal_and_nothing_else(
    encoder: tuple[bytes, GraphEntry, ModelSpec],
) -> None:
    """Bits, bytes and stretches are changed where the structure is, and weights are not touched."""
    data, entry, spec = encoder
    model = onnx.load_from_string(data)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 64:  # a small file is read so much faster
            tensor.raw_data = tensor.raw_data[:64]
    small = model.SerializeToString()
    rng = random.Random(7)
    for turn in range(1500):
        changed = bytearray(small if turn % 4 else data[:20000])
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(len(changed))
            kind = rng.randrange(4)
            if kind == 0:
                changed[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            elif kind == 2:
                del changed[at : at + rng.randrange(1, 9)]
            else:
                changed[at:at] = rng.randbytes(rng.randrange(1, 9))
        refusal(bytes(changed), entry, spec)


def test_limits_follow_from_the_sizes_of_a_model() -> None:
    default, small = budget_of(ModelSpec()), budget_of(ModelSpec(image_size=32, channels=(4, 8)))
    # docs/design: 0.63 GFLOP in the encoder, 0.95 in the decoder, two a multiplication.
    assert 2 * default.work > 4 * 0.95e9
    assert 2 * default.work < 20 * 0.95e9
    assert default.value * 4 < 64 << 20
    assert small.file_bytes < 8 << 20 < default.file_bytes < 1 << 30
