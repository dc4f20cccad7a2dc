"""Each operator of each opset, alone, in the normal form; the proof is the import's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from motorvae.runtime.core.errors import GraphError

from .imports import graph_file, imported_encoder, operators

RNG = np.random.default_rng(0)
SHAPE = (3, 8, 8)


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def chain(*nodes: tuple[Any, ...]) -> list[onnx.NodeProto]:
    """Return nodes that each read the one before; the last gives `mu`."""
    made, before = [], "x"
    for position, (op, constants, attributes) in enumerate(nodes):
        after = "mu" if position == len(nodes) - 1 else f"v{position}"
        made.append(helper.make_node(op, [before, *constants], [after], **attributes))
        before = after
    return made


FOUR = numbers(4)
CASES: dict[str, tuple[int, Sequence[onnx.NodeProto], dict[str, np.ndarray]]] = {
    "padding same lower": (
        13,
        chain(("Conv", ["w"], {"auto_pad": "SAME_LOWER", "strides": [2, 3]})),
        {"w": numbers(4, 3, 2, 4)},
    ),
    "padding valid": (
        11,
        chain(("Conv", ["w"], {"auto_pad": "VALID"})),
        {"w": numbers(4, 3, 3, 3)},
    ),
    "transposed to a size": (
        11,
        chain(("ConvTranspose", ["w"], {"strides": [2, 2], "output_shape": [16, 17]})),
        {"w": numbers(3, 4, 3, 3)},
    ),
    "transposed, same": (
        13,
        chain(("ConvTranspose", ["w"], {"strides": [2, 2], "auto_pad": "SAME_UPPER"})),
        {"w": numbers(3, 4, 3, 3)},
    ),
    "softmax over the rest, opset 11": (11, chain(("Softmax", [], {"axis": 1})), {}),
    "softmax of one axis": (13, chain(("Softmax", [], {"axis": 1})), {}),
    "clip by attributes": (9, chain(("Clip", [], {"min": 0.2, "max": 0.7})), {}),
    "clip from above": (13, chain(("Clip", ["", "h"], {})), {"h": np.array(0.5, np.float32)}),
    "upsample": (
        9,
        chain(("Upsample", ["s"], {"mode": "nearest"})),
        {"s": np.array([1, 1, 2, 3], np.float32)},
    ),
    "resize, opset 10": (
        10,
        chain(("Resize", ["s"], {"mode": "linear"})),
        {"s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "resize to sizes": (
        13,
        chain(("Resize", ["", "", "s"], {"mode": "linear"})),
        {"s": whole(1, 3, 15, 6)},
    ),
    "resize of two axes": (
        18,
        chain(("Resize", ["", "", "s"], {"mode": "cubic", "axes": [2, 3], "antialias": 1})),
        {"s": whole(5, 7)},
    ),
    "pad by attributes": (
        9,
        chain(("Pad", [], {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 0.5})),
        {},
    ),
    "reflect of two axes": (
        18,
        chain(("Pad", ["p", "", "a"], {"mode": "reflect"})),
        {"p": whole(1, 2, 0, 1), "a": whole(2, -1)},
    ),
    "slice by attributes": (9, chain(("Slice", [], {"starts": [1], "ends": [9], "axes": [2]})), {}),
    "slice backwards": (
        13,
        chain(("Slice", ["s", "e", "a", "t"], {})),
        {"s": whole(-1), "e": whole(-100), "a": whole(-1), "t": whole(-2)},
    ),
    "reduce by attributes": (11, chain(("ReduceMean", [], {"axes": [-1], "keepdims": 0})), {}),
    "reduce by input": (18, chain(("ReduceL2", ["a"], {"keepdims": 1})), {"a": whole(1, 2)}),
    "squeeze and unsqueeze": (
        11,
        chain(
            ("ReduceMax", [], {"axes": [2]}),
            ("Squeeze", [], {"axes": [2]}),
            ("Unsqueeze", [], {"axes": [1, -1]}),
        ),
        {},
    ),
    "one channel": (13, chain(("Gather", ["i"], {"axis": 1})), {"i": np.array(-1)}),
    "channels in another order": (13, chain(("Gather", ["i"], {"axis": 1})), {"i": whole(2, 1, 0)}),
    "tiles": (13, chain(("Tile", ["r"], {})), {"r": whole(1, 1, 2, 3)}),
    "expand": (13, chain(("Expand", ["t"], {})), {"t": whole(2, 1, 3, 8, 8)[1:]}),
    "flatten in the middle": (13, chain(("Flatten", [], {"axis": 1}), ("Tanh", [], {})), {}),
    "space to depth and back": (
        13,
        chain(
            ("SpaceToDepth", [], {"blocksize": 4}),
            ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}),
        ),
        {},
    ),
    "group norm, opset 21": (
        21,
        chain(("Conv", ["w"], {}), ("GroupNormalization", ["s", "b"], {"num_groups": 2})),
        {"w": numbers(4, 3, 1, 1), "s": numbers(4), "b": numbers(4)},
    ),
    "layer norm": (
        17,
        chain(("LayerNormalization", ["s", "b"], {"axis": -2})),
        {"s": numbers(8, 8), "b": numbers(8, 8)},
    ),
    "pools": (
        13,
        chain(
            ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
            ("MaxPool", [], {"kernel_shape": [2, 2], "ceil_mode": 1, "strides": [2, 2]}),
            ("GlobalAveragePool", [], {}),
        ),
        {},
    ),
    "sum of three": (13, chain(("Sum", ["x", "c"], {})), {"c": numbers(3, 1, 1)}),
    "a constant before an image": (
        13,
        [helper.make_node("Sub", ["c", "x"], ["mu"])],
        {"c": numbers(3, 1, 1)},
    ),
    "where": (
        16,
        [
            helper.make_node("Greater", ["x", "c"], ["g"]),
            helper.make_node("Where", ["g", "x", "c"], ["mu"]),
        ],
        {"c": np.array(0.5, np.float32)},
    ),
    "einsum": (
        13,
        chain(("Einsum", ["w"], {"equation": "nchw, dc -> ndhw"})),
        {"w": numbers(5, 3)},
    ),
    "prelu": (13, chain(("PRelu", ["s"], {})), {"s": numbers(3, 1, 1)}),
    "activations": (
        18,
        chain(("Elu", [], {}), ("HardSigmoid", [], {}), ("HardSwish", [], {}), ("Mish", [], {})),
        {},
    ),
    "split unevenly": (
        13,
        [
            helper.make_node("Split", ["x", "s"], ["a", "b"], axis=1),
            helper.make_node("Add", ["b", "a"], ["mu"]),
        ],
        {"s": whole(1, 2)},
    ),
    "split by its outputs": (
        18,
        [
            helper.make_node("Split", ["x"], ["a", "b"], axis=3, num_outputs=2),
            helper.make_node("Concat", ["b", "a"], ["mu"], axis=-1),
        ],
        {},
    ),
    "a table of places": (
        13,
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "two"], ["h"], axis=0),
            helper.make_node("Range", ["zero", "h", "one"], ["places"]),
            helper.make_node("Gather", ["table", "places"], ["rows"], axis=0),
            helper.make_node("Add", ["x", "rows"], ["mu"]),
        ],
        {
            "two": np.array(2),
            "zero": np.array(0),
            "one": np.array(1),
            "table": numbers(9, 8),
        },
    ),
}


@pytest.mark.parametrize("batch", ["n", 1])
@pytest.mark.parametrize("name", CASES)
def test_an_operator_of_an_opset_is_proved_equal(
    tmp_path: Path, name: str, batch: int | str
) -> None:
    opset, nodes, constants = CASES[name]
    path = graph_file(
        tmp_path / "e.onnx", nodes, shape=(batch, *SHAPE), opset=opset, constants=constants
    )
    proto, user, _ = imported_encoder(path)
    assert user.batch.is_free is (batch == "n")
    assert {"Split", "Squeeze", "Flatten", "Shape", "Tile"}.isdisjoint(operators(proto))


def test_swish_and_attention_of_the_newest_opsets(tmp_path: Path) -> None:
    heads = [
        helper.make_node("Swish", ["x"], ["s"], alpha=1.5),
        helper.make_node("Attention", ["s", "x", "x"], ["mu"], scale=0.3),
    ]
    path = graph_file(tmp_path / "e.onnx", heads, shape=("n", *SHAPE), opset=24)
    try:
        proto, _, _ = imported_encoder(path)
    except GraphError as error:
        if "NOT_IMPLEMENTED" in str(error) or "opset" in str(error):
            pytest.skip(f"this ONNX Runtime does not run it: {error}")
        raise
    assert {"Sigmoid", "Softmax", "MatMul"} <= operators(proto)


@pytest.mark.parametrize(
    ("nodes", "constants", "words"),
    [
        (chain(("TopK", ["k"], {"axis": 1})), {"k": whole(1)}, "TopK is not among the operators"),
        (chain(("LRN", [], {"size": 3})), {}, "LRN is not among the operators"),
        (chain(("CumSum", ["k"], {})), {"k": np.array(1)}, "CumSum is not among the operators"),
        (
            chain(("MaxPool", [], {"kernel_shape": [3, 3], "ceil_mode": 1, "strides": [2, 2]})),
            {},
            "rounds its size up",
        ),
        (chain(("Gather", ["k"], {"axis": 0})), {"k": np.array(0)}, "one image out of the batch"),
        (chain(("ReduceMean", ["k"], {})), {"k": whole(0)}, "a ReduceMean does not take"),
        (chain(("Softmax", [], {"axis": 0})), {}, "a Softmax does not take"),
        (
            [
                helper.make_node(
                    "BatchNormalization", ["x", *"abcd"], ["mu", "m", "v"], training_mode=1
                )
            ],
            {name: np.ones(3, np.float32) for name in "abcd"},
            "in training mode",
        ),
        (chain(("MatMul", ["m"], {})), {"m": np.ones((8, 2), np.float64)}, "of type DOUBLE|Type"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_cannot_be_imported_is_named(
    tmp_path: Path, nodes: Sequence[onnx.NodeProto], constants: dict[str, np.ndarray], words: str
) -> None:
    for node in nodes:
        node.name = f"the_{node.op_type}"
    if nodes[0].op_type == "TopK":
        nodes[0].output.append("indices")
    path = graph_file(
        tmp_path / "e.onnx", nodes, shape=("n", *SHAPE), opset=18, constants=constants
    )
    with pytest.raises(GraphError, match=words) as caught:
        imported_encoder(path)
    assert "\n" not in str(caught.value)
