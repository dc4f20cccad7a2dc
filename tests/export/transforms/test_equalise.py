from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from motorvae.export.transforms.equalise import correct_biases, equalise, links_of, reach_over
from motorvae.export.verify.reference import Reference
from motorvae.runtime.bundle.graph_key import Part
from motorvae.runtime.engines.open import open_file
from motorvae.runtime.pixels.convert import input_from_pixels

from ..conftest import SPEC, coarse_images


@pytest.fixture(params=["encoder", "decoder"])
def case(
    request: pytest.FixtureRequest, graphs: dict[Part, bytes], reference: Reference
) -> tuple[ir.Model, np.ndarray]:
    """A float32 graph and what it takes."""
    encoder = request.param == "encoder"
    inputs = input_from_pixels(reference.images[:, None]) if encoder else reference.mu
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


def test_mean_error_goes_and_nothing_else_changes(
    graphs: dict[Part, bytes], tmp_path: Path
) -> None:
    model = ir.from_proto(onnx.load_from_string(graphs["encoder"]))
    images = input_from_pixels(coarse_images(SPEC)[:, None])
    runs = []
    shift = np.linspace(-1, 1, SPEC.latent_size, dtype=np.float32)
    for corrected in (False, True):
        if corrected:
            rng = np.random.default_rng(0)
            noise = rng.standard_normal((len(images), SPEC.latent_size)).astype(np.float32)
            noise -= noise.mean(axis=0)
            found = {"mu": runs[0]["mu"] + shift + noise, "log_var": runs[0]["log_var"]}
            correct_biases(model, found, runs[0])
        path = tmp_path / f"{corrected}.onnx"
        ir.save(model, path)
        with open_file(path) as backend:
            runs.append(backend.run(images))
    expected = np.broadcast_to(-shift, runs[0]["mu"].shape)
    np.testing.assert_allclose(runs[1]["mu"] - runs[0]["mu"], expected, atol=1e-5)
    np.testing.assert_array_equal(runs[1]["log_var"], runs[0]["log_var"])
