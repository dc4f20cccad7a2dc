from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from motorvae.benchmarks.measure.case import Case
from motorvae.benchmarks.under_test.gate_metrics import DriftGate, announced
from motorvae.benchmarks.under_test.model_under_test import ModelUnderTest
from motorvae.export.verify.limits import LIMITS
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.engines.base import Arrays, Batch


def case(outputs: str, **facts: Any) -> Case:
    kind: dict[str, Any] = {"group": "encoder", "engine": "OpenVINO", "precision": "int8"}
    return Case(**kind, outputs=outputs, not_measured="not yet", **facts)


def test_an_encoder_is_held_to_its_spread(tested: ModelUnderTest) -> None:
    reference = tested.reference
    share = 2 * LIMITS["int8"].max_spread
    seen: list[Batch] = []

    def run(batch: Batch) -> Arrays:
        seen.append(batch)
        start = sum(map(len, seen[:-1]))
        return {"mu": reference.mu[start : start + len(batch)] + share * reference.scale}

    found = DriftGate(tested).of(case("mu", input_type="uint8"), run)
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

    found = DriftGate(tested).of(case("reconstruction"), run)
    assert found.psnr is not None
    assert found.psnr.value == pytest.approx(20, abs=0.01)
    assert not found.psnr.passed


def test_a_nan_never_passes(tested: ModelUnderTest) -> None:
    def run(batch: Batch) -> Arrays:
        return {"mu": np.full((len(batch), tested.spec.latent_size), np.nan, np.float32)}

    found = DriftGate(tested).of(case("mu"), run)
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
