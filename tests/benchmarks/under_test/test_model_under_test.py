from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from motorvae.benchmarks.measure.case import Case
from motorvae.benchmarks.under_test.model_under_test import (
    DriftGate,
    ModelUnderTest,
    agreement_with,
    announced,
)
from motorvae.export.verify.limits import LIMITS
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.core.errors import MeasurementError
from motorvae.runtime.engines.base import Arrays, Batch


def case(outputs: str, **facts: Any) -> Case:
    kind: dict[str, Any] = {"group": "encoder", "engine": "OpenVINO", "precision": "int8"}
    return Case(**kind, outputs=outputs, not_measured="not yet", **facts)


def gate_of(tested: ModelUnderTest) -> DriftGate:
    return DriftGate(tested.reference, tested.bundle.manifest)


def test_an_encoder_is_held_to_its_spread(tested: ModelUnderTest) -> None:
    reference = tested.reference
    share = 2 * LIMITS["int8"].max_spread
    seen: list[Batch] = []

    def run(batch: Batch) -> Arrays:
        seen.append(batch)
        start = sum(map(len, seen[:-1]))
        return {"mu": reference.mu[start : start + len(batch)] + share * reference.scale}

    found = gate_of(tested).judged(case("mu", input_type="uint8"), run)
    assert found.latent_error is not None
    assert found.latent_error.value == pytest.approx(share, rel=1e-3)
    assert not found.latent_error.passed
    assert found.psnr is None
    assert np.array_equal(np.concatenate(seen)[:, 0], reference.images)


def test_a_decoder_is_held_to_its_worst_image(tested: ModelUnderTest) -> None:
    reference = tested.reference
    images = reference.reconstruction.copy()
    images[3] += np.float32(0.1)  # 20 dB
    places = iter(range(0, len(images), 16))

    def run(batch: Batch) -> Arrays:
        start = next(places)
        return {"reconstruction": images[start : start + len(batch)]}

    found = gate_of(tested).judged(case("reconstruction"), run)
    assert found.psnr is not None
    assert found.psnr.value == pytest.approx(20, abs=0.01)
    assert not found.psnr.passed


def test_a_nan_never_passes(tested: ModelUnderTest) -> None:
    def run(batch: Batch) -> Arrays:
        return {"mu": np.full((len(batch), tested.spec.latent_size), np.nan, np.float32)}

    found = gate_of(tested).judged(case("mu"), run)
    assert found.latent_error is not None
    assert not found.latent_error.passed


def test_what_the_manifest_does_not_say_is_told(tested: ModelUnderTest) -> None:
    manifest = tested.bundle.manifest
    entry = tested.bundle.entry(GraphKey("encoder"))
    said = announced(manifest, entry)
    assert said[0].startswith("the manifest, ONNX Runtime ")
    assert all(": max error / spread over data " in clause for clause in said)
    assert all(clause.endswith("passed") for clause in said)
    silent = manifest.model_copy(update={"verification": ()})
    assert announced(silent, entry) == ("the manifest holds no verification of this graph",)


def test_the_limit_of_agreement_follows_the_spread_of_the_output() -> None:
    expected = {"mu": np.linspace(-1, 1, 64, dtype=np.float32)}
    near = {"mu": expected["mu"] + np.float32(3e-4)}
    (entry,) = agreement_with(expected, near, "an engine")
    assert entry.max_difference == pytest.approx(3e-4, rel=1e-3)
    assert entry.limit == pytest.approx(1e-3 * expected["mu"].std() + 1e-6)
    small = {"mu": expected["mu"] * np.float32(1e-2)}
    with pytest.raises(MeasurementError, match=r"largest difference 0\.0003"):
        agreement_with(small, {"mu": small["mu"] + np.float32(3e-4)}, "an engine")


def test_low_precision_may_drift_but_not_be_something_else() -> None:
    expected = {"mu": np.linspace(-1, 1, 64, dtype=np.float32), "log_var": np.ones(64, np.float32)}
    drifted = {"mu": expected["mu"] + np.float32(0.05)}
    with pytest.raises(MeasurementError, match="disagree on mu"):
        agreement_with(expected, drifted, "an engine")
    (entry,) = agreement_with(expected, drifted, "an engine", "int8")
    assert entry.output == "mu"  # the only one that it gives
    with pytest.raises(MeasurementError, match="disagree on mu"):
        agreement_with(expected, {"mu": -expected["mu"]}, "an engine", "int8")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_no_number_agrees_with_nothing(wrong: float) -> None:
    expected = {"mu": np.ones(4, np.float32)}
    with pytest.raises(MeasurementError, match="disagree on mu"):
        agreement_with(expected, {"mu": np.array([1, 1, 1, wrong], np.float32)}, "an engine")


def test_another_shape_is_refused() -> None:
    with pytest.raises(MeasurementError, match=r"shape \(2,\)"):
        agreement_with({"mu": np.ones(3, np.float32)}, {"mu": np.ones(2, np.float32)}, "an engine")
