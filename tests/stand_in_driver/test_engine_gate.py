"""Finished engines held to the gate on the stand-in driver, each form of a graph by itself."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from motorvae.export.tensorrt.add_engines import verify_engines
from motorvae.export.tensorrt.build import BuiltEngine, EngineBuildRequest
from motorvae.export.verify.reference import Reference, Spread
from motorvae.runtime.bundle.graph_key import GraphKey, Precision
from motorvae.runtime.bundle.load import Bundle
from motorvae.runtime.bundle.manifest import GraphReport
from motorvae.runtime.core.errors import EngineError, VerificationError
from motorvae.runtime.engines.gpu_info import Gpu
from motorvae.runtime.engines.tensorrt.engine_manifest import BatchProfile, EngineVerification
from motorvae.runtime.engines.tensorrt.package import TensorRTPackage

if TYPE_CHECKING:
    from .conftest import StandIn

from .engine_bundles import plan_of, report_all_in


def reference() -> Reference:
    """What the stand-in's engines answer: the first values of the image, and the latent itself.

    The bytes of these images are floats, too: four of them are a pixel's value over 255, nearly.
    So an engine that takes bytes gives what one gives that takes floats.
    """
    images = np.random.default_rng(3).integers(0, 256, (20, 1024), np.uint8)
    for place in range(16):
        value = images[:, place].astype(np.float32) / np.float32(255)
        images[:, 4 * place + 2 : 4 * place + 4] = value.view(np.uint8).reshape(20, 4)[:, 2:]
    values = images.astype(np.float32) / np.float32(255)
    return Reference(
        name="the images themselves",
        images=images.reshape(20, 32, 32),
        mu=values[:, :8].copy(),
        log_var=values[:, 8:16].copy(),
        reconstruction=values[:, :8].reshape(20, 1, 2, 4).copy(),
        spread=Spread(mu=np.ones(8), log_var=np.ones(8)),
    )


def verdicts(
    bundle: Bundle,
    package: TensorRTPackage,
    gpu: Gpu,
    held_against: Reference,
    seen: list[GraphReport],
    *,
    precision: Precision = "fp16",
) -> list[EngineVerification]:
    """Hold the engines of a bundle in one precision against a reference."""
    built = [
        (entry, BuiltEngine(plan_of(entry), report_all_in(precision), ("8.9",), 0, 1.0))
        for entry in bundle.manifest.graphs
        if entry.precision == precision
    ]
    request = EngineBuildRequest(package, gpu, precision, BatchProfile())
    return verify_engines(built, request, held_against, on_reports=seen.extend)


def test_engines_that_answer_as_the_reference_pass_the_gate(
    bundle: Bundle, package: TensorRTPackage, gpu: Gpu, stand_in: StandIn
) -> None:
    seen: list[GraphReport] = []
    found = verdicts(bundle, package, gpu, reference(), seen)
    assert [verdict.verified for verdict in found] == [True, True]
    outputs = [report.output for verdict in found for report in verdict.reports]
    assert outputs == ["mu", "log_var"] * 3 + ["reconstruction"] * 3
    # The batch that streams, the largest, and one between.
    sizes = [report.engine.rpartition(", batch ")[2] for report in seen]
    assert sizes == ["1", "1", "4", "4", "8", "8", "1", "4", "8"]
    assert all(report.engine.startswith("TensorRT 10.3.0 on ") for report in seen)
    assert {report.images for report in seen} == {20}
    assert stand_in.live() == {}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_every_form_is_held_to_the_gate_by_itself(
    forms: Bundle, package: TensorRTPackage, gpu: Gpu, stand_in: StandIn, precision: Precision
) -> None:
    seen: list[GraphReport] = []
    found = verdicts(forms, package, gpu, reference(), seen, precision=precision)
    assert all(verdict.verified for verdict in found)
    named = [(report.graph, report.variant, report.output) for report in seen]
    at_each_size = [
        *(("encoder", "full", output) for output in ("mu", "log_var") * 3),
        *(("encoder", "luma", output) for output in ("mu", "log_var") * 3),
        *(("encoder", "mu", output) for output in ("mu",) * 3),
        *(("decoder", "full", output) for output in ("reconstruction",) * 3),
    ]
    assert named == (at_each_size if precision == "fp16" else at_each_size[6:])
    assert {report.made_for for report in seen} == {None if precision == "fp16" else "tensorrt"}
    assert {report.precision for report in seen} == {precision}
    assert stand_in.live() == {}


@pytest.mark.parametrize("field", ["mu", "log_var", "reconstruction"])
def test_engine_that_drifted_is_not_kept(
    bundle: Bundle, package: TensorRTPackage, gpu: Gpu, stand_in: StandIn, field: str
) -> None:
    true = reference()
    drifted = getattr(true, field).copy()
    drifted[7] += 0.2
    seen: list[GraphReport] = []
    changed = dataclasses.replace(true, **{field: drifted})
    with pytest.raises(VerificationError, match=f"no engine was kept: .* {field}: "):
        verdicts(bundle, package, gpu, changed, seen)
    assert len(seen) == 9
    assert stand_in.live() == {}


def test_form_that_drifted_alone_is_named(
    forms: Bundle, package: TensorRTPackage, gpu: Gpu
) -> None:
    """Bytes that mean other floats leave the engine that takes floats as it is."""
    true = reference()
    images = true.images.copy().reshape(20, -1)
    images[:, 8 * 4 + 2] ^= 0x80  # as bytes, log_var's first value is twice as large, or half
    changed = dataclasses.replace(true, images=images.reshape(20, 32, 32))
    with pytest.raises(VerificationError) as caught:
        verdicts(forms, package, gpu, changed, [])
    assert "encoder fp16 luma log_var: " in str(caught.value)
    assert "encoder fp16 log_var: " not in str(caught.value)
    assert " mu mu: " not in str(caught.value)


def test_engine_with_other_tensors_than_its_graph_is_refused(
    forms: Bundle, package: TensorRTPackage, gpu: Gpu
) -> None:
    luma, mu = (forms.entry(GraphKey("encoder", "fp16", form)) for form in ("luma", "mu"))  # type: ignore[arg-type]
    swapped = BuiltEngine(plan_of(mu), report_all_in("fp16"), ("8.9",), 0, 1.0)
    request = EngineBuildRequest(package, gpu, "fp16", BatchProfile())
    with pytest.raises(EngineError, match=r"encoder\.luma\.fp16\.tensorrt\.engine has .*log_var"):
        verify_engines([(luma, swapped)], request, reference(), on_reports=lambda _: None)
