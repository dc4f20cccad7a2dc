"""Verifications, INT8 searches and engines as tables on screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..runtime.bundle.graph_key import Tensor
from ..runtime.bundle.manifest import GraphReport
from ..runtime.engines.tensorrt.engine_manifest import EngineManifest
from .triton.manifest import ModelEntry
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


def empty_table(first: str, *others: str, overflow: bool = False) -> Table:
    """Return a table without rows; `overflow` folds its first column on a narrow terminal."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=not overflow)
    table.add_column(first, overflow="fold" if overflow else "ellipsis", no_wrap=not overflow)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def verification_table(reports: Sequence[GraphReport]) -> Table:
    """Return the worst figures of each graph, and before each precision what they are held to."""
    table = empty_table("graph", *_COLUMNS, "gate", overflow=True)
    for precision in dict.fromkeys(report.precision for report in reports):
        of_precision = [report for report in reports if report.precision == precision]
        limits = [_worst(of_precision, name)[1] for name in _COLUMNS.values()]
        table.add_row(f"{precision}, held to", *limits, style="dim")
        for title in dict.fromkeys(report.title for report in of_precision):
            of_graph = [report for report in of_precision if report.title == title]
            cells = [_worst(of_graph, name)[0] for name in _COLUMNS.values()]
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


def _worst(reports: Sequence[GraphReport], name: str) -> tuple[str, str]:
    """Return the worst of a figure, of those that are held to a limit if any is, and the limit."""
    found = [metric for report in reports for metric in report.metrics if metric.name == name]
    gated = [metric for metric in found if metric.limit is not None]
    if not found:
        return "", ""
    choose, sign = (min, "≥") if found[0].higher_is_better else (max, "≤")
    worst = choose(gated or found, key=lambda metric: metric.value)
    value = f"{worst.value:.1f}" if worst.unit == "dB" else f"{worst.value:.2g}"
    return value, f"{sign} {worst.limit:.3g}" if gated else ""


def frame_table(reports: Sequence[GraphReport]) -> Table:
    """Return the figures of encoders of whole frames, and what they are held to."""
    columns = {
        "picture": "mean difference, worst frame",
        "max": LATENT_METRIC,
        "RMS": RMS_METRIC,
        "own picture": "max error / spread, of its own pictures",
    }
    table = empty_table("graph", *columns, "gate", overflow=True)
    for title in dict.fromkeys(report.title for report in reports):
        of_graph = [report for report in reports if report.title == title]
        found = [_worst(of_graph, name) for name in columns.values()]
        passed = all(report.passed for report in of_graph)
        table.add_row(f"{title}, held to", *(limit for _, limit in found), style="dim")
        verdict, style = ("ok", None) if passed else ("FAILED", "bold red")
        table.add_row(title, *(value for value, _ in found), verdict, style=style)
    table.caption = (
        "picture: mean difference from the float64 reference of the worst frame, in levels\n"
        "max, RMS: error of mu over its spread over the data, held to that of a random level more\n"
        "or less in each pixel of the reference's; own picture: of the encoder alone\n"
        f"on {reports[0].images} frames made of held-out images"
    )
    return table


def search_table(searched: Sequence[Searched]) -> Table:
    """Return what each candidate of the INT8 searches used of the gate, and which was kept.

    Of the candidates with more layers in float32 than is usual only those that were kept are shown.
    """

    def screened(search: Searched, ends: str) -> str:  # equalised or not, the better
        usual = search.trials[0].excluded
        of_ends = [t for t in search.trials if (t.method.ends, t.excluded) == (ends, usual)]
        return f"{min(t.share for t in of_ends if t.judges == 'some'):.0%}"

    def last(search: Searched, judges: Judges) -> str:
        kept = (search.trials[-1].method, search.trials[-1].excluded, judges)
        shares = [t.share for t in search.trials if (t.method, t.excluded, t.judges) == kept]
        return f"{shares[-1]:.0%}" if shares else "not run"

    table = empty_table("INT8 ranges", *(f"{one.key.part}\n{one.key.target}" for one in searched))
    for ends in dict.fromkeys(trial.method.ends for trial in searched[0].trials):
        table.add_row(ends, *(screened(search, ends) for search in searched))
    table.add_section()
    found = [search.trials[-1] for search in searched]
    table.add_row("best", *(trial.method.ends for trial in found), style="bold")
    table.add_row("equalised", *("yes" if trial.method.equalised else "" for trial in found))
    table.add_row("in float32", *("\n".join(trial.excluded) for trial in found))
    if any(one.channels is not None for one in searched):
        table.add_row("channels", *map(_channels_kept, searched))
    table.add_row("chosen at", *(last(search, "choosing") for search in searched))
    table.add_row("judged at", *(last(search, "judging") for search in searched), style="bold")
    table.add_row("", *("kept" if search.passed else "LEFT OUT" for search in searched))
    table.caption = (
        "largest share of a limit used: on some of the images that choose, on all of them,\n"
        "and on those that judge, there of what fresh images may reach"
    )
    return table


