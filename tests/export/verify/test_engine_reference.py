from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from motorvae.export.verify.engine_reference import reference_from_engines
from motorvae.export.verify.reference import (
    Reference,
    Spread,
    reference_from_graphs,
    spread_from_statistics,
)
from motorvae.export.verify.verifier import Verifier
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.core.errors import BundleError
from motorvae.runtime.engines.open import open_file
from motorvae.training.learned import learned_from_reconstructions

from ..other_networks import FLAT, FlatDecoder, FlatEncoder, graph_of, pictures

ENCODER = GraphKey("encoder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("flat")
    ir.save(graph_of(FlatEncoder(), FLAT.input_shape, "mu"), path / "encoder.onnx")
    ir.save(graph_of(FlatDecoder(), (6,), "reconstruction"), path / "decoder.onnx")
    return path


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    with open_file(folder / "encoder.onnx") as encoder, open_file(folder / "decoder.onnx") as two:
        return reference_from_engines(encoder, two, pictures(FLAT, 80))


def test_reference_of_graphs_alone_has_spreads_and_probes(reference: Reference) -> None:
    assert reference.name.startswith("ONNX Runtime ")
    assert reference.log_var is None
    assert reference.posterior_variance is None
    np.testing.assert_allclose(reference.spread.mu, reference.mu.std(axis=0, dtype=np.float64))
    np.testing.assert_array_equal(reference.scale, reference.spread.mu)
    assert reference.judged_units.all()
    probes = reference.probes
    assert probes is not None
    assert probes.log_var is None
    assert probes.latents is not None
    assert probes.reconstruction is not None
    assert len(probes.reconstruction) == len(probes.latents)
    assert len(probes.mu) == len(probes.names)


def test_without_log_var_the_spread_judges_and_deviations_drop_out(
    folder: Path, reference: Reference
) -> None:
    verifier = Verifier(reference)
    with open_file(folder / "encoder.onnx") as backend:
        (report,) = verifier.verify(ENCODER, backend)
    assert report.passed
    assert not [metric.name for metric in report.metrics if "deviation" in metric.name]
    # A wrong graph does not pass for the lack of it.
    wrong = replace(reference, mu=reference.mu + 1e-3 * reference.spread.mu.astype(np.float32))
    with open_file(folder / "encoder.onnx") as backend:
        (report,) = Verifier(wrong).verify(ENCODER, backend)
    assert report.failures[0].startswith("encoder fp32 mu: max error / spread over data 0.001")


def test_unit_that_is_constant_is_judged_by_a_floor_and_said(reference: Reference) -> None:
    mu = reference.spread.mu.copy()
    mu[2] = 0
    still = replace(reference, spread=Spread(mu))
    assert list(np.flatnonzero(~still.informative)) == [2]
    assert still.judged_units.all()
    assert 0 < still.scale[2] < mu[mu > 0].min()
    assert any(note.startswith("1 of 6 units vary by less than 1%") for note in still.notes)


def test_encoder_alone_has_no_images(folder: Path) -> None:
    with open_file(folder / "encoder.onnx") as encoder:
        reference = reference_from_engines(encoder, None, pictures(FLAT, 8), name="the original")
    assert reference.name == "the original"
    assert reference.reconstruction is None
    assert reference.probes is not None
    assert reference.probes.latents is None
    with pytest.raises(ValueError, match="the original has no images of a decoder"):
        _ = reference.decoded
    assert reference.rows(slice(3)).mu.shape == (3, 6)
    learned = learned_from_reconstructions(reference.images, None, reference.mu, None)
    assert learned.informative_units == 6
    assert np.isnan(learned.explained)
    alone = FLAT.model_copy(update={"has_decoder": False})
    found = reference_from_graphs(folder, alone, pictures(FLAT, 5), reference)
    assert found.reconstruction is None
    assert found.mu.shape == (5, 6)


def test_latents_that_are_alike_are_a_problem_without_log_var_too() -> None:
    images = pictures(FLAT, 8)
    learned = learned_from_reconstructions(images, None, np.ones((8, 6), np.float32), None)
    assert "its latents are alike for all held-out images" in learned.sentence()


def test_colours_are_compared_with_their_own() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 3, 8, 8), np.uint8)
    mu = rng.standard_normal((6, 4))
    exact = images.astype(np.float32) / 255
    assert learned_from_reconstructions(images, exact, mu, mu).explained == pytest.approx(1)
    exchanged = exact[:, ::-1]
    assert learned_from_reconstructions(images, exchanged, mu, mu).explained < 0


def test_spread_without_covariance_is_read_back(reference: Reference, tmp_path: Path) -> None:
    np.savez(tmp_path / "latents.npz", mu_deviation=reference.spread.mu)
    found = spread_from_statistics(tmp_path / "latents.npz", FLAT, error=BundleError)
    np.testing.assert_array_equal(found.mu, reference.spread.mu)
    assert found.log_var is None
    assert found.posterior_variance is None
    np.savez(tmp_path / "empty.npz", other=np.ones(3))
    with pytest.raises(BundleError, match="holds no covariance and no mu_deviation"):
        spread_from_statistics(tmp_path / "empty.npz", FLAT, error=BundleError)
