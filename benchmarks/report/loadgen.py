"""LoadGen's verdicts beside ours, as text and as a table."""

from __future__ import annotations

from rich.console import Console

from ..measure.loadgen import OFFICIAL_S, LoadGenRun
from ..measure.result import Result
from .tables import GroupTable, digits_of, screen_table


def print_loadgen(console: Console, result: Result) -> None:
    """Print a row for each run, and what is to be known of them."""
    if not result.loadgen:
        return
    headings = ("LoadGen", "scenario", "theirs", "ours", "verdict")
    table = screen_table(headings, headings[2:4], pad_edge=False)
    for run in result.loadgen:
        if run.theirs_value is not None and run.ours_value is not None:
            unit = run.figure.removeprefix("p90 ")
            theirs, ours = digits_of(run.theirs_value), digits_of(run.ours_value)
            what = f"{run.scenario}, p90" if run.scenario == "SingleStream" else run.scenario
            table.add_row(run.engine, what, f"{theirs} {unit}", ours, _verdict(run))
    if table.rows:
        console.print(table)
    for line in loadgen_notes(result):
        console.print(line, soft_wrap=False)


def loadgen_table(result: Result) -> GroupTable | None:
    """Return a row for each run with a verdict, or None."""
    rows = tuple(
        (
            run.engine,
            run.scenario,
            _verdict(run),
            run.disagreement or (f"unclear: {run.unclear}" if run.unclear else "yes"),
            f"{result.loadgen_logs}/{run.logs}",
            *map(_digits, (run.verdict.p50_ms, run.verdict.p90_ms)),
            _digits(run.verdict.early_stopping_p90_ms),
            _digits(run.ours_value if run.scenario == "SingleStream" else None),
            _digits(run.verdict.samples_per_s),
            _digits(run.ours_value if run.scenario == "Offline" else None),
            _digits(run.overhead_ms),
            str(run.batch),
            str(run.verdict.queries),
            f"{run.seconds:g}",
        )
        for run in result.loadgen
        if run.verdict is not None
    )
    if not rows:
        return None
    versions = {run.verdict.version for run in result.loadgen if run.verdict}
    return GroupTable(
        title=f"LoadGen {', '.join(sorted(versions))}; milliseconds of a query",
        texts=("engine", "scenario", "LoadGen's verdict", "agree", "its logs"),
        figures=(
            *("p50", "p90", "p90, early stopping", "our p90", "samples/s", "our samples/s"),
            *("LoadGen's own ms", "batch", "queries", "least s"),
        ),
        rows=rows,
    )


def loadgen_notes(result: Result) -> list[str]:
    """Return what makes the runs unfit to be quoted, where ours disagree, and what did not run."""
    notes = []
    short = [run for run in result.loadgen if run.verdict and not run.official]
    if short:
        notes.append(
            f"{short[0].seconds:g} s a run is shorter than MLPerf's own rule of {OFFICIAL_S:g} s: "
            "not to be quoted"
        )
    if any(run.verdict for run in result.loadgen):
        notes.append("a run of LoadGen is no MLPerf result: MLCommons has verified nothing here")
    for run in result.loadgen:
        name = f"LoadGen, {run.scenario}, {run.engine}"
        if run.disagreement is not None:
            notes.append(f"{name} DISAGREES with ours beyond noise: {run.disagreement}")
        if run.unclear is not None:
            notes.append(f"{name}: whether it agrees with ours is unclear: {run.unclear}")
        if run.verdict is not None:
            notes += [f"{name} logged an error: {error}" for error in run.verdict.errors]
        if run.not_measured is not None:
            notes.append(f"{name} gave no verdict: {run.not_measured}")
    return notes


def _verdict(run: LoadGenRun) -> str:
    if run.verdict is None:
        return "none"
    failed = {
        "too short": run.verdict.min_duration_met,
        "too few queries": run.verdict.min_queries_met,
        "early stopping": run.verdict.early_stopping_met,
    }
    causes = [cause for cause, met in failed.items() if not met]
    valid = "VALID" if run.verdict.valid else f"INVALID ({', '.join(causes) or 'see its log'})"
    if run.disagreement:
        return f"{valid}, DISAGREES"
    return f"{valid}, unclear" if run.unclear else valid


def _digits(value: float | None) -> str:
    return "" if value is None else digits_of(value)