def _channels_kept(search: Searched) -> str:
    if search.channels is None:  # a decoder, which keeps all
        return ""
    return "\n".join(one.replace(": ", "\n") for one in search.channels) or "all needed"


def engine_table(engines: Sequence[EngineManifest]) -> Table:
    """Return each of some engines of one package with what was read back from it."""
    table = empty_table("engine", "weights", "outputs", "size", "built in", "drift gate")
    sources: set[str] = set()
    for engine in engines:
        precision, report = engine.precision, engine.precision_report
        weights, outputs = report.shares(precision)
        sources |= {report.weights_from, report.outputs_from}
        # What an INT8 engine hands on between layers is float; its label is about multiplications.
        if precision == "int8":
            outputs = report.share_of_multiplications(precision)
            sources.add(report.multiplications_from)
        table.add_row(
            engine.key.title,
            f"{weights:.2%} {precision}",
            f"{outputs:.2%} {precision}",
            f"{engine.engine.size_bytes / 1e6:.1f} MB",
            f"{engine.build_seconds:.1f} s",
            "passed" if engine.verification.verified else "not run",
        )
    table.caption = (
        f"{engines[0].package} {engines[0].version} for compute capability "
        f"{', '.join(engines[0].compute_capabilities)}; formats read back from the "
        f"{' and the '.join(sorted(sources))}"
    )
    if any(engine.precision == "int8" for engine in engines):
        table.caption += "; of INT8 engines, multiplications instead of outputs"
    for engine in engines:
        if (placed := engine.precision_report.dla) is not None:
            table.caption += f"\n{engine.key.title}: {placed.sentence}"
    return table


def routes_table(engine: EngineManifest) -> Table:
    """Return the build routes that were tried for an engine, each against the default one."""
    table = empty_table(f"{engine.key.title}: build route", "time", "default", "verdict")
    for route in engine.routes:
        times = [f"{value:.3f} ms" for value in route.times.medians] if route.times else ["", ""]
        table.add_row(route.name, *times, route.verdict.upper() if route.reason else route.verdict)
    timed = next((route.times for route in engine.routes if route.times), None)
    if timed is not None:
        table.caption = (
            f"medians at batch {timed.batch} by the GPU's clock (CUDA events), in turns with the "
            "default; kept is\nwhat passes the gate and is clearly faster"
        )
    return table


def models_table(models: Sequence[ModelEntry]) -> Table:
    """Return the models of a repository, what each takes and gives, and the most images per run."""
    table = empty_table("model", "takes", "gives", "batch", overflow=True)
    table.collapse_padding = True  # a name and a reconstruction fit into 80 columns
    for one in models:
        takes, gives = ("\n".join(map(_tensor, tensors)) for tensors in (one.inputs, one.outputs))
        table.add_row(one.name, takes, gives, str(one.max_batch_size or "any"))
    return table


def _tensor(tensor: Tensor) -> str:
    """Return such as "frame 480x640x3 uint8"; float32 goes without saying."""
    dtype = "" if tensor.dtype == "float32" else f" {tensor.dtype}"
    return f"{tensor.name} {'x'.join(map(str, tensor.shape[1:]))}{dtype}"
