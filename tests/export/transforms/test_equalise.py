from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from motorvae.export.transforms.equalise import equalise, links_of, reach_over
from motorvae.export.verify.reference import Reference
from motorvae.runtime.bundle.graph_key import Part
from motorvae.runtime.engines.open import open_file
from motorvae.runtime.pixels.convert import input_from_luma


@pytest.fixture(params=["encoder", "decoder"])
def case(
    request: pytest.FixtureRequest, graphs: dict[Part, bytes], reference: Reference
) -> tuple[ir.Model, np.ndarray]:
    """A float32 graph and what it takes."""
    encoder = request.param == "encoder"
    inputs = input_from_luma(reference.images[:, None]) if encoder else reference.mu
    return ir.from_proto(onnx.load_from_string(graphs[request.param])), inputs


def uneven(model: ir.Model) -> None:
    """Plant channels of one layer a thousandfold apart, exactly undone by the next."""
    link = links_of(model)[1]
    reach = np.geomspace(1e-6, 1, link.channels)
    equalise_one = {other.name: np.ones(other.channels) for other in links_of(model)}
    equalise(model, equalise_one | {link.name: reach})


def outputs_of(model: ir.Model, inputs: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    ir.save(model, folder / "graph.onnx")
    with open_file(folder / "graph.onnx") as backend:
        return backend.run(inputs)


def unevenness(model: ir.Model, inputs: np.ndarray, folder: Path) -> float:
    """Return how far the channels of the second link lie apart, as the spread of logarithms."""
    reach = reach_over(model, inputs, folder)[links_of(model)[1].name]
    return float(np.log(np.maximum(reach, 1e-30)).std())


def test_every_inner_layer_is_linked_to_what_reads_it(case: tuple[ir.Model, np.ndarray]) -> None:
    model, _ = case
    layers = [node for node in model.graph if node.op_type in {"Conv", "ConvTranspose", "Gemm"}]
    heads = 2 if model.graph.inputs[0].name == "image" else 1
    links = links_of(model)
    assert len(links) == len(layers) - heads
    assert len(links[-1].readers) == heads


def test_outputs_stay_and_channels_come_closer(
    case: tuple[ir.Model, np.ndarray], tmp_path: Path
) -> None:
    model, inputs = case
    before = outputs_of(model, inputs, tmp_path)
    uneven(model)
    apart = unevenness(model, inputs, tmp_path)
    equalise(model, reach_over(model, inputs, tmp_path))
    after = outputs_of(model, inputs, tmp_path)
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, atol=2e-5)
    assert unevenness(model, inputs, tmp_path) < apart / 2
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]
