"""The verification as a table on screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ..runtime.bundle import GraphReport


def verification_table(reports: Sequence[GraphReport]) -> Table:
    """Return every figure of every output with the limit it was held to."""
    table = Table()
    table.add_column("output and figure")
    for heading in ("value", "limit", ""):
        table.add_column(heading, justify="right")
    for report in reports:
        table.add_row(f"{report.graph} {report.precision}: {report.output}", style="bold")
        for metric in report.metrics:
            sign = "≥" if metric.higher_is_better else "≤"
            table.add_row(
                f"  {metric.name}",
                f"{metric.value:.4g} {metric.unit}".rstrip(),
                "reported" if metric.limit is None else f"{sign} {metric.limit:g}",
                "" if metric.limit is None else "ok" if metric.passed else "FAILED",
                style=None if metric.passed else "bold red",
            )
        table.add_section()
    return table
