"""Small graphs of anybody's, right and wrong, written with onnx.helper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, UNITS = 16, 6
FLOAT, HALF, BYTE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
Arrays = dict[str, npt.NDArray[Any]]
Shape = Sequence[int | str]


def save_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, tuple[int, Shape]],
    weights: Arrays,
) -> Path:
    taken, given = (
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in some.items()]
        for some in (inputs, outputs)
    )
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "graph", taken, given, tensors)
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def heads(channels: int = 3, *, seed: int = 0) -> Arrays:
    """Weights of two linear heads on the flat image; mu reaches about 1, deviations about 0.1."""
    rng = np.random.default_rng(seed)
    size = channels * SIDE * SIDE
    return {
        "of_mu": rng.normal(0, 0.2, (size, UNITS)).astype(np.float32),
        "of_log_var": rng.normal(0, 0.02, (size, UNITS)).astype(np.float32),
        "usual": np.full(UNITS, -4, np.float32),
    }


def encoder(
    path: Path,
    weights: Arrays,
    *,
    names: tuple[str, str] = ("mu", "log_var"),
    dtype: int = FLOAT,
    channels_last: bool = False,
    batch: int | str = "batch",
    log_var: bool = True,
    last: Sequence[onnx.NodeProto] = (),
    more: Arrays | None = None,
) -> Path:
    """Write an encoder with these heads; `last` are nodes from "mean" to the first output."""
    channels = len(weights["of_mu"]) // SIDE**2
    shape: Shape = (batch, channels, SIDE, SIDE)
    nodes = [helper.make_node("Cast", ["image"], ["floats"], to=FLOAT)]
    source = "floats"
    if dtype == BYTE:
        nodes.append(helper.make_node("Mul", ["floats", "level"], ["scaled"]))
        source = "scaled"
    if channels_last:
        shape = (batch, SIDE, SIDE, channels)
        nodes.append(helper.make_node("Transpose", [source], ["planes"], perm=[0, 3, 1, 2]))
        source = "planes"
    nodes += [
        helper.make_node("Flatten", [source], ["flat"]),
        helper.make_node("MatMul", ["flat", "of_mu"], ["mean"]),
        helper.make_node("MatMul", ["flat", "of_log_var"], ["free"]),
        *(last or [helper.make_node("Cast", ["mean"], [names[0]], to=_given(dtype))]),
    ]
    outputs: dict[str, tuple[int, Shape]] = {names[0]: (_given(dtype), (batch, UNITS))}
    if log_var:
        nodes.append(helper.make_node("Add", ["free", "usual"], ["summed"]))
        nodes.append(helper.make_node("Cast", ["summed"], [names[1]], to=_given(dtype)))
        outputs[names[1]] = (_given(dtype), (batch, UNITS))
    held = weights | {"level": np.asarray(1 / 255, np.float32)} | (more or {})
    return save_graph(path, nodes, {"image": (dtype, shape)}, outputs, held)


def decoder(path: Path, *, seed: int = 0, offset: float = 0.0, channels_last: bool = False) -> Path:
    """Write z (batch, UNITS) to a reconstruction in [0, 1]."""
    rng = np.random.default_rng(seed)
    size = (SIDE, SIDE, 3) if channels_last else (3, SIDE, SIDE)
    weights = rng.normal(0, 0.4, (UNITS, 3, SIDE, SIDE)).astype(np.float32)
    weights = weights.transpose(0, 2, 3, 1) if channels_last else weights
    nodes = [
        helper.make_node("MatMul", ["z", "weights"], ["flat"]),
        helper.make_node("Sigmoid", ["flat"], ["levels"]),
        helper.make_node("Add", ["levels", "offset"], ["shifted"]),
        helper.make_node("Reshape", ["shifted", "shape"], ["picture"]),
    ]
    return save_graph(
        path,
        nodes,
        {"z": (FLOAT, ("batch", UNITS))},
        {"picture": (FLOAT, ("batch", *size))},
        {
            "weights": weights.reshape(UNITS, -1),
            "offset": np.asarray(offset, np.float32),
            "shape": np.array([-1, *size]),
        },
    )


def _given(dtype: int) -> int:
    return HALF if dtype == HALF else FLOAT
