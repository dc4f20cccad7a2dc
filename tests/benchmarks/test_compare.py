from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from motorvae.benchmarks.compare import (
    LEAST_FOR_P90,
    LEAST_FOR_P99,
    LEAST_TURNS,
    change_of,
    check_regressions,
    compare_results,
    interval_of_ratio,
    print_comparison,
)
from motorvae.benchmarks.measure.case import Case, Unit, samples_of
from motorvae.benchmarks.measure.energy import Energy, Window
from motorvae.benchmarks.measure.result import Result
from motorvae.benchmarks.measure.rounds import RoundPlan
from motorvae.benchmarks.options import RunOptions
from motorvae.benchmarks.run import round_plan
from motorvae.runtime.bundle.manifest import Metric
from motorvae.runtime.core.documents import save_document
from motorvae.runtime.core.errors import MeasurementError
from motorvae.runtime.core.spec import StrictModel

BLOCK = 4
BLOCKS = (BLOCK, BLOCK)
SAMPLES = st.lists(st.integers(10**5, 10**8), min_size=LEAST_TURNS * BLOCK, max_size=60)


@settings(max_examples=25, deadline=None)
@given(SAMPLES)
def test_a_series_does_not_differ_from_itself(samples: list[int]) -> None:
    series = samples_of(samples)
    change = change_of("it", series, series, BLOCKS, 0.0)
    assert change.ratio == 1
    assert change.interval is not None
    assert change.interval.low <= 1 <= change.interval.high
    assert change.verdict not in {"slower", "larger"}


@settings(max_examples=25, deadline=None)
@given(SAMPLES, st.integers(2, 1000))
def test_a_scaled_series_has_that_ratio(samples: list[int], scale: int) -> None:
    slow = samples_of([scale * sample for sample in samples])
    change = change_of("it", samples_of(samples), slow, BLOCKS, 0.0)
    assert change.ratio == pytest.approx(scale, rel=1e-12)
    assert change.interval is not None
    assert change.interval.low <= scale * (1 + 1e-12)
    assert change.interval.high >= scale * (1 - 1e-12)


@settings(max_examples=25, deadline=None)
@given(SAMPLES, SAMPLES)
def test_the_interval_spans_what_resampling_can_reach(one: list[int], other: list[int]) -> None:
    found = interval_of_ratio(one, other, BLOCKS)
    assert found is not None
    assert min(other) / max(one) <= found.low <= found.high <= max(other) / min(one)
    assert found == interval_of_ratio(one, other, BLOCKS)


def test_samples_that_go_up_and_down_in_turns_are_not_taken_for_independent() -> None:
    random = np.random.default_rng(3)
    levels = np.repeat(random.normal(10**7, 10**6, 20), 10)
    samples = [int(value) for value in levels + random.normal(0, 10**4, 200)]
    whole_turns = interval_of_ratio(samples, samples, (10, 10))
    as_if_independent = interval_of_ratio(samples, samples, (1, 1))
    assert whole_turns is not None
    assert as_if_independent is not None
    widths = [found.high - found.low for found in (whole_turns, as_if_independent)]
    assert widths[0] > 1.5 * widths[1]


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    hits = 0
    for _ in range(60):
        runs = [
            np.repeat(random.lognormal(16, 0.05, 20), 10) * random.lognormal(0, 0.02, 200)
            for _ in range(2)
        ]
        found = interval_of_ratio(*([int(value) for value in run] for run in runs), (10, 10))
        assert found is not None
        hits += found.low <= 1 <= found.high
    assert hits >= 51  # 95 % of 60 are 57; fewer than 51 come by chance once in 100 times


def test_too_few_turns_have_no_interval() -> None:
    samples = [10**6 + place for place in range(2 * BLOCK)]
    slow = samples_of([2 * sample for sample in samples])
    change = change_of("it", samples_of(samples), slow, BLOCKS, 0.05)
    assert (change.interval, change.verdict, change.ratio) == (None, "unclear", 2)


@pytest.mark.parametrize(
    ("scale", "unit", "verdict"),
    [
        (1.2, "ns", "slower"),
        (0.8, "ns", "faster"),
        (1.0, "ns", "same"),
        (1.05, "ns", "unclear"),
        (1.2, "bytes", "larger"),
        (0.8, "bytes", "smaller"),
    ],
)
def test_the_whole_interval_decides(scale: float, unit: Unit, verdict: str) -> None:
    random = np.random.default_rng(1)
    samples = random.normal(10**7, 10**5, 200)
    one = samples_of([int(sample) for sample in samples], unit)
    other = samples_of([int(scale * sample) for sample in samples], unit)
    assert change_of("it", one, other, (10, 10), 0.05).verdict == verdict


