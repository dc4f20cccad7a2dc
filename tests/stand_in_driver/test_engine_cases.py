"""What motorvae-bench run times of the engines that a bundle holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("psutil", reason="the benchmarks need psutil: make test-driver installs it")

from motorvae.benchmarks.cases.gpu import engine_cases
from motorvae.runtime.bundle.load import Bundle

from .test_engine_gate import reference

PARTS = ["wall", "device", "h2d", "compute", "d2h", "enqueue"]


@pytest.mark.usefixtures("package")
def test_every_engine_is_timed_and_gated_without_a_graph_and_with_one(forms: Bundle) -> None:
    *cases, other = engine_cases(forms, reference(), frames=30)
    assert [case.how for case in cases] == [
        f"TensorRT, {precision}, {part}, CUDA graph: {graph}"
        for part in ("encoder", "decoder")
        for precision in ("fp16", "int8")
        for graph in ("off", "copies and kernels")
    ]
    assert {case.status for case in cases} == {"measured"}
    for case in cases:
        recorded = case.how.endswith("copies and kernels")
        assert list(case.stages) == (["wall", "device", "enqueue"] if recorded else PARTS)
        is_encoder = case.variant == "encoder"
        # A decoder is run on the reference's latents and on those of its encoder.
        assert {len(taken.samples) for taken in case.stages.values()} == {30 if is_encoder else 60}
        assert case.equals_graph_off is (True if recorded and is_encoder else None)
        assert (case.latent_error is None, case.psnr is None) == (not is_encoder, is_encoder)
    assert (other.engine, other.not_measured) == ("TensorRT-RTX", "no engine in the bundle")


@pytest.mark.usefixtures("package")
def test_an_engine_that_drifts_has_no_time(forms: Bundle) -> None:
    right = reference()
    cases = engine_cases(forms, replace(right, mu=right.mu + 1), frames=30)
    encoders = [case for case in cases if case.variant == "encoder"]
    assert {case.status for case in encoders} == {"drifted"}
    assert not any(case.stages for case in encoders)
    assert all("drifted: encoder" in (case.not_measured or "") for case in encoders)
