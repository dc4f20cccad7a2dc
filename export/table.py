"""Verifications and engines as tables on screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ..runtime.bundle import GraphReport
from ..runtime.passport import Passport


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


def engine_table(passports: Sequence[Passport]) -> Table:
    """Return each engine with what was read back from it."""
    table = Table()
    for heading in ("engine", "weights", "outputs", "size", "built in", "drift gate"):
        table.add_column(heading, justify="left" if heading == "engine" else "right", no_wrap=True)
    for passport in passports:
        weights, outputs = passport.receipt.shares(passport.precision)
        table.add_row(
            f"{passport.graph} {passport.precision}",
            f"{weights:.2%} {passport.precision}",
            f"{outputs:.2%} {passport.precision}",
            f"{passport.engine.size_bytes / 1e6:.1f} MB",
            f"{passport.build_seconds:.1f} s",
            "passed" if passport.verification.verified else "not run",
        )
    if passports:
        first = passports[0]
        receipt = first.receipt
        table.caption = (
            f"{first.flavour} {first.version} for compute capability "
            f"{', '.join(first.compute_capabilities)}; formats read back from the "
            + " and the ".join(sorted({receipt.weights_from, receipt.outputs_from}))
        )
    return table
