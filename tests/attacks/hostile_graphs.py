"""What a graph can do to whoever opens it: edits of an encoder, and how each is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

Edit = Callable[[onnx.ModelProto], object]


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


def weights_turned(model: onnx.ModelProto) -> None:
    """Weights are computed of others as a graph is opened: there each is a copy."""
    kernels = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4]
    kernel = max(kernels, key=lambda tensor: len(tensor.raw_data)).name
    for count in range(1900):
        model.graph.node.append(node("Transpose", [kernel], f"copy{count}", perm=[1, 0, 2, 3]))


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
    "copies of weights without an end": (weights_turned, "take more memory"),
    "work without an end": (many_convolutions, "it multiplies more"),
    "bytes that are missing": (first_constant(dims=[1 << 40]), "has not the bytes"),
    "a negative axis": (first_constant(dims=[-1, -9]), "shape"),
    "an axis of none": (first_constant(dims=[0, 3]), "shape"),
    "strings": (first_constant(data_type=TensorProto.STRING), "is of type 8"),
    "two kinds of bytes": (
        lambda model: model.graph.initializer[0].float_data.append(1.0),
        "has not the bytes",
    ),
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
