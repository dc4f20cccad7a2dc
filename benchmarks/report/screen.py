"""The result on screen: only what was measured, and why the rest was not."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from ..measure.case import COMPILED
from ..measure.result import Result
from .tables import (
    GROUPS,
    Sheet,
    caption_of,
    doubts_of,
    machine_line,
    rates_line,
    restless_line,
    sheet_of,
    sheet_of_goals,
)


def print_result(console: Console, result: Result) -> None:
    """Print the machine, its rates, one table for each group of cases, and every warning."""
    for line in (machine_line(result), rates_line(result), caption_of(result)):
        console.print(line, soft_wrap=True)
    for group in GROUPS:
        if sheet := sheet_of(result, group):
            console.print(table_of(sheet))
    if sheet := sheet_of_goals(result):
        console.print(table_of(sheet))
    for case in result.cases:
        if case.not_measured is not None:
            console.print(f"{case.key}: not measured: {case.not_measured}", soft_wrap=True)
        elif case.engine == COMPILED and case.prepare_s is not None:
            console.print(f"{case.key}: compiled in {case.prepare_s:.1f} s", soft_wrap=True)
    if doubts := list(doubts_of(result)):
        for line in (restless_line(result), *doubts):
            console.print(line, style="yellow", soft_wrap=True)


def table_of(sheet: Sheet) -> Table:
    """Return a sheet for the screen, with a line between the parts that its first column names."""
    table = Table(
        title=sheet.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    # A narrow terminal folds a cell; a figure that lost its last digits would be another figure.
    for heading in sheet.texts:
        table.add_column(heading, overflow="fold")
    for heading in sheet.figures:
        table.add_column(heading, justify="right", overflow="fold")
    for place, row in enumerate(sheet.rows):
        if place and row[0]:
            table.add_section()
        table.add_row(*row)
    return table
