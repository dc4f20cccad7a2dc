"""Proof: a graph in the normal form gives what the user's own gives, at any batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...runtime.core.errors import GraphError, VerificationError
from .emit import Array
from .session import Session

FLOAT32_TOLERANCE, FLOAT16_TOLERANCE = 1e-4, 2e-2
"""Of the largest number that an output gives: other orders of the same sums, dozens of layers
deep; and of a float16 graph, whose own rounding its float32 form has not."""
BATCH = 3


class BatchNotFreeError(GraphError):
    """Images of one batch change each other's results."""


ToOwn = Callable[[npt.NDArray[np.float32]], Mapping[str, Array]]
FromOwn = Callable[[Mapping[str, Array]], Mapping[str, npt.NDArray[np.float64]]]


class Original(NamedTuple):
    """The user's graph, and how what we take and give is written in its own form."""

    session: Session
    outputs: Sequence[str]  # of the graph
    to_own: ToOwn  # of a batch of 1
    from_own: FromOwn


def prove_equal(
    model: ir.Model,
    original: Original,
    inputs: npt.NDArray[np.float32],
    *,
    tolerance: float,
) -> float:
    """Return the largest difference, as a share of the largest number, over (N, ...) inputs.

    Each input runs alone in the original, and in threes in the new graph. A BatchNotFreeError is
    raised where a batch of 3 gives other numbers than each image alone, a VerificationError where
    one alone does.
    """
    made = Session(ir.to_proto(model))
    names = [str(value.name) for value in model.graph.outputs]
    (name,) = (str(value.name) for value in model.graph.inputs)
    wanted = [
        original.from_own(original.session.run(original.to_own(one), original.outputs))
        for one in inputs[:, None]
    ]
    alone = [made.run({name: one}, names) for one in inputs[:, None]]
    worst = 0.0
    for ours in names:
        expected = np.concatenate([one[ours] for one in wanted])
        if not np.isfinite(expected).all():
            raise GraphError(
                f"the original's {ours} is not finite",
                fix="check --value-range, --mean and --std, and its weights",
            )
        scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
        difference = _largest(np.concatenate([one[ours] for one in alone]), expected) / scale
        if not difference <= tolerance:
            raise VerificationError(
                f"{ours} in the form that motorVAE needs differs from the original's by "
                f"{difference:.2g} of its largest number, and {tolerance:g} is allowed: report "
                "this with the file"
            )
        worst = max(worst, difference)
        batches = [
            (inputs[start : start + BATCH], expected[start : start + BATCH])
            for start in range(0, len(inputs) - BATCH + 1, BATCH)
        ]
        for images, each in batches:
            _check_batch(made, {name: images}, ours, each, allowed=tolerance * scale)
    return worst


def _check_batch(
    made: Session,
    inputs: Mapping[str, Array],
    ours: str,
    expected: npt.NDArray[np.float64],
    *,
    allowed: float,
) -> None:
    try:
        found = made.run(inputs, [ours])[ours]
    except GraphError as error:
        raise _not_free(f"a batch of {BATCH} does not run") from error
    if not _largest(found, expected) <= allowed:
        raise _not_free(f"{ours} of an image depends on the others of its batch")


def _not_free(problem: str) -> BatchNotFreeError:
    return BatchNotFreeError(
        f"the batch axis cannot be freed, {problem}",
        fix="export the model with a dynamic batch axis",
    )


def _largest(found: Array, expected: npt.NDArray[np.float64]) -> float:
    if found.shape != expected.shape:
        return np.inf
    return float(np.abs(np.asarray(found, np.float64) - expected).max(initial=0.0))
