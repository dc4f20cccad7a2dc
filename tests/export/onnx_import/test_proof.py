"""The proof finds what differs, and what one image of a batch does to another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from motorvae.export.onnx_import.proof import BatchNotFreeError, Original, prove_equal
from motorvae.export.onnx_import.session import Session
from motorvae.runtime.core.errors import GraphError, VerificationError

from .imports import graph_file

INPUTS = np.random.default_rng(0).random((3, 1, 2, 2), np.float32)


def graph(path: Path, *nodes: onnx.NodeProto, **constants: np.ndarray) -> Path:
    return graph_file(path, nodes, shape=("n", 1, 2, 2), constants=constants)


def proved(made: Path, own: Path, tolerance: float = 1e-4) -> float:
    original = Original(
        Session(own),
        ["mu"],
        lambda batch: {"x": batch},
        lambda found: {"mu": np.asarray(found["mu"], np.float64)},
    )
    return prove_equal(ir.load(made), original, INPUTS, tolerance=tolerance)


def test_the_same_graph_is_equal(tmp_path: Path) -> None:
    path = graph(tmp_path / "a.onnx", helper.make_node("Tanh", ["x"], ["mu"]))
    assert proved(path, path) == 0


@pytest.mark.parametrize(("factor", "passes"), [(1.00005, True), (1.001, False)])
def test_a_difference_counts_as_a_share_of_the_largest_number(
    tmp_path: Path, factor: float, *, passes: bool
) -> None:
    own = graph(tmp_path / "a.onnx", helper.make_node("Identity", ["x"], ["mu"]))
    made = graph(
        tmp_path / "b.onnx",
        helper.make_node("Mul", ["x", "f"], ["mu"]),
        f=np.array(factor, np.float32),
    )
    if passes:
        assert proved(made, own) == pytest.approx(factor - 1, rel=0.1)
    else:
        with pytest.raises(VerificationError, match=r"differs from the original's by 0\.001 "):
            proved(made, own)


def test_an_image_that_sees_its_neighbours_is_found(tmp_path: Path) -> None:
    """Alone, each image is its own mean over the batch."""
    own = graph(tmp_path / "a.onnx", helper.make_node("Identity", ["x"], ["mu"]))
    made = graph(
        tmp_path / "b.onnx",
        helper.make_node("ReduceMean", ["x", "a"], ["m"], keepdims=1),
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("Add", ["m", "nothing"], ["mu"]),
        a=np.array([0]),
        zero=np.array(0, np.float32),
    )
    with pytest.raises(BatchNotFreeError, match="depends on the others of its batch"):
        proved(made, own)


def test_a_batch_that_does_not_run_is_found(tmp_path: Path) -> None:
    own = graph(tmp_path / "a.onnx", helper.make_node("Identity", ["x"], ["mu"]))
    made = graph(
        tmp_path / "b.onnx",
        helper.make_node("Reshape", ["x", "t"], ["mu"]),
        t=np.array([1, 1, 2, 2]),
    )
    with pytest.raises(BatchNotFreeError, match="a batch of 3 does not run"):
        proved(made, own)


def test_an_original_that_is_not_finite_proves_nothing(tmp_path: Path) -> None:
    path = graph(
        tmp_path / "a.onnx",
        helper.make_node("Sub", ["x", "two"], ["y"]),
        helper.make_node("Log", ["y"], ["mu"]),
        two=np.array(2, np.float32),
    )
    with pytest.raises(GraphError, match="is not finite"):
        proved(path, path)
