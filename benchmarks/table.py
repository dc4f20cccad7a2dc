"""The result on screen: only what was measured, and why the rest was not."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from .results import COMPILED, Case, Rate, Result, Series

_FIGURES = ("p50", "p95", "p99", "max")


def print_result(console: Console, result: Result) -> None:
    """Print the machine, its rates, one table for each kind of case, and every warning."""
    console.print(machine_line(result), soft_wrap=True)
    console.print(rates_line(result), soft_wrap=True)
    console.print(_graph_table(result))
    console.print(_path_table(result))
    training = [case for case in result.cases if case.group == "training"]
    if training:
        console.print(_training_table(training))
    for case in result.cases:
        if case.not_measured is not None:
            console.print(f"{case.title}: not measured: {case.not_measured}", soft_wrap=True)
        elif case.engine == COMPILED and case.prepare_s is not None:
            console.print(f"{case.title}: compiled in {case.prepare_s:.1f} s", soft_wrap=True)
    doubts = list(_doubts(result))
    if doubts:
        console.print(
            f"* unstable: the middle half of the samples spans more than "
            f"{result.settings.spread_limit:.0%} of the median, or the last third differs from "
            f"the first by more than {result.settings.drift_limit:.0%}",
            style="yellow",
            soft_wrap=True,
        )
    for doubt in doubts:
        console.print(doubt, style="yellow", soft_wrap=True)


def caption_of(result: Result) -> str:
    """Say what weights these are, and whether the figures may be quoted."""
    weights = "random weights" if result.settings.untrained else "trained weights"
    quick = ", QUICK: too few samples to quote" if result.settings.quick else ""
    return f"{weights} {result.settings.weights_sha256[:8]}{quick}"


def machine_line(result: Result) -> str:
    """Say on what the figures were taken, and how busy it was."""
    found = result.environment
    threads = ", ".join(f"{name} {count}" for name, count in found.threads.items())
    return (
        f"{found.cpu} ({found.machine}), {found.usable_cores} usable cores; threads: {threads}; "
        f"load {found.load_start[0]:.2f} before, {found.load_end[0]:.2f} after"
    )


def rates_line(result: Result) -> str:
    """Say how fast the machine multiplies and copies."""
    return (
        f"float32 matrix product {_rate(result.matrix)} GFLOP/s; copy "
        f"{_rate(result.copy_memory)} GB/s read plus written"
    )


def figure_of(value: float) -> str:
    """Return three digits or so of a number: more would be noise."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _doubts(result: Result) -> Iterator[str]:
    """Return one line for each thing that is in doubt."""
    yield from result.warnings
    for name, rate in (("matrix rate", result.matrix), ("copy bandwidth", result.copy_memory)):
        if rate.warnings:
            yield f"{name}: {'; '.join(rate.warnings)}"
    for case in result.cases:
        if case.warnings:
            yield f"{case.title}: {'; '.join(case.warnings)}"


def _rate(rate: Rate) -> str:
    return f"{figure_of(rate.p50_per_s / 1e9)} (best {figure_of(rate.best_per_s / 1e9)})"


def _table(title: str, columns: tuple[str, ...], figures: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    # A narrow terminal folds a cell; a figure that lost its last digits would be another figure.
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for heading in figures:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def _graph_table(result: Result) -> Table:
    calls = result.settings.schedule.samples
    table = _table(
        f"encoder and decoder: ms of one call, {calls} calls each, {caption_of(result)}",
        ("graph, batch", "engine"),
        (*_FIGURES, "/image", "x roof"),
    )
    previous = None
    for case in result.cases:
        if case.group not in {"encoder", "decoder"} or case.not_measured is not None:
            continue
        here = f"{case.group} {case.batch}"
        if previous not in {None, here}:
            table.add_section()
        first = [here if here != previous else "", case.engine + _mark(case)]
        previous = here
        for series in case.stages.values():
            table.add_row(
                *first,
                *_figures(series),
                figure_of(series.p50_ms / case.batch),
                f"{case.roofline.times:.1f}" if case.roofline else "",
            )
    return table


def _path_table(result: Result) -> Table:
    calls = result.settings.schedule.samples
    table = _table(
        f"frame to latent: ms, {calls} frames each, ONNX Runtime", ("frame", "stage"), _FIGURES
    )
    for case in result.cases:
        if case.frame is None:
            continue
        label = f"{case.frame[0]}x{case.frame[1]}{_mark(case)}"
        for stage, series in case.stages.items():
            table.add_row(label, stage, *_figures(series))
            label = ""
        table.add_section()
    return table


def _training_table(cases: list[Case]) -> Table:
    steps = len(next(iter(cases[0].stages.values())).samples_ns)
    table = _table(
        f"training: ms of one step, batch {cases[0].batch}, {steps} steps each",
        ("arithmetic",),
        (*_FIGURES, "images/s at p50"),
    )
    for case in cases:
        for series in case.stages.values():
            rate = figure_of(case.batch / series.p50_ms * 1e3)
            table.add_row(case.engine + _mark(case), *_figures(series), rate)
    return table


def _mark(case: Case) -> str:
    return " *" if case.warnings else ""


def _figures(series: Series) -> Iterator[str]:
    return map(figure_of, (series.p50_ms, series.p95_ms, series.p99_ms, series.max_ms))
