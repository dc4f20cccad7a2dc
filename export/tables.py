"""Verifications and engines as tables on screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..runtime.bundle.manifest import GraphReport, Metric
from ..runtime.engines.tensorrt.engine_manifest import EngineManifest
from .verify.metrics import IMAGE_METRIC, LATENT_METRIC, RMS_METRIC

if TYPE_CHECKING:
    from .int8.graphs import Searched
    from .int8.search import Judges


_COLUMNS = {
    "max": LATENT_METRIC,
    "RMS": RMS_METRIC,
    "deviation": "max error of deviation, RMS of an image",
    "PSNR": IMAGE_METRIC,
    "through": "PSNR through both graphs",
}
"""Heading to the figure below it; all figures are in the manifest."""


def verification_table(reports: Sequence[GraphReport]) -> Table:
    """Return the worst figures of each graph, and before each precision what they are held to."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("graph", overflow="fold")  # what a narrow terminal folds is no figure
    for heading in (*_COLUMNS, "gate"):
        table.add_column(heading, justify="right", no_wrap=True)
    for precision in dict.fromkeys(report.precision for report in reports):
        of_precision = [report for report in reports if report.precision == precision]
        limits = [_worst(of_precision, name) for name in _COLUMNS.values()]
        table.add_row(f"{precision}, held to", *map(_limit, limits), style="dim")
        for title in dict.fromkeys(report.title for report in of_precision):
            of_graph = [report for report in of_precision if report.title == title]
            cells = [_value(_worst(of_graph, name)) for name in _COLUMNS.values()]
            passed = all(report.passed for report in of_graph)
            verdict = "ok" if passed else "FAILED"
            table.add_row(title, *cells, verdict, style=None if passed else "bold red")
        table.add_section()
    table.caption = (
        "max, RMS: error of a latent over its spread over the data; deviation: relative, of the "
        "posterior's\n"
        "PSNR: worst image in dB, decoded from true latents, and through both graphs"
    )
    return table


def _worst(reports: Sequence[GraphReport], name: str) -> Metric | None:
    """Return the worst of a figure, of those that are held to a limit if any is."""
    found = [m for report in reports for m in report.metrics if m.name == name]
    gated = [metric for metric in found if metric.limit is not None] or found
    if not gated:
        return None
    choose = min if gated[0].higher_is_better else max
    return choose(gated, key=lambda metric: metric.value)


def _value(metric: Metric | None) -> str:
    if metric is None:
        return ""
    return f"{metric.value:.1f}" if metric.unit == "dB" else f"{metric.value:.2g}"


def _limit(metric: Metric | None) -> str:
    if metric is None or metric.limit is None:
        return ""
    return f"{'≥' if metric.higher_is_better else '≤'} {metric.limit:g}"


def search_table(searched: Sequence[Searched]) -> Table:
    """Return what each candidate of the INT8 searches used of the gate, and which was kept.

    Of the candidates with more layers in float32 than is usual only those that were kept are shown.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("INT8 ranges", no_wrap=True)
    for search in searched:
        heading = f"{search.key.part}\n{search.key.target}"
        table.add_column(heading, justify="right", no_wrap=True)
    for ends in dict.fromkeys(trial.method.ends for trial in searched[0].trials):
        table.add_row(ends, *(_screened(search, ends) for search in searched))
    table.add_section()
    found = [search.trials[-1] for search in searched]
    table.add_row("best", *(trial.method.ends for trial in found), style="bold")
    table.add_row("equalised", *("yes" if trial.method.equalised else "" for trial in found))
    table.add_row("in float32", *("\n".join(trial.excluded) for trial in found))
    table.add_row("chosen at", *(_last(search, "choosing") for search in searched))
    table.add_row("judged at", *(_last(search, "judging") for search in searched), style="bold")
    table.add_row("", *("kept" if search.passed else "LEFT OUT" for search in searched))
    table.caption = (
        "largest share of a limit used: on some of the images that choose, on all of them,\n"
        "and on those that judge, there of what fresh images may reach"
    )
    return table


def _screened(search: Searched, ends: str) -> str:
    """Return what ranges that end so used at best, equalised or not."""
    usual = search.trials[0].excluded
    of_ends = [t for t in search.trials if (t.method.ends, t.excluded) == (ends, usual)]
    return f"{min(t.share for t in of_ends if t.judges == 'some'):.0%}"


def _last(search: Searched, judges: Judges) -> str:
    """Return what the last trial's candidate used of its limits by some of the images."""
    last = search.trials[-1]
    shares = [
        trial.share
        for trial in search.trials
        if (trial.method, trial.excluded, trial.judges) == (last.method, last.excluded, judges)
    ]
    return f"{shares[-1]:.0%}" if shares else "not run"


def engine_table(engine_manifests: Sequence[EngineManifest]) -> Table:
    """Return each engine with what was read back from it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("engine", "weights", "outputs", "size", "built in", "drift gate"):
        table.add_column(heading, justify="left" if heading == "engine" else "right", no_wrap=True)
    for engine_manifest in engine_manifests:
        precision, precision_report = engine_manifest.precision, engine_manifest.precision_report
        weights, outputs = precision_report.shares(precision)
        # What an INT8 engine hands on between layers is float; its label is about multiplications.
        told = (
            precision_report.share_of_multiplications(precision) if precision == "int8" else outputs
        )
        table.add_row(
            engine_manifest.key.title,
            f"{weights:.2%} {precision}",
            f"{told:.2%} {precision}",
            f"{engine_manifest.engine.size_bytes / 1e6:.1f} MB",
            f"{engine_manifest.build_seconds:.1f} s",
            "passed" if engine_manifest.verification.verified else "not run",
        )
    if engine_manifests:
        first = engine_manifests[0]
        sources = {first.precision_report.weights_from, first.precision_report.outputs_from}
        instead = ""
        if any(engine_manifest.precision == "int8" for engine_manifest in engine_manifests):
            sources.add(first.precision_report.multiplications_from)
            instead = "; of INT8 engines, multiplications instead of outputs"
        table.caption = (
            f"{first.package} {first.version} for compute capability "
            f"{', '.join(first.compute_capabilities)}; formats read back from the "
            f"{' and the '.join(sorted(sources))}{instead}"
        )
    return table
