from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motorvae.export.verify.batches import BATCH_SIZE, BATCH_SIZES
from motorvae.export.verify.limits import LIMITS
from motorvae.export.verify.metrics import IMAGE_METRIC, LATENT_METRIC
from motorvae.export.verify.reference import Reference
from motorvae.export.verify.verifier import Verifier
from motorvae.runtime.bundle.graph_key import GraphKey, Part
from motorvae.runtime.core.errors import BackendError, VerificationError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.open import GraphFile, open_engine
from motorvae.runtime.engines.tensorrt.engine_manifest import BatchProfile

from ..conftest import SPEC

ENCODER, DECODER = GraphKey("encoder"), GraphKey("decoder")


class ByHand:
    """A graph that answers from a list, image by image, and notes the sizes of its batches."""

    name, input_dtype = "by hand", np.dtype(np.uint8)

    def __init__(self, reference: Reference, *, off: float = 0.0) -> None:
        self._keys = [image.tobytes() for image in reference.images]
        self._mu = reference.mu + np.float32(off) * reference.scale.astype(np.float32)
        self.sizes: list[int] = []

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        self.sizes.append(len(batch))
        rows = [self._keys.index(image.tobytes()) for image in batch[:, 0]]
        return {"mu": self._mu[rows]}


@pytest.fixture
def files(graphs: dict[Part, bytes], tmp_path: Path) -> dict[Part, GraphFile]:
    for part, content in graphs.items():
        (tmp_path / f"{part}.onnx").write_bytes(content)
    return {part: GraphFile(tmp_path / f"{part}.onnx", SPEC) for part in graphs}


def through_both(verifier: Verifier, files: dict[Part, GraphFile]) -> float:
    (report,) = verifier.verify_file(DECODER, files["decoder"])
    return next(m.value for m in report.metrics if m.name == "PSNR through both graphs")


def test_a_decoder_decodes_what_the_encoder_of_its_precision_gave(
    reference: Reference, files: dict[Part, GraphFile]
) -> None:
    verifier = Verifier(reference)
    reports = verifier.verify_file(ENCODER, files["encoder"])
    assert [report.output for report in reports] == ["mu", "log_var"]
    assert all(report.passed and report.key == ENCODER for report in reports)
    np.testing.assert_allclose(verifier.encoded(ENCODER), reference.mu, atol=1e-4)
    right = through_both(verifier, files)
    verifier.take_encoded(ENCODER, reference.mu[::-1].copy())
    assert through_both(verifier, files) < right - 20


def test_a_decoder_before_its_encoder_is_refused(
    reference: Reference, files: dict[Part, GraphFile]
) -> None:
    verifier = Verifier(reference)
    verifier.take_encoded(GraphKey("encoder", "fp16"), reference.mu)
    with pytest.raises(VerificationError, match="decoder fp32: no encoder of its precision"):
        verifier.verify_file(DECODER, files["decoder"])


def test_what_is_made_for_one_engine_decodes_what_is_made_for_all(reference: Reference) -> None:
    verifier = Verifier(reference)
    verifier.take_encoded(ENCODER, reference.mu)
    other = -reference.mu
    verifier.take_encoded(replace(ENCODER, target="onnx"), other)
    assert verifier.encoded(replace(DECODER, target="tensorrt")) is reference.mu
    assert verifier.encoded(replace(DECODER, target="onnx")) is other


def test_a_file_of_another_variant_is_refused(
    reference: Reference, files: dict[Part, GraphFile]
) -> None:
    with pytest.raises(BackendError, match="and the manifest announces"):
        Verifier(reference).verify_file(replace(ENCODER, variant="mu"), files["encoder"])


def test_batch_sizes_take_turns_or_have_reports_of_their_own(reference: Reference) -> None:
    alone = replace(reference, probes=None)
    key = GraphKey("encoder", "int8", "mu", "tensorrt")
    engine = ByHand(reference)
    (report,) = Verifier(alone, notes=["a note"]).verify(key, engine, note=", not TensorRT")
    assert engine.sizes == [*BATCH_SIZES[: len(engine.sizes)]]
    assert (report.engine, report.notes[-1]) == ("by hand, not TensorRT", "a note")
    engine = ByHand(reference)
    reports = Verifier.of_engines(alone, BatchProfile(min=1, opt=2, max=8)).verify(key, engine)
    assert [report.engine for report in reports] == [
        f"by hand, batch {size}" for size in (1, 2, 4, 8)
    ]
    assert set(engine.sizes) == {1, 2, 4, 8}
    engine = ByHand(reference)
    (report,) = Verifier.of_frames(reference, 5).verify(key, engine)
    assert (engine.sizes, report.images, report.engine) == ([1] * 5, 5, "by hand")


def test_some_rows_are_judged_with_what_was_encoded_of_them(reference: Reference) -> None:
    verifier = Verifier(reference)
    verifier.take_encoded(ENCODER, reference.mu)
    part = verifier.rows(slice(None, None, 3))
    np.testing.assert_array_equal(part.reference.images, reference.images[::3])
    np.testing.assert_array_equal(part.encoded(DECODER), reference.mu[::3])


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_the_one_figure_that_engines_are_compared_by(reference: Reference, factor: float) -> None:
    limit = LIMITS["int8"].max_spread
    engine = ByHand(reference, off=factor * limit)
    found = Verifier(reference).worst(GraphKey("encoder", "int8"), engine)
    assert found.value == pytest.approx(factor * limit, rel=1e-3)
    assert (found.name, found.limit, found.bound) == (LATENT_METRIC, limit, None)
    assert found.passed == (factor < 1)
    assert set(engine.sizes) == {BATCH_SIZE}


def test_of_a_decoder_it_is_the_worst_image(
    reference: Reference, files: dict[Part, GraphFile]
) -> None:
    noisy = reference.reconstruction[:] + np.float32(0)
    noisy[3] += np.float32(0.1)
    with open_engine(files["decoder"], DECODER) as backend:
        found = Verifier(replace(reference, reconstruction=noisy)).worst(DECODER, backend)
    assert (found.name, found.passed) == (IMAGE_METRIC, False)
    assert found.value == pytest.approx(20, abs=0.01)


def test_sizes_of_another_model_are_refused(
    reference: Reference, files: dict[Part, GraphFile]
) -> None:
    other = GraphFile(files["encoder"].path, ModelSpec(image_size=64))
    with pytest.raises(BackendError, match="and the manifest announces"):
        Verifier(reference).verify_file(ENCODER, other)
