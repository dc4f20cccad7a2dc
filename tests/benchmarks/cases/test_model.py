from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from motorvae.benchmarks.cases.model import graph_cases, training_cases
from motorvae.benchmarks.measure.case import Case
from motorvae.benchmarks.measure.roofline import cost_of
from motorvae.benchmarks.measure.rounds import RoundPlan
from motorvae.benchmarks.under_test.engines import engines_under_test, production
from motorvae.benchmarks.under_test.model_under_test import ModelUnderTest, random_model
from motorvae.runtime.bundle.graph_key import GraphKey, Part
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.errors import MeasurementError
from motorvae.runtime.core.spec import ModelSpec

SHORT = RoundPlan(samples=3, warmup=1, settle=0, turn=2)
STEPS = RoundPlan(samples=2, warmup=0, settle=0, turn=1)


def measured(
    tested: ModelUnderTest, graph: Part, batch: int = 1, *, leading: bool = False
) -> list[Case]:
    return graph_cases(
        tested,
        graph,
        batch,
        schedule=SHORT,
        seed=0,
        threads=1,
        leading=leading,
        skip_compile=True,
    )


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
@pytest.mark.parametrize("batch", [1, 3])
def test_engines_see_one_input_and_agree(tested: ModelUnderTest, graph: Part, batch: int) -> None:
    cases = measured(tested, graph, batch)
    ran = [case for case in cases if case.not_measured is None]
    assert len({case.input_sha256 for case in ran}) == 1
    assert {len(case.stages["run"].samples) for case in ran} == {3}
    assert {case.batch for case in cases} == {batch}
    assert [case.engine for case in cases][:3] == ["torch eager", "torch.compile", "ONNX Runtime"]
    assert cases[1].not_measured == "left out by --skip-compile or --quick"
    outputs = {"encoder": "mu and log_var", "decoder": "reconstruction"}[graph]
    installed, ours = (
        next(
            case
            for case in ran
            if (case.engine, case.variant, case.outputs) == ("ONNX Runtime", variant, outputs)
        )
        for variant in (None, "ours")
    )
    for case in (installed, ours):
        assert " and ".join(entry.output for entry in case.agreement) == outputs
        assert all(0 <= entry.max_difference <= entry.limit for entry in case.agreement)
    assert len({case.key for case in cases}) == len(cases)


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_every_graph_of_the_bundle_for_a_cpu_is_there(tested: ModelUnderTest, graph: Part) -> None:
    cases = measured(tested, graph)
    ours = [case for case in cases if (case.variant or "").startswith("ours")]
    second = {"encoder": "ours", "decoder": "ours, phases"}[graph]
    for engine in ("ONNX Runtime", "OpenVINO"):
        found = [(case.precision, case.variant) for case in ours if case.engine == engine]
        assert found == [("fp32", "ours"), ("fp32", second)]
    titles = [entry.title for entry in tested.bundle.manifest.graphs if entry.graph == graph]
    assert len(titles) == {"encoder": 2, "decoder": 3}[graph]  # one is for ONNX Runtime alone


def test_the_gate_is_measured_and_quotes_the_manifest(tested: ModelUnderTest) -> None:
    for graph in ("encoder", "decoder"):
        eager, _, _, _, *ours = measured(tested, graph)
        gates = [case.latent_error if graph == "encoder" else case.psnr for case in ours]
        assert eager.latent_error is None
        assert eager.psnr is None
        for case, gate in zip(ours, gates, strict=True):
            if case.not_measured is not None:
                continue
            assert gate is not None
            assert gate.passed
            assert case.notes
            assert all("the manifest" in note for note in case.notes)


def test_a_leading_batch_leaves_out_what_a_leaner_graph_beats(tested: ModelUnderTest) -> None:
    cases = measured(tested, "encoder", 2, leading=True)
    assert {case.engine for case in cases if case.variant is None} == {
        "torch eager",
        "ONNX Runtime",
    }
    assert {case.outputs for case in cases if case.variant == "ours"} == {"mu"}


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_engines_that_disagree_are_not_timed(tested: ModelUnderTest, graph: Part) -> None:
    mixed = dataclasses.replace(tested, model=random_model(tested.spec, seed=1))
    with pytest.raises(MeasurementError, match=r"ONNX Runtime.* and torch eager disagree on"):
        measured(mixed, graph)


def test_fp16_on_a_cpu_is_not_called_fp16(tested: ModelUnderTest, small_bundle: Path) -> None:
    bundle = load_bundle(small_bundle)
    entry = bundle.entry(GraphKey("encoder", "fp16"))
    engine = production(dataclasses.replace(tested, bundle=bundle), entry, "onnx")
    with (
        pytest.raises(MeasurementError, match="may compute FP16 graphs in float32"),
        engine.open(np.zeros((1, 1, 32, 32), np.float32)),
    ):
        pass


def test_a_case_costs_what_its_form_needs(tested: ModelUnderTest) -> None:
    cases = {
        one.planned.outputs: one.planned
        for one in engines_under_test(tested, "encoder", 1, threads=1)
        if one.planned.variant == "ours" and one.planned.engine == "ONNX Runtime"
    }
    both, mu = (cost_of(tested.spec, cases[name].graph) for name in ("mu and log_var", "mu"))
    head = tested.spec.flat_size * tested.spec.latent_size
    assert both.flops - mu.flops == 2 * head
    assert both.weight_bytes - mu.weight_bytes == 4 * (head + tested.spec.latent_size)


def test_both_ways_are_timed_where_the_processor_has_bf16(small_spec: ModelSpec) -> None:
    cases = training_cases(small_spec, 4, STEPS, has_bf16=True)
    assert [(case.precision, case.variant) for case in cases] == [
        ("fp32", None),
        ("bf16", "channels last"),
    ]
    assert [len(case.stages["step"].samples) for case in cases] == [2, 2]


def test_emulated_bf16_is_not_measured(small_spec: ModelSpec) -> None:
    plain, bf16 = training_cases(small_spec, 4, STEPS, has_bf16=False)
    assert len(plain.stages["step"].samples) == 2
    assert bf16.stages == {}
    assert "no bf16 arithmetic" in str(bf16.not_measured)
