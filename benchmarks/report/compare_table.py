"""A comparison of two results on screen."""

from __future__ import annotations

from collections.abc import Callable

from rich import box
from rich.console import Console
from rich.table import Table

from ..compare import CONFIDENCE, LEAST_FOR_P99, Change, Comparison
from .tables import figure_of

_STYLES = {"slower": "red", "larger": "red", "faster": "green", "smaller": "green"}


def print_comparison(console: Console, found: Comparison) -> None:
    """Print each case with its ratio, interval and verdict, and whatever else differs."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("case", overflow="fold")
    for heading in _columns(found):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("verdict", overflow="fold")
    for change in found.changes:
        figures = (figure(change) for figure in _columns(found).values())
        table.add_row(change.key, *figures, change.verdict, style=_STYLES.get(change.verdict))
    console.print(table)
    console.print(
        f"ratio: p50 after over before; interval: {CONFIDENCE:.0%} by bootstrap of whole turns; "
        f"verdict: with the whole interval past {found.tolerance:.1%}",
        soft_wrap=True,
    )
    for note in found.notes:
        console.print(note, soft_wrap=True)


def _columns(found: Comparison) -> dict[str, Callable[[Change], str]]:
    columns: dict[str, Callable[[Change], str]] = {
        "before p50": lambda change: f"{figure_of(change.before.p50)} {change.before.shown_in}",
        "after p50": lambda change: f"{figure_of(change.after.p50)} {change.after.shown_in}",
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
