"""Weights rounded to FP16 together, so that no layer's output moves for all images alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...runtime.engines.base import Arrays, Batch
from .graph_ops import array_of
from .values_inside import GraphWithValues

_AT_A_TIME = 1 << 21  # weights
_ENOUGH = 0.02
"""Of the deviation of a sum of rounding errors, each of a deviation of 1 / sqrt(12) units."""

Rounded = Mapping[str, npt.NDArray[np.float16]]
"""Weights by their names in the graph."""


Moments = npt.NDArray[np.float64]
"""(2, C): means and mean squares of channels."""


class InputMoments:
    """An engine that notes, as it runs, the means of what the layers of a float32 graph read.

    `engine` gives the values inside of `model`; it is run on one of the inputs at a time.
    """

    def __init__(self, model: ir.Model, engine: GraphWithValues) -> None:
        self.name, self.input_dtype, self._engine = engine.name, engine.input_dtype, engine
        self._input = str(model.graph.inputs[0].name)
        self._read = dict.fromkeys(node.inputs[0] for node in _layers_of(model))
        self._sums: dict[ir.Value | None, Moments] = {}
        self._count = 0

    def run(self, batch: Batch, /) -> Arrays:
        """Run the graph once on its one input, (N, ...) float32."""
        outputs = self._engine.run(batch)
        values = {self._input: batch, **outputs}
        for value in self._read:
            array = values.get(str(value.name) if value is not None else "")
            if array is not None and array.ndim > 1:
                places = array.reshape(*array.shape[:2], -1).astype(np.float64)
                moments = np.stack([(places**power).mean(axis=(0, 2)) for power in (1, 2)])
                self._sums[value] = self._sums.get(value, 0.0) + moments
        self._count += 1
        return outputs

    def of(self, value: ir.Value | None) -> Moments | None:
        """Return the moments of what a layer reads, over inputs and places; None where unknown."""
        total = self._sums.get(value)
        return None if total is None or not np.isfinite(total).all() else total / self._count


def weights_rounded_together(
    model: ir.Model, inputs: InputMoments
) -> dict[str, npt.NDArray[np.float16]]:
    """Round the weights of convolutions, and of matrix products that are one layer, to FP16.

    Rounded one by one to the nearest, the weights and the bias of a layer shift its output by some
    amount that is the same wherever its input is, such as all over a white background; the
    layers behind add that up, and every latent moves. Here some weights go to the other of their
    two neighbours, so that the mean of each output over `inputs` stays what it was: a weight is
    at most one unit in its last place off, and the shift is gone but at edges, where a layer reads
    its own zeros. Those go that are about as far from either neighbour, so that little is added to
    what the rounding does to the rest of an image.

    (As biases are corrected for in Nagel et al. 2019, "Data-Free Quantization Through Weight
    Equalization and Bias Correction", section 4.2; a bias in FP16 is too coarse for it. That
    weights are better rounded together is from Nagel et al. 2020, "Up or Down? Adaptive Rounding
    for Post-Training Quantization".)

    What a GPU's rounding of values between layers shifts is not made up for.

    Precondition: a float32 graph. Weights that others read, too, are left out, as those that are no
    constants.
    """
    known = [(node, inputs.of(node.inputs[0])) for node in _layers_of(model)]
    return {
        str(node.inputs[1].name): _rounded(node, moments)
        for node, moments in known
        if node.inputs[1] is not None and moments is not None
    }


def _layers_of(model: ir.Model) -> list[ir.Node]:
    """Return the nodes whose weights are understood."""
    return [node for node in model.graph if _is_understood(node)]


def _is_understood(node: ir.Node) -> bool:
    if node.op_type not in {"Conv", "Gemm"}:
        return False
    constants = [value for value in node.inputs[1:] if value is not None]
    if not all(value.const_value is not None for value in constants):
        return False
    if len(constants[0].uses()) > 1:
        return False
    if node.op_type == "Conv":
        return True
    biases = [array_of(value) for value in constants[1:]]  # one of an output, or one of all
    is_one_each = all(array.size == (*array.shape, 1)[max(array.ndim - 1, 0)] for array in biases)
    of_node = node.attributes
    are_plain = (
        of_node.get_float("alpha", 1.0) == of_node.get_float("beta", 1.0) == 1,
        of_node.get_int("transA", 0) == 0,
        of_node.get_int("transB", 0) == 1,
    )
    return is_one_each and all(are_plain)


def _rounded(node: ir.Node, moments: Moments) -> npt.NDArray[np.float16]:
    """Round a layer's weights (O, ...), whose input has (2, C) moments."""
    weights = array_of(node.inputs[1])
    exact = weights.reshape(len(weights), -1)
    bias = np.zeros(len(exact), np.float32)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias[:] = array_of(node.inputs[2]).reshape(-1)
    level, square = (_level(node, of_channels, exact.shape) for of_channels in moments)
    rounded = np.empty(exact.shape, np.float16)
    # Each output by itself; a few at a time, as this takes a hundred bytes a weight.
    rows = max(1, _AT_A_TIME // max(1, exact.shape[1]))
    for first in range(0, len(exact), rows):
        part = slice(first, first + rows)
        rounded[part] = _rows_rounded(
            exact[part].astype(np.float64), bias[part], level[part], square[part]
        )
    return rounded.reshape(weights.shape)


def _rows_rounded(
    exact: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float32],
    level: npt.NDArray[np.float64],
    square: npt.NDArray[np.float64],
) -> npt.NDArray[np.float16]:
    """Round (O, K) weights beside (O,) biases.

    What they are multiplied with is `level` on average, and its square is `square`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        near = exact.astype(np.float16)
        bias_error = bias.astype(np.float16) - bias.astype(np.float64)
        towards = np.where(near < exact, np.float16(np.inf), np.float16(-np.inf))
        other = np.nextafter(near, towards)
    is_one = (near != exact) & np.isfinite(near) & np.isfinite(other)
    other = np.where(is_one, other, near)
    # Beyond FP16 all becomes infinite, which others refuse.
    fits = np.isfinite(near).all(axis=1) & np.isfinite(bias_error)
    exact, level, square = exact[fits], level[fits], square[fits]
    of_near, of_other = (one[fits].astype(np.float64) - exact for one in (near, other))
    flipped = np.zeros(near.shape, bool)
    flipped[fits] = _flips(
        (of_other - of_near) * level,
        (of_near * level).sum(axis=1) + bias_error[fits],
        (of_other**2 - of_near**2) * square,
    )
    return np.where(flipped, other, near)


def _flips(
    changes: npt.NDArray[np.float64],
    errors: npt.NDArray[np.float64],
    costs: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Choose of (O, K) changes those that bring (O,) errors near to zero, the cheapest first."""
    sizes = np.abs(changes)
    order = np.argsort(costs / np.maximum(sizes, np.finfo(float).tiny), axis=1, kind="stable")
    # Less than that nobody sees beside what the rounding of each weight does.
    enough = _ENOUGH * np.sqrt((sizes**2).sum(axis=1) / 12)
    # A place of all outputs in one piece of memory.
    in_order = np.take_along_axis(changes, order, axis=1).T.copy()
    taken = np.zeros(in_order.shape, bool)
    for place, change in enumerate(in_order):
        changed = errors + change
        taken[place] = (np.abs(changed) < np.abs(errors)) & (np.abs(errors) > enough)
        errors = np.where(taken[place], changed, errors)
    flipped = np.zeros(order.shape, bool)
    np.put_along_axis(flipped, order, taken.T, axis=1)
    return flipped


def _level(
    node: ir.Node, of_channels: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Return (O, K) of what each weight is multiplied with, away from edges, given its (C,)."""
    outputs, count = shape
    if node.op_type == "Gemm":
        return np.broadcast_to(of_channels, shape)
    groups = node.attributes.get_int("group", 1) or 1
    of_group = of_channels.reshape(groups, -1)
    taps = count // of_group.shape[1]
    return np.repeat(np.repeat(of_group, taps, axis=1), outputs // groups, axis=0)
