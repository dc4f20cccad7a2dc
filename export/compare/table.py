"""The figures of a comparison as a table on screen."""

from __future__ import annotations

from rich.table import Table

from ...runtime.bundle.manifest import Metric
from ..tables import empty_table
from .result import VerifyResult


def result_table(result: VerifyResult) -> Table:
    """Return every figure of every output, with its limit where it has one."""
    table = empty_table("figure", "value", "next 128", "limit", "gate", overflow=True)
    for output in result.outputs:
        shape = " x ".join(map(str, output.shape))
        table.add_row(f"{output.output} ({shape})", style="bold")
        for one in output.metrics:
            failed = not one.passed
            gate = "" if one.limit is None else "FAILED" if failed else "ok"
            bound = "" if one.bound is None else _figure(one.bound, one)
            limit = ""
            if one.limit is not None:
                limit = f"{'≥' if one.higher_is_better else '≤'} {one.limit:g}"
            unit = f", {one.unit}" if one.unit else ""
            table.add_row(
                f"  {one.name}{unit}",
                _figure(one.value, one),
                bound,
                limit,
                gate,
                style="bold red" if failed else None if one.limit is not None else "dim",
            )
        table.add_section()
    table.caption = (
        "spread: standard deviation of a unit over the images; next 128: within which the\n"
        "worst of the next 128 images stays with 95 % probability, which is what is held"
    )
    return table


def _figure(value: float, of: Metric) -> str:
    return f"{value:.1f}" if of.unit == "dB" else f"{value:.2g}"
