"""Small encoders of networks that are not the card's, as files, and the check that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from motorvae.runtime.bundle.graph_check import check_graph
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.manifest import GraphEntry
from motorvae.runtime.core.spec import ModelSpec

SPEC = ModelSpec(image_size=16, color="rgb", channels=None, latent_size=6, has_log_var=False)
_KEY = GraphKey("encoder")
_ENTRY = GraphEntry(
    **_KEY.fields,
    file="encoder.onnx",
    sha256="0" * 64,
    size_bytes=1,
    opset=20,
    inputs=_KEY.inputs(SPEC),
    outputs=_KEY.outputs(SPEC),
)


def graph_of_another_network(data: bytes) -> None:
    """Check a file as an encoder of `SPEC`."""
    check_graph(data, _ENTRY, SPEC)


def _node(op: str, inputs: Sequence[str], output: str, **more: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], **more)


def _file(nodes: Sequence[onnx.NodeProto], constants: dict[str, np.ndarray]) -> bytes:
    values = [
        helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.shape)
        for tensor in (*_ENTRY.inputs, *_ENTRY.outputs)
    ]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def _whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def _ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


_CONVOLUTIONS = _file(
    [
        _node("Pad", ["image", "p"], "a", mode="reflect"),
        _node("Conv", ["a", "w"], "b", strides=[2, 2], kernel_shape=[3, 3]),
        _node("Resize", ["b", "", "r"], "c", mode="linear"),
        _node("InstanceNormalization", ["c", "s", "s"], "d", epsilon=1e-6),
        _node("ReduceMean", ["d", "x"], "e", keepdims=0),
        _node("Gemm", ["e", "m"], "mu"),
    ],
    {
        "p": _whole(0, 0, 1, 1, 0, 0, 1, 1),
        "w": _ones(4, 3, 3, 3),
        "r": np.array([1, 1, 1.5, 0.5], np.float32),
        "s": _ones(4),
        "x": _whole(2, 3),
        "m": _ones(4, 6),
    },
)
_ATTENTION = _file(
    [
        _node("Reshape", ["image", "f"], "a"),
        _node("Transpose", ["a"], "b", perm=[2, 0, 1]),
        _node("Reshape", ["b", "j"], "c"),
        _node("MatMul", ["c", "w"], "d"),
        _node("Reshape", ["d", "k"], "e"),
        _node("Transpose", ["e"], "g", perm=[1, 0, 2]),
        _node("Einsum", ["g", "g"], "h", equation="nld,nmd->nlm"),
        _node("Softmax", ["h"], "i", axis=2),
        _node("MatMul", ["i", "g"], "l"),
        _node("Slice", ["l", "s0", "s1", "s2"], "o"),
        _node("Gather", ["o", "q"], "r", axis=2),
        _node("Concat", ["r", "r"], "t", axis=1),
        _node("Reshape", ["t", "z"], "u"),
        _node("Expand", ["u", "y"], "v"),
        _node("Clip", ["v", "n"], "mu"),
    ],
    {
        "f": _whole(0, 3, 256),
        "j": _whole(-1, 3),
        "w": _ones(3, 4),
        "k": _whole(256, -1, 4),
        "s0": _whole(0),
        "s1": _whole(1),
        "s2": _whole(1),
        "q": _whole(0, -1, 2),
        "z": _whole(-1, 6),
        "y": _whole(1, 6),
        "n": np.array(-1, np.float32),
    },
)
GRAPHS = [_CONVOLUTIONS, _ATTENTION]
