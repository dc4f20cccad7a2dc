"""Wrong graphs, exported for real: each must be refused, and the right ones must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from motorvae.export import graph_folder
from motorvae.export.graph_folder import GraphFolder
from motorvae.export.transforms.fp16 import fp16_from_fp32
from motorvae.export.verify.batches import BATCH_SIZES, probe_sizes, run_in_batches
from motorvae.export.verify.reference import Reference, Spread, reference_from_bundle
from motorvae.export.verify.reports import encoder_reports
from motorvae.export.verify.torch_reference import reference_from_model
from motorvae.export.verify.verifier import Verifier
from motorvae.runtime.bundle.graph_key import GraphKey, Part, Precision
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.errors import VerificationError
from motorvae.runtime.engines.open import open_file
from motorvae.runtime.pixels.convert import input_from_pixels
from motorvae.training.model import MotorVAE

from ..conftest import SPEC, WriteBundle, coarse_images
from .planted import PLANTED, Planted, ignores_its_input, ignores_still_pixels


@pytest.fixture(scope="module")
def framed(model: MotorVAE) -> Reference:
    """Images in a frame that never changes, neither black nor white; unit 3 is collapsed."""
    images = np.clip(coarse_images(SPEC), 40, 200)
    images[:, :8] = images[:, :, :8] = 90
    ones = np.ones(SPEC.latent_size)
    first = reference_from_model(model, images, Spread(mu=ones, log_var=ones))
    mu, log_var = (values.astype(np.float64).std(axis=0) for values in (first.mu, first.log_var))
    mu[3] = 1e-3
    return replace(first, spread=Spread(mu=mu, log_var=log_var))


def planted(
    graphs: dict[Part, bytes], graph: Part, fault: Planted, judges: Reference
) -> dict[Part, ir.Model]:
    """Both graphs, one of them wrong."""
    found = {name: ir.from_proto(onnx.load_from_string(data)) for name, data in graphs.items()}
    wrong = fault(found[graph], judges)
    assert wrong is not None
    return found | {graph: wrong}


@pytest.mark.parametrize("fault", PLANTED["encoder"], ids=lambda fault: fault.__name__)
def test_planted_encoder_is_refused(
    write: WriteBundle,
    graphs: dict[Part, bytes],
    framed: Reference,
    fault: Planted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The check of operators would refuse most of them for how they are planted.
    monkeypatch.setattr(graph_folder, "check_graph", lambda *_: None)
    judges = framed.rows(slice(1)) if fault is ignores_its_input else framed
    wrong = planted(graphs, "encoder", fault, judges)
    with pytest.raises(VerificationError, match="no bundle was written: encoder fp32"):
        write(tmp_path / "bundle", graphs=wrong, reference=judges, precisions=())
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("fault", PLANTED["decoder"], ids=lambda fault: fault.__name__)
def test_planted_decoder_is_refused(
    graphs: dict[Part, bytes],
    framed: Reference,
    fault: Planted,
    precision: Precision,
    tmp_path: Path,
) -> None:
    """Judged by itself: the rewrite of its last stage would refuse most of these."""
    wrong = planted(graphs, "decoder", fault, framed)["decoder"]
    right = ir.from_proto(onnx.load_from_string(graphs["decoder"]))
    files, verifier = GraphFolder(tmp_path, SPEC, "ab" * 32), Verifier(framed)
    key = GraphKey("decoder", precision)
    verifier.take_encoded(key, framed.mu)
    passed = []
    for model in (right, wrong):
        if precision == "fp16":
            fp16_from_fp32(model)
        with files.candidate(model) as file:
            reports = verifier.verify_file(key, file)
        passed.append(all(report.passed for report in reports))
    assert passed == [True, False]


def test_right_graphs_pass_by_the_same_images(
    write: WriteBundle, framed: Reference, tmp_path: Path
) -> None:
    for name, judges in (("many", framed), ("one", framed.rows(slice(1)))):
        write(tmp_path / name, reference=judges, precisions=("fp16",))


@pytest.mark.parametrize("fault", [ignores_still_pixels, ignores_its_input])
def test_without_probes_the_same_faults_pass_and_the_report_says_what_it_lacks(
    graphs: dict[Part, bytes], framed: Reference, fault: Planted, tmp_path: Path
) -> None:
    """What a bundle of an earlier version is judged by; the faults are real ones."""
    judges = framed.rows(slice(1)) if fault is ignores_its_input else framed
    ir.save(planted(graphs, "encoder", fault, judges)["encoder"], tmp_path / "wrong.onnx")
    with open_file(tmp_path / "wrong.onnx") as backend:
        (with_probes, _), _ = encoder_reports(backend, judges, GraphKey("encoder"))
        (without, _), _ = encoder_reports(
            backend, replace(judges, probes=None), GraphKey("encoder")
        )
    assert not with_probes.passed
    assert without.passed
    assert any("no probe images" in note for note in without.notes)
    assert not any("no probe images" in note for note in with_probes.notes)


def test_bundle_carries_its_probes(write: WriteBundle, framed: Reference, tmp_path: Path) -> None:
    write(tmp_path / "bundle", reference=framed, precisions=())
    found = reference_from_bundle(load_bundle(tmp_path / "bundle")).probes
    true = framed.probes
    assert found is not None
    assert true is not None
    assert found.names == true.names
    for name in ("images", "mu", "log_var", "latents"):
        np.testing.assert_array_equal(getattr(found, name), getattr(true, name))
    np.testing.assert_allclose(found.reconstruction, true.reconstruction, atol=1e-5)


def test_bundle_of_before_probes_is_added_to_with_a_note(
    write: WriteBundle, framed: Reference, tmp_path: Path
) -> None:
    write(tmp_path / "bundle", reference=replace(framed, probes=None), precisions=())
    bundle = load_bundle(tmp_path / "bundle")
    assert reference_from_bundle(bundle).probes is None
    assert any("no probe images" in note for note in bundle.manifest.verification[0].notes)


@pytest.mark.parametrize("size", BATCH_SIZES)
def test_fault_at_any_one_batch_size_is_seen(
    graphs: dict[Part, bytes], framed: Reference, size: int, tmp_path: Path
) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(graphs["encoder"])
    with open_file(path) as right:
        wrong = WrongAt(right.run, size)
        right.run = wrong  # type: ignore[method-assign]  # a runner that is wrong at one size
        # Enough images for a run at each size.
        repeated = framed.rows(np.arange(sum(BATCH_SIZES)) % len(framed.images))
        (mu, _), _ = encoder_reports(right, repeated, GraphKey("encoder", "fp16"))
    assert wrong.sizes == set(BATCH_SIZES)
    assert not mu.passed
    if size in probe_sizes(BATCH_SIZES):
        assert any(note.endswith(f"in batches of {size}") for note in mu.notes)


class WrongAt:
    """A real session's run, its mu doubled at one batch size."""

    def __init__(self, run: Callable[..., dict[str, np.ndarray]], size: int) -> None:
        self._run, self._size = run, size
        self.sizes: set[int] = set()

    def __call__(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        self.sizes.add(len(batch))
        found = dict(self._run(batch))
        return found | {"mu": found["mu"] * 2} if len(batch) == self._size else found


@pytest.mark.parametrize("count", [1, 3, 22, 24])
def test_every_run_has_one_of_the_sizes_and_every_row_comes_back(
    graphs: dict[Part, bytes], count: int, tmp_path: Path
) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(graphs["encoder"])
    inputs = input_from_pixels(coarse_images(SPEC, count)[:, None])
    with open_file(path) as backend:
        whole = backend.run(inputs)["mu"]
        seen = WrongAt(backend.run, 0)
        backend.run = seen  # type: ignore[method-assign]  # records the sizes
        found = run_in_batches(backend, inputs, 4)
        assert seen.sizes == {4}
    np.testing.assert_allclose(found["mu"], whole, atol=1e-5)
