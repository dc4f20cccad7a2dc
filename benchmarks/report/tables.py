"""The tables of a result as rows of text, and lines about the machine and the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

from ..measure.case import Case, Group, Samples
from ..measure.result import Rate, Result

GROUPS: tuple[Group, ...] = get_args(Group)
PERCENTILES = ("p50", "p95", "p99", "max")

_OF_WHOLE: dict[str, Callable[[Case, Samples], str | None]] = {
    "/image": lambda case, whole: (
        digits_of(whole.p50 / case.batch) if case.group in {"encoder", "decoder"} else None
    ),
    "x roof": lambda case, _: f"{case.roofline.times:.1f}" if case.roofline else None,
    "error/spread": lambda case, _: f"{case.latent_error.value:.2g}" if case.latent_error else None,
    "PSNR dB": lambda case, _: f"{case.psnr.value:.0f}" if case.psnr else None,
    "images/s": lambda case, whole: (
        digits_of(case.batch / whole.p50 * 1e3) if case.group == "training" else None
    ),
}
"""Columns that a table has only where one of its cases fills them, for the first stage."""


@dataclass(frozen=True)
class GroupTable:
    """One table."""

    title: str  # What it holds
    texts: tuple[str, ...]  # Headings of the first columns
    figures: tuple[str, ...]  # Headings of the columns after them, which hold numbers
    # A cell for each heading. A first cell is empty where it would repeat the one above.
    rows: tuple[tuple[str, ...], ...]


def group_table(result: Result, group: Group) -> GroupTable | None:
    """Return the table of one group, or None where nothing of it was measured."""
    cases = [(case, case.whole) for case in result.cases if case.group == group and case.whole]
    if not cases:
        return None
    extra = [name for name, cell in _OF_WHOLE.items() if any(cell(*case) for case in cases)]
    has_stages = any(len(case.stages) > 1 for case, _ in cases)
    units = sorted({one.shown_in for case, _ in cases for one in case.stages.values()})
    optional = {"stage": has_stages, "unit": len(units) > 1}
    rows: list[tuple[str, ...]] = []
    above = ""
    for case, whole in cases:
        what = case.what.removeprefix(group).removeprefix(", ")
        for stage, series in case.stages.items():
            is_first = series is whole
            cells = {"stage": stage, "unit": series.shown_in}
            rows.append(
                (
                    what if what != above and is_first else "",
                    case.how + mark_of(case) if is_first else "",
                    *(cells[name] for name, is_there in optional.items() if is_there),
                    *(digits_of(getattr(series, name)) for name in PERCENTILES),
                    *(_OF_WHOLE[name](case, whole) or "" if is_first else "" for name in extra),
                )
            )
        above = what
    counts = sorted({len(whole.samples) for _, whole in cases})
    many = f" to {counts[-1]}" if len(counts) > 1 else ""
    unit = f"{units[0]}, " if len(units) == 1 else ""
    return GroupTable(
        title=f"{group}: {unit}{counts[0]}{many} samples each",
        texts=("", "engine", *(name for name, is_there in optional.items() if is_there)),
        figures=(*PERCENTILES, *extra),
        rows=tuple(rows),
    )


def mark_of(case: Case) -> str:
    """Return the star of a case whose samples are unstable."""
    return " *" if case.warnings else ""


def caption_of(result: Result) -> str:
    """Return whose weights these are, and whether the figures may be quoted."""
    weights = "random weights" if result.settings.untrained else "trained weights"
    quick = ", QUICK: too few samples to quote" if result.settings.quick else ""
    return f"{weights} {result.settings.weights_sha256[:8]}{quick}"


def machine_line(result: Result) -> str:
    """Return on what the figures were taken, and how busy it was."""
    found = result.environment
    threads = ", ".join(f"{name} {count}" for name, count in found.threads.items())
    gpu = f"; {found.gpu}" if found.gpu else ""
    return (
        f"{found.cpu} ({found.machine}), {found.usable_cores} usable cores{gpu}; "
        f"threads: {threads}; load {found.load_start[0]:.2f} before, {found.load_end[0]:.2f} after"
    )


def rates_line(result: Result) -> str:
    """Return how fast the machine multiplies and copies."""
    products = "; ".join(
        f"{precision} matrix product {_rate(rate)} {operations_of(precision)}"
        for precision, rate in result.matrix.items()
    )
    if result.copy_memory is None or result.read_memory is None:
        return "no rates of this processor were measured"
    copy, read = _rate(result.copy_memory), _rate(result.read_memory)
    return f"{products}; copy {copy} GB/s read plus written; read {read} GB/s"


def operations_of(precision: str) -> str:
    """Return the unit of a matrix rate: whole numbers are no floating-point operations."""
    return "GOP/s" if precision == "int8" else "GFLOP/s"


def doubts_of(result: Result) -> Iterator[str]:
    """Return one line for each thing that is in doubt."""
    yield from result.warnings
    rates = {f"{name} matrix rate": rate for name, rate in result.matrix.items()}
    memory = {"copy bandwidth": result.copy_memory, "read bandwidth": result.read_memory}
    cases = {case.key: case for case in result.cases}
    doubtful: dict[str, Rate | Case | None] = {**rates, **memory, **cases}
    for name, found in doubtful.items():
        if found and found.warnings:
            yield f"{name}: {'; '.join(found.warnings)}"


def digits_of(value: float) -> str:
    """Return three digits or so of a number: more would be noise."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _rate(rate: Rate) -> str:
    return f"{digits_of(rate.p50_per_s / 1e9)} (best {digits_of(rate.best_per_s / 1e9)})"
