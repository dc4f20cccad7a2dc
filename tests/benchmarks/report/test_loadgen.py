from __future__ import annotations

import io

import pytest
from rich.console import Console

from motorvae.benchmarks.measure.case import samples_of
from motorvae.benchmarks.measure.loadgen import LoadGenRun, LoadGenVerdict
from motorvae.benchmarks.measure.result import Result
from motorvae.benchmarks.report.loadgen import loadgen_notes, loadgen_table, print_loadgen

MS = 10**6
VERDICT = LoadGenVerdict(
    version="6.0.17",
    valid=True,
    min_duration_met=True,
    min_queries_met=True,
    early_stopping_met=True,
    queries=15000,
    p50_ms=4.0,
    p90_ms=4.1,
    early_stopping_p90_ms=4.12,
)
HALVES = (samples_of([4 * MS] * 100), samples_of([4 * MS] * 100))


@pytest.fixture
def refereed(result: Result) -> Result:
    """One that agrees, one that does not, one that is invalid, and one that crashed."""
    agrees = LoadGenRun(
        engine="ONNX Runtime, mu, ours",
        scenario="SingleStream",
        seconds=60,
        verdict=VERDICT,
        ours=HALVES,
        logs="onnx-runtime-singlestream",
    )
    half = VERDICT.model_copy(update={"p50_ms": 2.0, "p90_ms": 2.05})
    offline = VERDICT.model_copy(
        update={
            **dict.fromkeys(("p50_ms", "p90_ms", "early_stopping_p90_ms")),
            "samples_per_s": 250.0,
            "valid": False,
            "min_queries_met": False,
        }
    )
    runs = (
        agrees,
        agrees.model_copy(update={"engine": "OpenVINO, int8, mu, ours", "verdict": half}),
        agrees.model_copy(update={"scenario": "Offline", "verdict": offline}),
        LoadGenRun(
            engine="TensorRT, fp16, mu",
            scenario="Offline",
            seconds=60,
            not_measured="the process of LoadGen ended with signal SIGABRT: it said 'x'",
        ),
    )
    return result.model_copy(update={"loadgen": runs, "loadgen_logs": "bench.loadgen-1"})


def test_the_screen_has_its_verdict_beside_ours(refereed: Result) -> None:
    stream = io.StringIO()
    print_loadgen(Console(file=stream, width=80), refereed)
    text = " ".join(stream.getvalue().split())
    assert "SingleStream, p90 4.10 ms 4.00 VALID " in text
    assert "SingleStream, p90 2.05 ms 4.00 VALID, DISAGREES" in text
    assert "Offline 250 samples/s 250 INVALID (too few" in text  # and folded
    assert "60 s a run is shorter than MLPerf's own rule of 600 s: not to be quoted" in text
    assert "OpenVINO, int8, mu, ours DISAGREES with ours beyond noise: p50 0.50 times ours" in text
    assert "TensorRT, fp16, mu gave no verdict: the process of LoadGen ended with signal" in text
    assert max(map(len, stream.getvalue().splitlines())) <= 80


def test_the_page_has_the_logs_and_the_estimate(refereed: Result) -> None:
    table = loadgen_table(refereed)
    assert table is not None
    rows = [dict(zip((*table.texts, *table.figures), row, strict=True)) for row in table.rows]
    assert [row["agree"] for row in rows][0::2] == ["yes", "yes"]
    assert rows[1]["agree"].startswith("p50 0.50 times ours")
    assert rows[0]["p90, early stopping"] == "4.12"
    assert rows[0]["its logs"] == "bench.loadgen-1/onnx-runtime-singlestream"
    assert (rows[2]["samples/s"], rows[2]["our samples/s"], rows[2]["our p90"]) == (
        *("250", "250", ""),
    )


def test_agreement_of_a_machine_that_was_too_busy_is_unclear(refereed: Result) -> None:
    halves = (samples_of([4 * MS] * 100), samples_of([30 * MS] * 100))
    noisy = refereed.loadgen[0].model_copy(update={"ours": halves})
    refereed = refereed.model_copy(update={"loadgen": (noisy,)})
    stream = io.StringIO()
    print_loadgen(Console(file=stream, width=80), refereed)
    assert "VALID, unclear" in " ".join(stream.getvalue().split())
    table = loadgen_table(refereed)
    assert table is not None
    assert table.rows[0][3].startswith("unclear: p50 of our own loop before and after differs by")
    assert any("whether it agrees with ours is unclear" in note for note in loadgen_notes(refereed))


def test_no_empty_table_is_shown_where_no_run_has_a_verdict(refereed: Result) -> None:
    stream = io.StringIO()
    crashed = refereed.model_copy(update={"loadgen": refereed.loadgen[-1:]})
    print_loadgen(Console(file=stream, width=80), crashed)
    assert "theirs" not in stream.getvalue()
    assert "gave no verdict" in stream.getvalue()


def test_only_what_lasts_long_enough_may_be_quoted(refereed: Result) -> None:
    long = tuple(run.model_copy(update={"seconds": 600.0}) for run in refereed.loadgen[:1])
    (note,) = loadgen_notes(refereed.model_copy(update={"loadgen": long}))
    assert note == "a run of LoadGen is no MLPerf result: MLCommons has verified nothing here"


def test_without_loadgen_nothing_is_said(result: Result) -> None:
    stream = io.StringIO()
    print_loadgen(Console(file=stream, width=80), result)
    assert (stream.getvalue(), loadgen_table(result), loadgen_notes(result)) == ("", None, [])
