"""The float32 gate of other networks, with its wider room, against faults of conversions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx_ir import to_proto

from motorvae.export.verify.limits import OTHER_NETWORKS
from motorvae.export.verify.metrics import share_of_limit
from motorvae.export.verify.reference import Reference
from motorvae.export.verify.verifier import Verifier
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.engines.open import open_file

from ..other_networks import SPATIAL, SpatialDecoder, SpatialEncoder, graph_of, reference_of

ENCODER = GraphKey("encoder")


@pytest.fixture(scope="module")
def encoder() -> onnx.ModelProto:
    torch.manual_seed(3)
    return to_proto(graph_of(SpatialEncoder(), SPATIAL.input_shape, "mu", "log_var"))


@pytest.fixture(scope="module")
def reference(encoder: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    torch.manual_seed(4)
    decoder = to_proto(graph_of(SpatialDecoder(), (SPATIAL.latent_size,), "reconstruction"))
    data = {"encoder": encoder.SerializeToString(), "decoder": decoder.SerializeToString()}
    found = reference_of(data, SPATIAL, tmp_path_factory.mktemp("reference"))
    return replace(found, room=OTHER_NETWORKS)


def constants_changed(model: onnx.ModelProto, change: Callable[[str, np.ndarray], object]) -> None:
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        change(tensor.name, values)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def epsilon(model: onnx.ModelProto) -> None:
    """A thousand times the small number of every norm: that of another framework's default."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f *= 1000

    def change(_: str, values: np.ndarray) -> None:
        if values.dtype == np.float32 and values.size == 1 and np.isclose(values, 1e-6).all():
            values *= 1000

    constants_changed(model, change)


def scores(model: onnx.ModelProto) -> None:
    """Attention by scores a tenth too large."""
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    factor = numpy_helper.from_array(np.array(1.1, np.float32), "planted")
    model.graph.initializer.append(factor)
    at = [*model.graph.node].index(softmax)
    scaled = onnx.helper.make_node("Mul", [softmax.input[0], "planted"], ["planted_scores"])
    softmax.input[0] = "planted_scores"
    model.graph.node.insert(at, scaled)


def colours(model: onnx.ModelProto) -> None:
    """The first convolution reads blue for red."""

    def change(_: str, values: np.ndarray) -> None:
        if values.ndim == 4 and values.shape[1] == 3:
            values[:] = values[:, ::-1]

    constants_changed(model, change)


def one_weight(model: onnx.ModelProto) -> None:
    """The last layer's weights two per mille too large."""

    def change(_: str, values: np.ndarray) -> None:
        if values.ndim == 4 and values.shape[2:] == (1, 1):
            values *= np.float32(1.002)

    constants_changed(model, change)


def used(model: onnx.ModelProto, reference: Reference, folder: Path) -> float:
    """Return the largest share of a limit that an encoder uses."""
    path = folder / "encoder.onnx"
    path.write_bytes(model.SerializeToString())
    with open_file(path) as backend:
        reports = Verifier(reference).verify(ENCODER, backend)
    return max(share_of_limit(metric) for report in reports for metric in report.metrics)


def test_a_right_graph_uses_little_of_its_room(
    encoder: onnx.ModelProto, reference: Reference, tmp_path: Path
) -> None:
    assert used(encoder, replace(reference, room=1), tmp_path) < 0.5


@pytest.mark.parametrize("plant", [epsilon, scores, colours, one_weight])
def test_faults_of_conversions_are_refused_all_the_same(
    encoder: onnx.ModelProto,
    reference: Reference,
    plant: Callable[[onnx.ModelProto], None],
    tmp_path: Path,
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(encoder)
    plant(model)
    share = used(model, reference, tmp_path)
    print(plant.__name__, share)  # the figures of docs/gate.md
    assert share > 1
