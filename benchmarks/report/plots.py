"""Every sample of every case on a log axis, with its roofline, as one picture or by group."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ...runtime.core.atomic_files import replaced_file
from ..measure.case import Case, Group
from ..measure.result import Result
from ..measure.samples import Samples
from .tables import GROUPS, caption_of, figure_of, machine_line, mark_of, rates_line

# Okabe and Ito's colours, told apart with every common colour blindness.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8A7B00", "#555555")
_ROOFLINE = "#D55E00"
_ROW_INCHES = 0.32
_PANEL_INCHES = 0.95  # title, tick labels and axis label of one panel
_HEAD_LINE_INCHES = 0.22
_HEAD_CHARACTERS = 165  # that fit on a line of the head
_WIDTH_INCHES = 11.0
_LEFT, _ACROSS = 0.33, 0.44
_DPI = 150
_COLUMNS = ((1.10, "p50"), (1.21, "p99"), (1.32, "max"), (1.46, "x roof"))


_TITLES: dict[Group, str] = {
    "encoder": "Encoder: images to latents",
    "decoder": "Decoder: z to reconstructions",
    "path": "Path: from a frame to mu",
    "threads": "Threads: as installed, and ours",
    "start-up": "Start-up: from a command to its first latent",
    "memory": "Memory: peak resident set",
    "import": "Import of a package",
    "stream": "Stream: age of a latent",
    "gpu": "GPU: from host memory to host memory",
    "training": "Training: forward, loss, backward and Adam",
}


@dataclass(frozen=True)
class _Row:
    label: str
    colour: str
    case: Case
    series: Samples | None


def save_picture(path: Path, result: Result) -> None:
    """Draw all groups of a result as a PNG.

    Args:
        path: Where; replaced whole or not at all.
        result: What to draw.

    Raises:
        OutputError: It cannot be written.
    """
    panels = [(group, rows) for group in GROUPS if (rows := _rows(result, group))]
    heights = [_ROW_INCHES * len(rows) + _PANEL_INCHES for _, rows in panels]
    top = _head_inches(result)
    height = sum(heights) + top
    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    _head(figure, result, height)
    for (group, rows), panel in zip(panels, heights, strict=True):
        _panel(figure, group, rows, top=top, height=height)
        top += panel
    with replaced_file(path) as temporary:
        figure.savefig(temporary, format="png")


def figure_of_head(result: Result) -> Figure:
    """Draw what the other figures need to be read: machine, rates and the meaning of the marks."""
    height = _head_inches(result)
    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=_DPI)
    _head(figure, result, height)
    return figure


def figure_of_group(result: Result, group: Group) -> Figure | None:
    """Draw one group; None where nothing of it was measured."""
    rows = _rows(result, group)
    if not any(row.series for row in rows):
        return None
    height = _ROW_INCHES * len(rows) + _PANEL_INCHES
    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=_DPI)
    _panel(figure, group, rows, top=0, height=height)
    return figure


def colours_of(result: Result) -> dict[str, str]:
    """Return a colour for each engine, the same in every figure of a result."""
    engines = dict.fromkeys(case.engine for case in result.cases)
    return {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(engines)}


def _rows(result: Result, group: Group) -> list[_Row]:
    """Return the rows of a group, one for each stage of each case."""
    colours, rows = colours_of(result), []
    for case in result.cases:
        if case.group != group:
            continue
        what = case.what.removeprefix(group).removeprefix(", ")
        label = f"{what}  {case.how}{mark_of(case)}".strip()
        if case.not_measured is not None:
            rows.append(_Row(label, colours[case.engine], case, None))
        for stage, series in case.stages.items():
            words = label if series is case.whole else stage
            rows.append(_Row(words, colours[case.engine], case, series))
    return rows


def _panel(
    figure: Figure, group: Group, rows: Sequence[_Row], *, top: float, height: float
) -> None:
    """Draw a group into a figure of `height` inches, from `top` inches below its upper edge."""
    inner = _ROW_INCHES * len(rows)
    bottom = height - top - 0.3 - inner
    axes = figure.add_axes((_LEFT, bottom / height, _ACROSS, inner / height))
    _draw_panel(axes, _TITLES[group], rows)


def _head_lines(result: Result) -> list[str]:
    return [
        f"motorVAE latency, {caption_of(result)}",
        *textwrap.wrap(machine_line(result), _HEAD_CHARACTERS),
        *textwrap.wrap(rates_line(result), _HEAD_CHARACTERS),
    ]


def _head_inches(result: Result) -> float:
    return 0.6 + _HEAD_LINE_INCHES * len(_head_lines(result))


def _head(figure: Figure, result: Result, height: float) -> None:
    lines = _head_lines(result)
    for place, line in enumerate(lines):
        figure.text(
            0.02,
            1 - (0.28 + _HEAD_LINE_INCHES * place) / height,
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
        bbox_to_anchor=(0.013, 1 - (0.14 + _HEAD_LINE_INCHES * len(lines)) / height),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
    )


def _draw_panel(axes: Axes, title: str, rows: Sequence[_Row]) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.set_xscale("log")
    # Before anything is drawn: equal values alone would make limits without width.
    axes.set_xlim(*_limits(rows))
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
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=30))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize=8.5)
    axes.grid(axis="x", color="0.9", lw=0.7)
    axes.set_axisbelow(True)
    units = sorted({row.series.shown_in for row in rows if row.series})
    axes.set_xlabel(f"{' or '.join(units)}, log scale", fontsize=8.5, color="0.3")
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
    values = series.shown
    # Jitter keeps equal samples apart; it has no meaning and is the same in every drawing.
    jitter = np.random.default_rng(place).uniform(-0.26, 0.26, len(values))
    # As an image even in SVG: ten thousand circles make a page slow.
    axes.scatter(
        values, place + jitter, s=12, color=row.colour, alpha=0.5, linewidths=0, rasterized=True
    )
    axes.vlines(series.p50, place - 0.36, place + 0.36, color="black", lw=2)
    axes.vlines((series.p95, series.p99), place - 0.2, place + 0.2, color="black", lw=1.2)
    roofline = row.case.roofline if series is row.case.whole else None
    if roofline:
        axes.plot(roofline.least_ms, place, "D", ms=6, color=_ROOFLINE, zorder=4)
    figures = (
        figure_of(series.p50),
        figure_of(series.p99),
        figure_of(series.max),
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
    measured = [(row.case, row.series) for row in rows if row.series]
    if not measured:
        return 1.0, 10.0
    lows = [min(series.shown) for _, series in measured]
    lows += [case.roofline.least_ms for case, _ in measured if case.roofline]
    return min(lows) / 1.15, max(series.max for _, series in measured) * 1.15


def _kind(row: _Row) -> tuple[object, ...]:
    return (row.case.what,)
