"""A run's verdict and a comparison on screen; every figure is in the file and on the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from ..compare import CONFIDENCE, LEAST_FOR_P99, Change, Comparison
from ..measure.result import Result
from .tables import caption_of, digits_of, machine_line, rates_line
from .verdict import leaders_of, standings_of

_STYLES = {"slower": "red", "larger": "red", "faster": "green", "smaller": "green"}


def print_verdict(console: Console, result: Result) -> None:
    """Print the machine, the fastest of each kind, and how much there is to look at."""
    for line in (f"{caption_of(result)}; {machine_line(result)}", rates_line(result)):
        console.print(line)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("", "fastest", "p50", "p99", "share of its floor"):
        is_figure = heading.startswith("p")
        justify: Literal["left", "right"] = "right" if is_figure else "left"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=is_figure)
    for leader in leaders_of(result):
        case, whole = leader.case, leader.case.whole
        if whole is not None:
            what = case.what.removesuffix(" frame").removesuffix(", batch 1")
            p50 = f"{digits_of(whole.p50)} {whole.shown_in}"
            by = f"{case.engine} {case.precision}" if case.group != "import" else case.engine
            table.add_row(what, by, p50, digits_of(whole.p99), leader.words)
    console.print(table)
    for line in _counts(result):
        console.print(line)


def print_comparison(console: Console, found: Comparison) -> None:
    """Print each case with its ratio, interval and verdict, and whatever else differs."""
    columns = _columns(found)
    # A narrow terminal folds a cell; a figure that lost its last digits would be another figure.
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("case", overflow="fold")
    for heading in columns:
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("verdict", overflow="fold")
    for change in found.changes:
        figures = (figure(change) for figure in columns.values())
        table.add_row(change.key, *figures, change.verdict, style=_STYLES.get(change.verdict))
    console.print(table)
    console.print(
        f"ratio: p50 after over before; interval: {CONFIDENCE:.0%} by bootstrap of whole turns; "
        f"verdict: with the whole interval past {found.tolerance:.1%}",
        soft_wrap=True,
    )
    for note in found.notes:
        console.print(note, soft_wrap=True)


def _counts(result: Result) -> list[str]:
    """Return one line for each kind of thing that is to be looked up in the details."""
    measured = [case for case in result.cases if case.stages]
    drifted = [case.key for case in measured if not case.passed]
    restless = sum(bool(case.warnings) for case in measured)
    absent = len(result.cases) - len(measured)
    slower = [standing for standing in standings_of(result) if standing.is_loss]
    lines = [
        f"{len(measured)} cases measured, {absent} not; {restless} unstable; "
        f"{len(slower)} slower than an engine as installed"
    ]
    if slower:
        lines.append(f"  the slowest of them by {slower[0].worst:.2f}: {slower[0].case.key}")
    if drifted:
        lines.append(f"past the limit of the drift gate: {len(drifted)}, such as {drifted[0]}")
    return [*lines, *result.warnings]


def _columns(found: Comparison) -> dict[str, Callable[[Change], str]]:
    columns: dict[str, Callable[[Change], str]] = {
        "before p50": lambda change: f"{digits_of(change.before.p50)} {change.before.shown_in}",
        "after p50": lambda change: f"{digits_of(change.after.p50)} {change.after.shown_in}",
        "ratio": lambda change: f"{change.ratio:.3f}",
        "interval": lambda change: (
            f"{change.interval.low:.3f} to {change.interval.high:.3f}"
            if change.interval
            else "too few turns"
        ),
    }
    if any(change.p99_ratio for change in found.changes):
        columns[f"p99 ratio, n >= {LEAST_FOR_P99}"] = lambda change: (
            f"{change.p99_ratio:.3f}" if change.p99_ratio else ""
        )
    return columns
