"""Weights rounded to FP16 together, so that no layer's output moves for all images alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...runtime.engines.base import Batch
from .graph_ops import array_of
from .values_inside import GraphWithValues

Rounded = Mapping[str, npt.NDArray[np.float16]]
"""Weights by their names in the graph."""


def weights_rounded_together(
    model: ir.Model, engine: GraphWithValues, inputs: Iterable[Batch]
) -> dict[str, npt.NDArray[np.float16]]:
    """Round the weights of convolutions and of matrix products with a bias to FP16.

    Rounded one by one to the nearest, the weights and the bias of a layer shift its output by some
    amount that is the same wherever its input is, such as all over a white background; the
    layers behind add that up, and every latent moves. Here some weights go to the other of their
    two neighbours, so that the mean of each output over `inputs` stays what it was: a weight is
    at most one unit in its last place off, and the shift is gone. (As biases are corrected for in
    Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
    section 4.2; a bias in FP16 is too coarse for it. That weights are better rounded together is
    from Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization".)

    Precondition: a float32 graph; `engine` gives its values inside, and takes one of `inputs` at a
    time. Layers whose weights others read, too, are left out, as those that are no constants.
    """
    layers = [node for node in model.graph if _is_understood(node)]
    means = _input_means(model, layers, engine, inputs)
    return {
        str(node.inputs[1].name): _rounded(node, means[node.inputs[0]])
        for node in layers
        if node.inputs[1] is not None and node.inputs[0] in means
    }


def _is_understood(node: ir.Node) -> bool:
    if node.op_type not in {"Conv", "Gemm"} or len(node.inputs) < 3:
        return False
    if not all(
        value is not None and value.const_value is not None and len(value.uses()) == 1
        for value in node.inputs[1:]
    ):
        return False
    if node.op_type == "Conv":
        return True
    of_node = node.attributes
    factors = of_node.get_float("alpha", 1.0), of_node.get_float("beta", 1.0)
    turned = of_node.get_int("transA", 0), of_node.get_int("transB", 0)
    return factors == (1.0, 1.0) and turned == (0, 1) and array_of(node.inputs[2]).ndim == 1


def _input_means(
    model: ir.Model,
    layers: Iterable[ir.Node],
    engine: GraphWithValues,
    inputs: Iterable[Batch],
) -> dict[ir.Value | None, npt.NDArray[np.float64]]:
    """Return (C,) means of what each layer reads, over inputs and places."""
    read = dict.fromkeys(node.inputs[0] for node in layers)
    sums: dict[ir.Value | None, npt.NDArray[np.float64]] = {}
    count = 0
    for batch in inputs:
        values = {str(model.graph.inputs[0].name): batch, **engine.run(batch)}
        for value in read:
            array = values.get(str(value.name) if value is not None else "")
            if array is not None and array.ndim > 1:
                places = array.reshape(*array.shape[:2], -1).astype(np.float64)
                sums[value] = sums.get(value, 0.0) + places.mean(axis=(0, 2))
        count += 1
    return {value: total / count for value, total in sums.items() if np.isfinite(total).all()}


def _rounded(node: ir.Node, means: npt.NDArray[np.float64]) -> npt.NDArray[np.float16]:
    """Round a layer's weights (O, ...), the mean of whose input is (C,)."""
    weights = array_of(node.inputs[1])
    bias = array_of(node.inputs[2])
    exact = weights.reshape(len(weights), -1).astype(np.float64)
    level = _level(node, means, exact.shape)
    with np.errstate(over="ignore"):
        near = exact.astype(np.float16)
        bias_error = bias.astype(np.float16) - bias.astype(np.float64)
        towards = np.where(near < exact, np.float16(np.inf), np.float16(-np.inf))
        other = np.nextafter(near, towards)
    is_one = (near != exact) & np.isfinite(near) & np.isfinite(other)
    other = np.where(is_one, other, near)
    # Beyond FP16 all becomes infinite, which others refuse.
    fits = np.isfinite(near).all(axis=1) & np.isfinite(bias_error)
    near_full, other_full = near.astype(np.float64)[fits], other.astype(np.float64)[fits]
    flipped = np.zeros(near.shape, bool)
    flipped[fits] = _flips(
        (other_full - near_full) * level[fits],
        ((near_full - exact[fits]) * level[fits]).sum(axis=1) + bias_error[fits],
    )
    return np.where(flipped, other, near).reshape(weights.shape)


def _flips(
    changes: npt.NDArray[np.float64], errors: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Choose of (O, K) changes those that bring (O,) errors nearest to zero, greedily."""
    # The largest first: what is left in the end is less than the finest of them.
    order = np.argsort(-np.abs(changes), axis=1)
    sizes = np.take_along_axis(changes, order, axis=1)
    taken = np.zeros(order.shape, bool)
    for place in range(order.shape[1]):
        changed = errors + sizes[:, place]
        taken[:, place] = np.abs(changed) < np.abs(errors)
        errors = np.where(taken[:, place], changed, errors)
    flipped = np.zeros(order.shape, bool)
    np.put_along_axis(flipped, order, taken, axis=1)
    return flipped


def _level(
    node: ir.Node, means: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Return the mean of what each weight (O, K) is multiplied with, away from edges."""
    outputs, count = shape
    if node.op_type == "Gemm":
        return np.broadcast_to(means, shape)
    groups = node.attributes.get_int("group", 1) or 1
    of_group = means.reshape(groups, -1)
    taps = count // of_group.shape[1]
    return np.repeat(np.repeat(of_group, taps, axis=1), outputs // groups, axis=0)
