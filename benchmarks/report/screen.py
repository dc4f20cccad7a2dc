"""A run's verdict and a comparison on screen; every figure is in the file and on the page."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from ..compare import CONFIDENCE, LEAST_FOR_P99, Comparison
from ..measure.result import Result
from .tables import caption_of, digits_of, machine_line, rates_line
from .verdict import LOSS, leaders_of, standings_of

_STYLES = {"slower": "red", "larger": "red", "faster": "green", "smaller": "green"}


def print_verdict(console: Console, result: Result) -> None:
    """Print the machine, the fastest of each kind, and how much there is to look at."""
    for line in (f"{caption_of(result)}; {machine_line(result)}", rates_line(result)):
        console.print(line, soft_wrap=False)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("", "fastest"):
        table.add_column(heading, overflow="fold")
    for heading in ("p50", "p99"):
        table.add_column(heading, justify="right", overflow="fold", no_wrap=True)
    table.add_column("share of its floor", overflow="fold")
    for leader in leaders_of(result):
        case, whole = leader.case, leader.case.whole
        if whole is not None:
            what = case.what.removesuffix(" frame").removesuffix(", batch 1")
            # An import is that of a module, and no arithmetic.
            by = case.engine if case.group == "import" else f"{case.engine} {case.precision}"
            p50 = f"{digits_of(whole.p50)} {whole.shown_in}"
            table.add_row(what, by, p50, digits_of(whole.p99), leader.words)
    console.print(table)
    for line in _counts(result):
        console.print(line, soft_wrap=False)


def print_comparison(console: Console, found: Comparison) -> None:
    """Print what differs, each case with its ratio, interval and verdict, and whatever else."""
    for line in found.unlike:
        console.print(f"not alike: {line}", soft_wrap=True)
    has_p99 = any(change.p99_ratio for change in found.changes)
    p99 = (f"p99 ratio, n >= {LEAST_FOR_P99}",) if has_p99 else ()
    # A narrow terminal folds a cell; a figure that lost its last digits would be another figure.
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("case", overflow="fold")
    for heading in ("before p50", "after p50", "ratio", "interval", *p99):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("verdict", overflow="fold")
    for change in found.changes:
        interval = change.interval
        cells = [
            *(f"{digits_of(side.p50)} {side.shown_in}" for side in (change.before, change.after)),
            f"{change.ratio:.3f}",
            f"{interval.low:.3f} to {interval.high:.3f}" if interval else "too few turns",
        ]
        if has_p99:
            cells.append(f"{change.p99_ratio:.3f}" if change.p99_ratio else "")
        style = _STYLES.get(change.verdict)
        table.add_row(change.key, *cells, change.verdict, style=style)
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
    unstable = sum(bool(case.warnings) for case in measured)
    slower = [standing for standing in standings_of(result) if standing.worst >= LOSS]
    lines = [
        f"{len(measured)} cases measured, {len(result.cases) - len(measured)} not; "
        f"{unstable} unstable; {len(slower)} slower than an engine as installed"
    ]
    if slower:
        lines.append(f"  the slowest of them by {slower[0].worst:.2f}: {slower[0].case.key}")
    if drifted:
        lines.append(f"past the limit of the drift gate: {len(drifted)}, such as {drifted[0]}")
    return [*lines, *result.warnings]
