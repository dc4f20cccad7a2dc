"""What each kind of evidence proves, and above all what it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from motorvae.benchmarks.cases.gpu import planned_cases
from motorvae.benchmarks.measure.case import Case
from motorvae.benchmarks.measure.result import (
    GpuRates,
    Result,
    environment_now,
    load_now,
    load_result,
)
from motorvae.benchmarks.proof.evidence import (
    by_exit_code,
    by_exit_code_or_not,
    of_doctor,
    of_pytest,
    of_rates,
    of_stream,
    of_training,
    read_evidence,
)
from motorvae.benchmarks.proof.process import Ended
from motorvae.benchmarks.proof.record import Row
from motorvae.runtime.core.documents import save_document

OVER = Ended(0, 1.0, "it is over")
EXIT_1 = Ended(1, 1.0, "something failed")
KILLED = Ended(-9, 1.0, "so far")
LATE = Ended(None, 60.0, "so far", at_limit=True)

PASSES, FAILS = "def test_one(): pass\n", "def test_two(): assert 0, 'it drifted'\n"
SKIPS = "import pytest\n@pytest.mark.skip(reason='no GPU here')\ndef test_three(): pass\n"
ERRS = (
    "import pytest\n@pytest.fixture\ndef gone(): raise OSError('gone')\ndef test_four(gone): pass\n"
)


def pytest_rows(source: str, folder: Path, *args: str) -> list[Row]:
    """Run a real pytest on some tests, and read its report."""
    (folder / "test_it.py").write_text(source, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    done = subprocess.run(
        [*command, "--junitxml=report.xml", "test_it.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    last = done.stdout.strip().splitlines()[-1]
    ended = Ended(done.returncode, 1.0, last)
    return [*read_evidence(of_pytest("report.xml"), "the tests", ended, folder)]


def test_passed_tests_prove_and_skipped_ones_stay_open(tmp_path: Path) -> None:
    passed, skipped = pytest_rows(PASSES + SKIPS, tmp_path)
    assert (passed.status, passed.note) == ("proven", "1 tests passed")
    assert (skipped.status, skipped.reason) == ("unproven", "no GPU here")
    assert skipped.what == "the tests: 1 test skipped"


def test_tests_that_were_all_skipped_prove_nothing(tmp_path: Path) -> None:
    (row,) = pytest_rows(SKIPS, tmp_path)
    assert (row.status, row.reason) == ("unproven", "no test ran: no GPU here")


@pytest.mark.parametrize(("source", "args"), [("", ()), (PASSES, ("-k", "nothing"))])
def test_no_test_at_all_proves_nothing(source: str, args: tuple[str, ...], tmp_path: Path) -> None:
    (row,) = pytest_rows(source, tmp_path, *args)
    assert row.status == "unproven"
    assert (row.reason or "").startswith("no test ran: ")


@pytest.mark.parametrize(("source", "says"), [(FAILS, "it drifted"), (ERRS, "gone")])
def test_one_failed_test_outweighs_those_that_passed(
    source: str, says: str, tmp_path: Path
) -> None:
    (row,) = pytest_rows(PASSES + source, tmp_path)
    assert row.status == "failed"
    assert (row.reason or "").startswith("1 of 2 tests failed, such as test_")
    assert says in (row.reason or "")


def test_a_file_that_cannot_be_imported_is_a_failure(tmp_path: Path) -> None:
    (row,) = pytest_rows("import none_of_these\n", tmp_path)
    assert row.status == "failed"


def test_a_report_of_a_pytest_that_was_killed_counts_for_nothing(tmp_path: Path) -> None:
    pytest_rows(PASSES, tmp_path)
    for ended in (KILLED, LATE, Ended(2, 1.0, "interrupted")):
        (row,) = read_evidence(of_pytest("report.xml"), "the tests", ended, tmp_path)
        assert row.status == "failed"
        assert (row.reason or "").startswith(ended.words)


def test_a_report_that_is_damaged_or_missing_is_no_proof(tmp_path: Path) -> None:
    (row,) = read_evidence(of_pytest("report.xml"), "the tests", OVER, tmp_path)
    assert (row.status, row.reason) == ("unproven", "no test report")
    (tmp_path / "report.xml").write_text("<testsuites><testcase", encoding="utf-8")
    (row,) = read_evidence(of_pytest("report.xml"), "the tests", OVER, tmp_path)
    assert row.status == "failed"
    assert "report.xml is no JUnit report" in (row.reason or "")


def doctors_json(path: Path, cases: list[Case]) -> None:
    from motorvae.benchmarks.measure.result import GpuFacts, Settings
    from motorvae.benchmarks.measure.rounds import RoundPlan
    from motorvae.runtime.core.spec import ModelSpec

    gpu = GpuFacts(
        name="A GPU of a test",
        compute_capability="8.9",
        cuda="13.0",
        driver=None,
        memory_bytes=1,
        integrated=False,
        machine=None,
        power_start=(),
        power_end=(),
        engines=(),
    )
    result = Result(
        created="2026-11-29T10:00:00+00:00",
        command="motorvae-doctor gpu",
        model=ModelSpec(),
        settings=Settings(weights_sha256="ab" * 32, schedule=RoundPlan(samples=3)),
        environment=environment_now(threads={}, load_start=load_now()),
        gpu=gpu,
        cases=tuple(cases),
    )
    save_document(path, result)
    assert len(load_result(path).cases) == len(cases)


@pytest.fixture
def cases() -> list[Case]:
    """One that was measured, one that drifted, one with a reason, and one that was not reached."""
    from motorvae.runtime.bundle.manifest import GraphReport, Metric

    def gate(value: float) -> tuple[GraphReport, ...]:
        metric = Metric(name="max error / spread", value=value, limit=0.05, passed=value <= 0.05)
        facts: dict[str, Any] = {"graph": "encoder", "precision": "fp32", "output": "mu"}
        return (
            GraphReport(
                **facts, engine="an engine", reference="torch", images=3, metrics=(metric,)
            ),
        )

    first, second, third, fourth, *_ = (group[0].case for group in planned_cases())
    taken = {"wall": (2_000_000,) * 3, "compute": (500_000,) * 3}
    return [
        first.timed(taken, gate=gate(0.01), name="an engine", equals_graph_off=True),
        second.with_facts(gate=gate(0.9), not_measured="drifted: mu"),
        third.without("no such graph in the bundle"),
        fourth,
    ]


def test_each_case_of_the_doctor_is_a_row(cases: list[Case], tmp_path: Path) -> None:
    doctors_json(tmp_path / "doctor.json", cases)
    *rows, energy = read_evidence(of_doctor("doctor.json"), "engines", EXIT_1, tmp_path)
    assert [row.status for row in rows] == ["proven", "failed", "unproven", "unproven"]
    assert (energy.what, energy.status) == ("engines: energy for each latent", "unproven")
    assert energy.reason == "no case has energy of a GPU: no sensor of one was found"
    assert rows[0].figures == {"wall_p50_ms": 2.0, "wall_p99_ms": 2.0, "compute_p50_ms": 0.5}
    assert "mu equals that without a CUDA graph, bit for bit" in (rows[0].note or "")
    assert rows[1].reason == "drifted: mu"


def test_what_a_crash_of_the_doctor_did_not_reach_is_failed(
    cases: list[Case], tmp_path: Path
) -> None:
    doctors_json(tmp_path / "doctor.json", cases)
    *rows, _ = read_evidence(of_doctor("doctor.json"), "engines", KILLED, tmp_path)
    assert [row.status for row in rows] == ["proven", "failed", "unproven", "failed"]
    assert (rows[3].reason or "").startswith("ended by SIGKILL")


def test_a_doctor_without_a_result_is_failed(tmp_path: Path) -> None:
    (row,) = read_evidence(of_doctor("doctor.json"), "engines", EXIT_1, tmp_path)
    assert (row.status, row.reason) == ("failed", "exit code 1: something failed")
    (row,) = read_evidence(of_doctor("doctor.json"), "engines", OVER, tmp_path)
    assert row.status == "failed"


def with_energy(
    case: Case, scope: str, *, name: str = "a sensor", **facts: Any
) -> tuple[Case, Any]:
    from motorvae.benchmarks.measure.energy import Energy, EnergyFacts, SensorFacts

    sensor = SensorFacts(
        name=name,
        source="nowhere",
        scope=scope,  # type: ignore[arg-type]
        covers="what a test says",
        reads="power",
        update_ms=20,
        changes=9,
        idle_w=4.0,
        idle_s=1,
    )
    energy = Energy(sensor=name, **facts)
    return case.with_facts(energy=(energy,)), EnergyFacts(
        sensors=(sensor,), absent=("NVML: none",), windows=3, window_s=1
    )


NO_ENERGY = "no case has energy of a GPU: NVML: none"
WINDOW = {"duration_ns": 10**9, "latents": 1000, "microjoules": 20 * 10**6}


def energy_json(path: Path, case: Case, energy: Any) -> None:
    doctors_json(path, [case])
    save_document(path, load_result(path).model_copy(update={"energy": energy}))


@pytest.mark.parametrize(
    ("scope", "name", "measured", "status", "says"),
    [
        ("GPU", "GPU 0 of a test", True, "proven", None),
        ("board", "VDD_IN", True, "proven", None),
        ("part", "VDD_GPU_SOC", True, "proven", None),  # an AGX Orin has no rail for all of it
        ("part", "VDD_CPU_CV", True, "unproven", NO_ENERGY),
        ("processor", "package-0", True, "unproven", NO_ENERGY),
        ("board", "psys", True, "unproven", NO_ENERGY),  # a card may be left out of it
        ("GPU", "GPU 0 of a test", False, "unproven", "it stood still"),
    ],
)
def test_energy_of_a_gpu_or_its_board_is_proven_and_a_processors_is_not(
    scope: str,
    name: str,
    measured: bool,
    status: str,
    says: str | None,
    cases: list[Case],
    tmp_path: Path,
) -> None:
    facts = {"windows": [WINDOW]} if measured else {"not_measured": "it stood still"}
    case, energy = with_energy(cases[0], scope, name=name, **facts)
    energy_json(tmp_path / "doctor.json", case, energy)
    _, row = read_evidence(of_doctor("doctor.json"), "an engine", OVER, tmp_path)
    assert (row.status, row.reason) == (status, says)
    if status == "proven":
        assert row.figures == {"per_latent_mj": 20.0, "power_w": 20.0, "idle_w": 4.0}


def test_a_doctor_that_ended_early_fails_beside_what_it_left(
    cases: list[Case], tmp_path: Path
) -> None:
    case, energy = with_energy(cases[0], "GPU", windows=[WINDOW])
    energy_json(tmp_path / "doctor.json", case, energy)
    for ended in (KILLED, LATE):
        rows = read_evidence(of_doctor("doctor.json"), "an engine", ended, tmp_path)
        assert [row.status for row in rows] == ["proven", "failed", "proven"]
        assert rows[1].reason == f"{ended.words}: so far"
    rows = read_evidence(of_doctor("doctor.json"), "an engine", EXIT_1, tmp_path)
    assert [row.status for row in rows] == ["proven", "proven"]  # which it says of other cases


def test_a_reason_that_only_begins_like_one_of_a_crash_is_not_one(
    cases: list[Case], tmp_path: Path
) -> None:
    case = cases[2].without("not reached by any of the routes")
    doctors_json(tmp_path / "doctor.json", [case])
    row, fault, _ = read_evidence(of_doctor("doctor.json"), "an engine", KILLED, tmp_path)
    assert (row.status, row.reason) == ("unproven", "not reached by any of the routes")
    assert fault.status == "failed"


def test_energy_of_an_engine_that_drifted_is_not_proven(cases: list[Case], tmp_path: Path) -> None:
    drifted = next(case for case in cases if case.status == "drifted")
    case, energy = with_energy(drifted, "GPU", windows=[WINDOW])
    energy_json(tmp_path / "doctor.json", case, energy)
    _, row = read_evidence(of_doctor("doctor.json"), "an engine", OVER, tmp_path)
    assert (row.status, row.figures) == ("failed", {})
    assert "past a limit of the gate" in (row.reason or "")


def test_a_sensor_without_a_case_is_not_said_to_be_missing(
    cases: list[Case], tmp_path: Path
) -> None:
    _, energy = with_energy(cases[0], "GPU", windows=[WINDOW])
    energy_json(tmp_path / "doctor.json", cases[2], energy)
    _, row = read_evidence(of_doctor("doctor.json"), "an engine", EXIT_1, tmp_path)
    assert (row.status, row.reason) == ("unproven", "no case was measured")


HEADER = "epoch,steps,elapsed_s\n"


@pytest.mark.parametrize(
    ("lines", "status", "rate"),
    [
        ("1,10,5.0\n2,30,6.0\n3,50,7.0\n", "proven", 40 / 2 * 64),
        ("1,10,5.0\n", "unproven", None),
        ("", "unproven", None),
        ("1,10,5.0\n2,10,5.0\n", "failed", None),
        ("1,ten,5.0\n2,30,6.0\n", "failed", None),
    ],
)
def test_a_rate_takes_two_epochs(
    lines: str, status: str, rate: float | None, tmp_path: Path
) -> None:
    (tmp_path / "metrics.csv").write_text(HEADER + lines, encoding="utf-8")
    (row,) = read_evidence(of_training("metrics.csv", 64), "training", OVER, tmp_path)
    assert row.status == status
    assert row.figures.get("train_images_per_s") == rate


def test_metrics_of_a_training_that_failed_prove_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(HEADER + "1,1,1\n2,2,2\n", encoding="utf-8")
    (row,) = read_evidence(of_training("metrics.csv", 64), "training", LATE, tmp_path)
    assert row.status == "failed"


def test_a_stream_needs_latents_and_an_end(tmp_path: Path) -> None:
    good = [{"status": "ok", "age_ms": age} for age in (3.0, 1.0, 2.0)]
    end = {"status": "end", "summary": {"fps": 120.0}}
    for rows, status in (
        ([*good, end], "proven"),
        (good, "failed"),
        ([{"status": "lost", "age_ms": None}, end], "failed"),
        ([], "failed"),
    ):
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
        (row,) = read_evidence(of_stream("rows.jsonl"), "a stream", OVER, tmp_path)
        assert row.status == status
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, [*good, end])), "utf-8")
    (row,) = read_evidence(of_stream("rows.jsonl"), "a stream", OVER, tmp_path)
    assert row.figures == {"latents": 3.0, "frames_per_s": 120.0, "age_p50_ms": 2.0}


def test_rates_are_rows_with_their_units(gpu_rates: GpuRates, tmp_path: Path) -> None:
    save_document(tmp_path / "rates.json", gpu_rates)
    rows = read_evidence(of_rates("rates.json"), "rates", OVER, tmp_path)
    assert [row.what for row in rows] == [
        "fp32 matrix product",
        "fp16 matrix product",
        "device memory copied, read plus written",
        "device memory read",
        "bytes of one encoder run read again and again",
    ]
    assert set(rows[1].figures) == {"best_tflop_per_s", "median_tflop_per_s"}
    assert rows[3].figures["best_gb_per_s"] == pytest.approx(100)


def test_a_refusal_by_itself_is_not_a_failure_where_the_step_says_so(tmp_path: Path) -> None:
    assert by_exit_code("x", EXIT_1, tmp_path)[0].status == "failed"
    assert by_exit_code_or_not("x", EXIT_1, tmp_path)[0].status == "unproven"
    assert by_exit_code_or_not("x", KILLED, tmp_path)[0].status == "failed"
    assert by_exit_code_or_not("x", OVER, tmp_path)[0].status == "proven"
