from __future__ import annotations

from motorvae.benchmarks.cases.training import training_cases
from motorvae.benchmarks.measure.rounds import RoundPlan
from motorvae.runtime.core.spec import ModelSpec

SCHEDULE = RoundPlan(samples=2, warmup=0, settle=0, turn=1)


def test_both_ways_are_timed_where_the_processor_has_bf16(small_spec: ModelSpec) -> None:
    cases = training_cases(small_spec, 4, SCHEDULE, has_bf16=True)
    assert [(case.precision, case.variant) for case in cases] == [
        ("fp32", None),
        ("bf16", "channels last"),
    ]
    assert [len(case.stages["step"].samples) for case in cases] == [2, 2]


def test_emulated_bf16_is_not_measured(small_spec: ModelSpec) -> None:
    plain, bf16 = training_cases(small_spec, 4, SCHEDULE, has_bf16=False)
    assert len(plain.stages["step"].samples) == 2
    assert bf16.stages == {}
    assert "no bf16 arithmetic" in str(bf16.not_measured)