def test_tails_are_compared_where_they_are_more_than_a_few_outliers() -> None:
    fewest, enough = (samples_of(range(1, n)) for n in (LEAST_FOR_P90, LEAST_FOR_P90 + 1))
    assert change_of("it", fewest, enough, (10, 10), 0.05).p90_ratio is None
    doubled = samples_of([2 * sample for sample in enough.samples])
    assert change_of("it", enough, doubled, (10, 10), 0.05).p90_ratio == 2
    few = samples_of(range(1, LEAST_FOR_P99))
    many = samples_of(range(1, LEAST_FOR_P99 + 1))
    assert change_of("it", few, many, (10, 10), 0.05).p99_ratio is None
    assert change_of("it", many, many, (10, 10), 0.05).p99_ratio == 1


def with_energy(result: Result, microjoules: int) -> Result:
    """Its first case with so much energy for 100 latents, by one sensor."""
    window = Window(duration_ns=10**9, latents=100, microjoules=microjoules)
    first, *others = result.cases
    energy = (
        Energy(sensor="psys", not_measured="no change"),
        Energy(sensor="package-0", windows=(window,)),
    )
    return result.model_copy(update={"cases": (first.with_facts(energy=energy), *others)})


def test_joules_are_compared_by_the_sensor_that_both_have(
    result: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = with_energy(result, 2_000_000), with_energy(result, 3_000_000)
    found = compare_results(before, after, 0.05)
    assert [dict(change.energy_ratios) for change in found.changes] == [
        {"package-0": 1.5},
        *({},) * (len(found.changes) - 1),
    ]
    print_comparison(Console(width=120), found)
    shown = capsys.readouterr().out
    assert "mJ" in shown
    assert "1.500" in shown
    found = compare_results(result, after, 0.05)
    assert not any(change.energy_ratios for change in found.changes)


def changed(result: Result, part: str, **facts: object) -> Result:
    inner: StrictModel = getattr(result, part)
    return result.model_copy(update={part: inner.model_copy(update=facts)})


UNLIKE: dict[str, tuple[Callable[[Result], Result], str]] = {
    "processor": (
        lambda r: changed(r, "environment", cpu="Another"),
        "processor A processor before, Another after",
    ),
    "instruction set": (
        lambda r: changed(r, "environment", machine="aarch64"),
        "instruction set x86_64 before, aarch64 after",
    ),
    "cores": (
        lambda r: changed(r, "environment", cores=None),
        "physical cores 2 before, none after",
    ),
    "image size": (
        lambda r: changed(r, "model", image_size=64),
        "model image_size 32 before, 64 after",
    ),
}


@pytest.mark.parametrize(("change", "message"), UNLIKE.values(), ids=UNLIKE)
def test_results_of_two_machines_or_models_are_refused(
    result: Result, change: Callable[[Result], Result], message: str
) -> None:
    with pytest.raises(MeasurementError, match="cannot be compared, as these differ") as caught:
        compare_results(result, change(result), 0.05)
    assert message in str(caught.value)
    assert str(caught.value).endswith("measure both on one machine with the same options")


CONDITIONS: dict[str, tuple[dict[str, object], str]] = {
    "cores": ({"usable_cores": 4}, "usable cores 2 before, 4 after"),
    "GPU": ({"gpu": "A GPU"}, "GPU none before, A GPU after"),
    "governor": ({"governor": "powersave"}, "CPU governor none before, powersave after"),
    "power mode": ({"power_mode": "15W"}, "power mode none before, 15W after"),
    "threads": ({"threads": {"torch": 1}}, "threads of torch 2 before, 1 after"),
}


@pytest.mark.parametrize(("facts", "message"), CONDITIONS.values(), ids=CONDITIONS)
def test_under_other_conditions_ratios_are_shown_and_are_no_success(
    result: Result, facts: dict[str, object], message: str
) -> None:
    found = compare_results(result, changed(result, "environment", **facts), 0.05)
    assert found.unlike == (message,)
    assert {change.verdict for change in found.changes} == {"unclear"}
    assert {change.ratio for change in found.changes} == {1}
    with pytest.raises(MeasurementError, match="the ratios may come from that: measure") as caught:
        check_regressions(found)
    assert message in str(caught.value)


SETTINGS: dict[str, tuple[dict[str, object], str]] = {
    "weights": (
        {"weights_sha256": "cd" * 32},
        "weights abababababab before, cdcdcdcdcdcd after",
    ),
    "seed": ({"seed": 1}, "seed 0 before, 1 after"),
    "quick": ({"quick": True}, "quick False before, True after"),
    "schedule": (
        {"schedule": RoundPlan(samples=20, turn=5)},
        "schedule turn 10 before, 5 after",
    ),
    "training": (
        {"training_schedule": RoundPlan(samples=3)},
        "training steps none before, 3 after",
    ),
}


@pytest.mark.parametrize(("facts", "message"), SETTINGS.values(), ids=SETTINGS)
def test_other_settings_are_named_and_cases_compared_all_the_same(
    result: Result, facts: dict[str, object], message: str
) -> None:
    before = scaled(result, 1)
    found = compare_results(before, changed(before, "settings", **facts), 0.05)
    assert found.notes == (message,)
    assert len(found.changes) == sum(case.whole is not None for case in result.cases)
    check_regressions(found)


def test_two_quick_runs_can_be_judged(result: Result) -> None:
    """With two turns of each case no interval could be given, and so no comparison succeeded."""
    schedule = round_plan(RunOptions(quick=True, untrained=True))
    cases = tuple(
        case.timed({"run": [5_000_000] * schedule.samples}, turn=schedule.turn)
        for case in result.cases[:1]
    )
    quick = changed(result.model_copy(update={"cases": cases}), "settings", quick=True)
    found = compare_results(quick, quick, 0.05)
    assert [change.verdict for change in found.changes] == ["same"]
    check_regressions(found)


def test_packages_may_differ_and_are_listed(result: Result) -> None:
    other = changed(result, "environment", versions={"torch": "2.14.0", "openvino": "2026.4.1"})
    assert compare_results(result, other, 0.05).notes == (
        "torch 2.13.0 before, 2.14.0 after",
        "openvino none before, 2026.4.1 after",
    )


def test_cases_of_only_one_result_are_listed(result: Result) -> None:
    first, absent, *others = result.cases
    moved = Case(**{**dict(first), "batch": 2})
    measured = absent.model_copy(update={"not_measured": None, "stages": first.stages})
    path = others[1].model_copy(update={"input_sha256": "cd" * 32})
    cases = (moved, measured, others[0], path, *others[2:])
    found = compare_results(result, result.model_copy(update={"cases": cases}), 0.05)
    assert [change.key for change in found.changes] == [others[0].key, others[2].key]
    assert found.notes == (
        "only after: encoder, batch 2, torch eager",
        "only after: encoder, batch 1, torch.compile: not measured before: no compiler",
        f"not compared, as the inputs differ: {path.key}",
        "only before: encoder, batch 1, torch eager",
    )


def test_what_no_longer_runs_or_passes_is_no_success(result: Result) -> None:
    first, *others = result.cases
    gone = first.model_copy(update={"not_measured": "does not open", "stages": {}})
    found = compare_results(result, result.model_copy(update={"cases": (gone, *others)}), 0.05)
    with pytest.raises(MeasurementError, match=r"no longer good: .*torch eager: does not open"):
        check_regressions(found)
    limit = Metric(name="max error / spread over data", value=9.0, limit=0.1, passed=False)
    wrong = first.model_copy(update={"latent_error": limit})
    found = compare_results(result, result.model_copy(update={"cases": (wrong, *others)}), 0.05)
    with pytest.raises(MeasurementError, match="torch eager: past the limit of its drift gate"):
        check_regressions(found)


def test_a_comparison_that_can_judge_nothing_is_no_success(result: Result) -> None:
    cases = tuple(
        case.model_copy(update={"stages": {"run": samples_of([5, 6, 7])}})
        for case in result.cases
        if case.whole is not None
    )
    few = result.model_copy(update={"cases": cases})
    with pytest.raises(MeasurementError, match="cases could be judged, each has fewer than"):
        check_regressions(compare_results(few, few, 0.05))


def test_nothing_in_common_is_an_error(result: Result) -> None:
    nothing = result.model_copy(update={"cases": ()})
    with pytest.raises(MeasurementError, match="share no measured case"):
        compare_results(result, nothing, 0.05)


def scaled(result: Result, scale: float) -> Result:
    """The same, with 200 samples of each case, the encoder's first slowed down."""
    cases = []
    for place, case in enumerate(result.cases):
        factor = scale if place == 0 else 1
        stages = {
            stage: samples_of([round(factor * sample) for sample in series.samples * 10])
            for stage, series in case.stages.items()
        }
        cases.append(case.model_copy(update={"stages": stages}))
    return result.model_copy(update={"cases": tuple(cases)})


def compare(*args: object) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).parent / "motorvae-bench"
    return subprocess.run(
        [str(script), "compare", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"COLUMNS": "160"},
    )


def test_a_regression_ends_with_exit_code_1_and_names_the_case(
    result: Result, tmp_path: Path
) -> None:
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    save_document(before, scaled(result, 1))
    save_document(after, scaled(result, 1.5))
    worse = compare(before, after)
    assert worse.returncode == 1, worse.stderr
    assert worse.stderr == (
        "motorvae-bench: worse by more than 5.0%: encoder, batch 1, torch eager (1.50 times); look "
        "for the cause, or allow more with --tolerance\n"
    )
    (line,) = (
        line for line in worse.stdout.splitlines() if "torch eager" in line and "1.5" in line
    )
    assert line.split()[-1] == "slower"

    allowed = compare(before, after, "--tolerance", 0.6)
    assert (allowed.returncode, allowed.stderr) == (0, "")
    better = compare(after, before)
    assert (better.returncode, better.stderr) == (0, "")
    assert "faster" in better.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("none.json", "none.json"), "cannot read none.json"),
        (("none.json", "none.json", "--tolerance", -0.1), "--tolerance -0.1: take 0 or more"),
    ],
)
def test_what_cannot_be_compared_is_one_line(args: tuple[object, ...], message: str) -> None:
    done = compare(*args)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
