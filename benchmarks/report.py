"""The result as a picture: every sample of every case on a log axis, with its roofline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..runtime.files import replaced_file
from .results import Case, Result, Series
from .table import caption_of, figure_of, machine_line, rates_line

# Okabe and Ito's colours, told apart with every common colour blindness.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
_ROOFLINE = "#D55E00"
_ROW_INCHES = 0.36
_PANEL_INCHES = 0.95  # title, tick labels and axis label of one panel
_HEAD_INCHES = 1.25
_WIDTH_INCHES = 11.0
_DPI = 150
_COLUMNS = ((1.075, "p50"), (1.15, "p99"), (1.225, "max"), (1.33, "x roofline"))


@dataclass(frozen=True)
class _Row:
    label: str
    colour: str
    case: Case
    series: Series | None


def save_picture(path: Path, result: Result) -> None:
    """Draw a result as a PNG.

    Args:
        path: Where; replaced whole or not at all.
        result: What to draw.

    Raises:
        OutputError: It cannot be written.
    """
    panels = [(title, rows) for title, rows in _panels(result) if rows]
    heights = [_ROW_INCHES * len(rows) + _PANEL_INCHES for _, rows in panels]
    height = sum(heights) + _HEAD_INCHES
    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    _head(figure, result, height)
    top = _HEAD_INCHES
    for (title, rows), panel in zip(panels, heights, strict=True):
        inner = _ROW_INCHES * len(rows)
        bottom = height - top - 0.3 - inner
        axes = figure.add_axes((0.2, bottom / height, 0.55, inner / height))
        _draw_panel(axes, title, rows)
        top += panel
    with replaced_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _panels(result: Result) -> list[tuple[str, list[_Row]]]:
    """Return the panels top to bottom, each with its rows."""
    engines = list(dict.fromkeys(case.engine for case in result.cases if not case.frame))
    colour = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(engines)}
    graphs: dict[str, list[_Row]] = {"encoder": [], "decoder": [], "training": []}
    paths: list[_Row] = []
    for case in result.cases:
        if case.frame:
            for place, (stage, series) in enumerate(case.stages.items()):
                label = f"{case.frame[0]}x{case.frame[1]}  {stage}{' *' if case.warnings else ''}"
                paths.append(_Row(label, _COLOURS[2 + place], case, series))
            continue
        first = next(iter(case.stages.values()), None)
        what = "" if case.group == "training" else f"batch {case.batch}  "
        label = f"{what}{case.engine}{' *' if case.warnings else ''}"
        graphs[case.group].append(_Row(label, colour[case.engine], case, first))
    training = graphs["training"]
    step_images = f" on {training[0].case.batch} images" if training else ""
    return [
        ("Encoder: images to mu and log_var", graphs["encoder"]),
        ("Decoder: z to reconstructions", graphs["decoder"]),
        ("Frame to latent: BGR frame in memory to mu, ONNX Runtime", paths),
        (f"Training: forward, loss, backward and Adam{step_images}", training),
    ]


def _head(figure: Figure, result: Result, height: float) -> None:
    lines = (f"motorVAE latency, {caption_of(result)}", machine_line(result), rates_line(result))
    for place, line in enumerate(lines):
        figure.text(
            0.02,
            1 - (0.28 + 0.22 * place) / height,
            line,
            fontsize=13 if place == 0 else 9,
            fontweight="bold" if place == 0 else "normal",
            color="black" if place == 0 else "0.3",
        )
    grey = "0.35"
    handles = [
        Line2D([], [], marker="o", ls="", ms=4, color=grey, alpha=0.5, label="one call"),
        Line2D([], [], marker="|", ls="", ms=13, mew=2, color="black", label="p50"),
        Line2D([], [], marker="|", ls="", ms=8, mew=1.2, color="black", label="p95, p99"),
        Line2D([], [], marker="D", ls="", ms=6, color=_ROOFLINE, label="roofline (least time)"),
        Line2D([], [], marker="$*$", ls="", ms=7, color="black", label="unstable, see the table"),
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.013, 1 - 0.8 / height),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
    )


def _draw_panel(axes: Axes, title: str, rows: Sequence[_Row]) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.set_xscale("log")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=9)
    axes.tick_params(axis="y", length=0)
    columns = _COLUMNS if any(row.case.roofline for row in rows) else _COLUMNS[:-1]
    for place, heading in columns:
        axes.annotate(
            heading,
            (place, 1),
            (0, 6),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            color="0.3",
        )
    for place, row in enumerate(rows):
        _draw_row(axes, place, row)
        if place and _kind(row) != _kind(rows[place - 1]):
            axes.axhline(place - 0.5, color="0.8", lw=0.8)
    axes.set_xlim(*_limits(rows))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=30))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize=8.5)
    axes.grid(axis="x", color="0.9", lw=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel("ms of one call, log scale", fontsize=8.5, color="0.3")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _draw_row(axes: Axes, place: int, row: _Row) -> None:
    if row.series is None:
        axes.text(
            0.01,
            place,
            "not measured",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
            style="italic",
            color="0.4",
        )
        return
    series = row.series
    values_ms = np.asarray(series.samples_ns, np.float64) / 1e6
    # Jitter keeps equal samples apart; it has no meaning and is the same in every drawing.
    jitter = np.random.default_rng(place).uniform(-0.26, 0.26, len(values_ms))
    axes.scatter(values_ms, place + jitter, s=12, color=row.colour, alpha=0.5, linewidths=0)
    axes.vlines(series.p50_ms, place - 0.36, place + 0.36, color="black", lw=2)
    axes.vlines((series.p95_ms, series.p99_ms), place - 0.2, place + 0.2, color="black", lw=1.2)
    roofline = row.case.roofline
    if roofline:
        axes.plot(roofline.least_ms, place, "D", ms=6, color=_ROOFLINE, zorder=4)
    figures = (
        figure_of(series.p50_ms),
        figure_of(series.p99_ms),
        figure_of(series.max_ms),
        f"{roofline.times:.1f}" if roofline else "",
    )
    for (across, _), text in zip(_COLUMNS, figures, strict=True):
        axes.text(
            across,
            place,
            text,
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=9,
        )


def _limits(rows: Sequence[_Row]) -> tuple[float, float]:
    """Return limits that hold every sample and every roofline, with a little air."""
    measured = [row for row in rows if row.series]
    if not measured:
        return 1.0, 10.0
    lows = [min(row.series.samples_ns) / 1e6 for row in measured if row.series]
    lows += [row.case.roofline.least_ms for row in measured if row.case.roofline]
    highs = [row.series.max_ms for row in measured if row.series]
    return min(lows) / 1.15, max(highs) * 1.15


def _kind(row: _Row) -> tuple[object, ...]:
    return row.case.frame, row.case.batch
