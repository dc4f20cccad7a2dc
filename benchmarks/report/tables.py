"""The tables of a result as rows of text, and the lines that say what they were measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from ..measure.case import Case, Group
from ..measure.result import Rate, Result
from ..measure.samples import Samples

GROUPS: tuple[Group, ...] = get_args(Group)

_PERCENTILES: dict[str, Callable[[Samples], float]] = {
    "p50": lambda series: series.p50,
    "p95": lambda series: series.p95,
    "p99": lambda series: series.p99,
    "max": lambda series: series.max,
}
_OF_WHOLE: dict[str, Callable[[Case, Samples], str | None]] = {
    "/image": lambda case, series: (
        digits_of(series.p50 / case.batch) if case.group in {"encoder", "decoder"} else None
    ),
    "x roof": lambda case, _: f"{case.roofline.times:.1f}" if case.roofline else None,
    "error/spread": lambda case, _: f"{case.latent_error.value:.2g}" if case.latent_error else None,
    "PSNR dB": lambda case, _: f"{case.psnr.value:.0f}" if case.psnr else None,
    "images/s": lambda case, series: (
        digits_of(case.batch / series.p50 * 1e3) if case.group == "training" else None
    ),
}
"""Columns that a table has only where one of its cases fills them, for the first stage."""


@dataclass(frozen=True)
class GroupTable:
    """One table.

    Attributes:
        title: What it holds.
        texts: Headings of the first columns.
        figures: Headings of the columns after them, which hold numbers.
        rows: A cell for each heading. A first cell is empty where it would repeat the one above.
    """

    title: str
    texts: tuple[str, ...]
    figures: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def group_table(result: Result, group: Group) -> GroupTable | None:
    """Return the table of one group, or None where nothing of it was measured."""
    cases = [case for case in result.cases if case.group == group and case.stages]
    if not cases:
        return None
    extra = [
        heading
        for heading, figure in _OF_WHOLE.items()
        if any(figure(case, series) for case, series in _wholes(cases))
    ]
    has_stages = any(len(case.stages) > 1 for case in cases)
    units = sorted({series.shown_in for case in cases for series in case.stages.values()})
    rows: list[tuple[str, ...]] = []
    above = ""
    for case in cases:
        what = case.what.removeprefix(group).removeprefix(", ")
        how = case.how + mark_of(case)
        for place, (stage, series) in enumerate(case.stages.items()):
            rows.append(
                (
                    what if what != above and place == 0 else "",
                    "" if place else how,
                    *((stage,) if has_stages else ()),
                    *((series.shown_in,) if len(units) > 1 else ()),
                    *(digits_of(percentile(series)) for percentile in _PERCENTILES.values()),
                    *("" if place else _OF_WHOLE[heading](case, series) or "" for heading in extra),
                )
            )
        above = what
    unit = f"{units[0]}, " if len(units) == 1 else ""
    return GroupTable(
        title=f"{group}: {unit}{_counted(cases)} each",
        texts=(
            "",
            "engine",
            *(("stage",) if has_stages else ()),
            *(("unit",) if len(units) > 1 else ()),
        ),
        figures=(*_PERCENTILES, *extra),
        rows=tuple(rows),
    )


def mark_of(case: Case) -> str:
    """Return the star of a case whose samples are restless."""
    return " *" if case.warnings else ""


def caption_of(result: Result) -> str:
    """Say what weights these are, and whether the figures may be quoted."""
    weights = "random weights" if result.settings.untrained else "trained weights"
    quick = ", QUICK: too few samples to quote" if result.settings.quick else ""
    return f"{weights} {result.settings.weights_sha256[:8]}{quick}"


def machine_line(result: Result) -> str:
    """Say on what the figures were taken, and how busy it was."""
    found = result.environment
    threads = ", ".join(f"{name} {count}" for name, count in found.threads.items())
    gpu = f"; {found.gpu}" if found.gpu else ""
    return (
        f"{found.cpu} ({found.machine}), {found.usable_cores} usable cores{gpu}; "
        f"threads: {threads}; load {found.load_start[0]:.2f} before, {found.load_end[0]:.2f} after"
    )


def rates_line(result: Result) -> str:
    """Say how fast the machine multiplies and copies."""
    products = "; ".join(
        f"{precision} matrix product {_rate(rate)} {operations_of(precision)}"
        for precision, rate in result.matrix.items()
    )
    copy, read = _rate(result.copy_memory), _rate(result.read_memory)
    return f"{products}; copy {copy} GB/s read plus written; read {read} GB/s"


def operations_of(precision: str) -> str:
    """Return the unit of a matrix rate: whole numbers are no floating-point operations."""
    return "GOP/s" if precision == "int8" else "GFLOP/s"


def restless_line(result: Result) -> str:
    """Say what the star means."""
    return (
        "* unstable: the middle half of the samples spans more than "
        f"{result.settings.spread_limit:.0%} of the median, or the last third differs from "
        f"the first by more than {result.settings.drift_limit:.0%}"
    )


def doubts_of(result: Result) -> Iterator[str]:
    """Return one line for each thing that is in doubt."""
    yield from result.warnings
    rates = {f"{name} matrix rate": rate for name, rate in result.matrix.items()}
    memory = {"copy bandwidth": result.copy_memory, "read bandwidth": result.read_memory}
    for name, rate in (rates | memory).items():
        if rate.warnings:
            yield f"{name}: {'; '.join(rate.warnings)}"
    for case in result.cases:
        if case.warnings:
            yield f"{case.key}: {'; '.join(case.warnings)}"


def digits_of(value: float) -> str:
    """Return three digits or so of a number: more would be noise."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _wholes(cases: Sequence[Case]) -> Iterator[tuple[Case, Samples]]:
    return ((case, case.whole) for case in cases if case.whole)


def _counted(cases: Sequence[Case]) -> str:
    counts = [len(series.samples) for _, series in _wholes(cases)]
    few, many = min(counts), max(counts)
    return f"{few} samples" if few == many else f"{few} to {many} samples"


def _rate(rate: Rate) -> str:
    return f"{digits_of(rate.p50_per_s / 1e9)} (best {digits_of(rate.best_per_s / 1e9)})"
