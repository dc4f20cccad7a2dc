"""Every figure of a result: samples on a log axis, latency against error, and the roofline."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ...runtime.bundle.graph_key import Part, Precision
from ...runtime.bundle.manifest import Metric
from ...runtime.core.atomic_files import replaced_file
from ..measure.case import Case, Group, Samples
from ..measure.result import Result
from .tables import caption_of, digits_of, leaders_of, machine_line, mark_of, operations_of

# Okabe and Ito's colours, distinct with every common colour blindness.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8A7B00", "#555555")
_ROOFLINE = "#D55E00"
_GREY = "0.35"
_MARKERS: dict[Precision, str] = {"fp32": "o", "bf16": "s", "fp16": "D", "int8": "^"}
_DASHES: dict[Precision, str] = {"fp32": "-", "bf16": "--", "fp16": "-.", "int8": ":"}
_WIDTH_INCHES, _DPI = 12.0, 100
_ROWS_INCHES = 7.6
"""With more rows a figure would not fit a screen: the rest goes to the next one."""
_LABEL_CHARACTERS = 48  # on a line of a row's label
_COLUMNS = ((44, "p50"), (88, "p90"), (132, "p99"), (176, "max"), (220, "x roof"))
"""Where figures end, in points to the right of the axes."""


@dataclass(frozen=True)
class _Bar:
    label: str
    case: Case
    samples: Samples | None


@dataclass(frozen=True)
class _Point:
    case: Case
    x: float
    y: float
    gate: Metric | None = None

    @property
    def passed(self) -> bool:
        return self.gate is None or self.gate.passed


def save_picture(path: Path, result: Result) -> None:
    """Draw the samples of the fastest of each kind as a PNG that fits a screen."""
    cases = [leader.case for leader in leaders_of(result)]
    bars = [_Bar(_label(f"{case.what}: {case.how}", case), case, case.whole) for case in cases]
    machine = textwrap.fill(machine_line(result), 150)
    figure = _samples_figure(result, f"motorVAE benchmark, {caption_of(result)}\n{machine}", bars)
    with replaced_file(path) as temporary:
        figure.savefig(temporary, format="png")


def group_figures(result: Result, group: Group) -> Iterator[Figure]:
    """Draw every sample of a group, as many a figure as fit; none where nothing was measured."""
    bars: list[_Bar] = []
    for case in result.cases:
        if case.group != group:
            continue
        what = case.what.removeprefix(group).removeprefix(", ")
        label = _label(f"{what}: {case.how}" if what else case.how, case)
        if case.not_measured is not None:
            bars.append(_Bar(label, case, None))
        for stage, samples in case.stages.items():
            bars.append(_Bar(label if samples is case.whole else stage, case, samples))
    if any(bar.samples for bar in bars):
        most = int(_ROWS_INCHES / _row_inches(bars))
        for start in range(0, len(bars), most):
            yield _samples_figure(result, f"{group}: every sample", bars[start : start + most])


def pareto_of(result: Result, part: Part) -> Figure | None:
    """Draw p50 of one image against what the drift gate found; None where it looked at none.

    Encoders by the largest error of a latent over its spread, decoders by the PSNR of the worst
    reconstruction. What failed the gate is hollow, and no part of the frontier.
    """
    is_encoder = part == "encoder"
    points = [
        _Point(case, case.whole.p50, gate.value, gate)
        for case in result.cases
        if case.group == part and case.batch == 1 and case.whole
        if (gate := case.latent_error if is_encoder else case.psnr)
        if np.isfinite(gate.value) and gate.value > 0
    ]
    if not points:
        return None
    figure, axes = _figure(f"{part.capitalize()}: latency against what the drift gate found")
    axes.set(xscale="log", xlabel="p50 of one image in ms, log scale")
    if is_encoder:
        axes.set(yscale="log", ylabel="largest error of a latent / its spread, log scale")
    else:
        axes.set_ylabel("PSNR of the worst reconstruction in dB")
    front = _front(points, lower_is_better=is_encoder)
    xs, ys = [point.x for point in front], [point.y for point in front]
    axes.step(xs, ys, where="post", color="0.75", lw=1.2, zorder=1)
    limits: dict[float, dict[Precision, None]] = {}
    for point in points:
        if point.gate and point.gate.limit is not None:
            limits.setdefault(point.gate.limit, {})[point.case.precision] = None
    across = axes.get_yaxis_transform()
    for limit, precisions in limits.items():
        axes.axhline(limit, color="0.6", lw=0.9, ls=_DASHES[next(iter(precisions))], zorder=0)
        text = f"limit of {' and '.join(precisions)}"
        _name(axes, text, (1, limit), (-4, 3), xycoords=across, ha="right", color=_GREY)
    for point in front:
        _name(axes, textwrap.fill(point.case.how, 40), (point.x, point.y), (7, 5))
    _scatter(axes, points, result)
    return figure


def roofline_figure(result: Result) -> Figure | None:
    """Draw arithmetic intensity against the rate reached, under the machine's measured roofs.

    The model of Williams, Waterman and Patterson (2009), both axes logarithmic. None where no
    case has its work counted.
    """
    points = [
        _Point(
            case,
            case.roofline.cost.flops / case.roofline.cost.moved_bytes,
            case.roofline.cost.flops / case.whole.p50 / 1e6,
        )
        for case in result.cases
        if case.roofline and case.whole
    ]
    if not points or result.read_memory is None:
        return None
    figure, axes = _figure("Roofline: the rate reached, under what the machine can do at best")
    axes.set(xscale="log", yscale="log", ylabel="billion operations a second at p50, log scale")
    axes.set_xlabel("operations for each byte of weights, input and output, log scale")
    bandwidth = result.read_memory.best_per_s / 1e9
    lowest = min(min(point.x for point in points) / 2, 1.0)
    most = max(point.x for point in points) * 6  # room for names on the right
    across = np.geomspace(lowest, most, 200)
    for precision, rate in result.matrix.items():
        roof = rate.best_per_s / 1e9
        roofs = np.minimum(roof, bandwidth * across)
        axes.plot(across, roofs, color="black", lw=1.2, ls=_DASHES[precision], zorder=0)
        name = f"{precision} matrix {roof:.0f} {operations_of(precision)}"
        _name(axes, name, (most, roof), (0, 4), ha="right")
    for x, name in {point.x: point.case.what for point in points}.items():
        lowest_y = min(point.y for point in points if point.x == x)
        _name(axes, name, (x, lowest_y), (0, -8), rotation=90, ha="center", va="top", color=_GREY)
    axes.set_ylim(bottom=min(point.y for point in points) / 6)  # room for names below
    _name(axes, f"read {bandwidth:.1f} GB/s", (lowest, bandwidth * lowest), (6, 0), va="top")
    _scatter(axes, points, result)
    return figure


def _samples_figure(result: Result, title: str, bars: Sequence[_Bar]) -> Figure:
    figure, axes = _figure(title, _row_inches(bars) * len(bars) + 2.0)
    colours = _colours_of(result)
    # Before anything is drawn: equal values alone would make limits without width.
    axes.set(xscale="log", xlim=_limits(bars), ylim=(len(bars) - 0.5, -0.5))
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars], fontsize=9)
    axes.tick_params(axis="y", length=0)
    columns = _COLUMNS if any(bar.case.roofline for bar in bars) else _COLUMNS[:-1]
    for place, heading in columns:
        _name(axes, heading, (1, 1), (place, 4), xycoords="axes fraction", ha="right", color=_GREY)
    for place, bar in enumerate(bars):
        _draw_bar(axes, place, bar, colours[bar.case.engine])
        if place and bar.case.what != bars[place - 1].case.what:
            axes.axhline(place - 0.5, color="0.8", lw=0.8)
    units = sorted({bar.samples.shown_in for bar in bars if bar.samples})
    axes.set_xlabel(f"{' or '.join(units)}, log scale", fontsize=9, color=_GREY)
    _finish(
        axes,
        [
            _handle("one call", marker="o", ms=4, color=_GREY, alpha=0.5),
            _handle("p50", marker="|", ms=13, mew=2),
            _handle("p90, p95, p99", marker="|", ms=8, mew=1.2),
            _handle("roofline (least time)", marker="D", ms=6, color=_ROOFLINE),
            _handle("unstable", marker="$*$", ms=7),
        ],
    )
    return figure


def _row_inches(bars: Sequence[_Bar]) -> float:
    lines = max((bar.label.count("\n") + 1 for bar in bars), default=1)
    return 0.08 + 0.15 * max(lines, 2)


def _draw_bar(axes: Axes, place: int, bar: _Bar, colour: str) -> None:
    beside = axes.get_yaxis_transform()
    if bar.samples is None:
        grey: dict[str, Any] = {"va": "center", "fontsize": 9, "style": "italic", "color": "0.4"}
        axes.text(0.01, place, "not measured", transform=beside, **grey)
        return
    values, samples = bar.samples.shown, bar.samples
    # Jitter keeps equal samples apart; it has no meaning and is the same in every drawing.
    heights = place + np.random.default_rng(place).uniform(-0.26, 0.26, len(values))
    # As an image even in SVG: ten thousand circles make a page slow.
    axes.scatter(values, heights, s=12, color=colour, alpha=0.5, linewidths=0, rasterized=True)
    axes.vlines(samples.p50, place - 0.36, place + 0.36, color="black", lw=2)
    axes.vlines(
        (samples.p90, samples.p95, samples.p99), place - 0.2, place + 0.2, color="black", lw=1.2
    )
    figures = [digits_of(value) for value in (samples.p50, samples.p90, samples.p99, samples.max)]
    if bar.case.roofline and samples is bar.case.whole:
        axes.plot(bar.case.roofline.least_ms, place, "D", ms=6, color=_ROOFLINE, zorder=4)
        figures.append(f"{bar.case.roofline.times:.1f}")
    for (across, _), text in zip(_COLUMNS, figures, strict=False):
        _name(axes, text, (1, place), (across, 0), xycoords=beside, ha="right", va="center")


def _limits(bars: Sequence[_Bar]) -> tuple[float, float]:
    """Return limits that hold every sample and every roofline, with a little air."""
    lows = [min(bar.samples.shown) for bar in bars if bar.samples]
    if not lows:
        return 1.0, 10.0
    lows += [bar.case.roofline.least_ms for bar in bars if bar.samples and bar.case.roofline]
    return min(lows) / 1.15, max(bar.samples.max for bar in bars if bar.samples) * 1.15


def _label(text: str, case: Case) -> str:
    return textwrap.fill(text + mark_of(case), _LABEL_CHARACTERS)


def _colours_of(result: Result) -> dict[str, str]:
    """Return a colour for each engine, the same in every figure of a result."""
    engines = dict.fromkeys(case.engine for case in result.cases)
    return {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(engines)}


def _figure(title: str, height: float = 6.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=_DPI, layout="constrained")
    if engine := figure.get_layout_engine():
        engine.set(w_pad=0.15, h_pad=0.15)  # type: ignore[call-arg]  # of the constrained layout
    figure.suptitle(title, x=0.015, ha="left", fontsize=10.5)
    axes = figure.add_subplot()
    axes.grid(color="0.92", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _name(
    axes: Axes, text: str, where: tuple[float, float], away: tuple[int, int], **look: Any
) -> None:
    """Write a few words beside a point, `away` from it in points."""
    axes.annotate(text, where, away, textcoords="offset points", fontsize=8.5, **look)


def _scatter(axes: Axes, points: Sequence[_Point], result: Result) -> None:
    """Draw the points: engines by colour, precisions by shape, both explained below the axes."""
    colours = _colours_of(result)
    handles = {}
    for point in points:
        engine, precision = point.case.engine, point.case.precision
        colour, marker = colours[engine], _MARKERS[precision]
        inside = colour if point.passed else "none"
        axes.scatter(
            point.x, point.y, s=46, marker=marker, facecolor=inside, edgecolor=colour, alpha=0.85
        )
        handles[engine] = _handle(engine, color=colour)
    for point in points:
        precision = point.case.precision
        handles[precision] = _handle(precision, marker=_MARKERS[precision], color=_GREY)
    if not all(point.passed for point in points):
        handles["hollow"] = _handle("failed the gate", color=_GREY, mfc="none")
    _finish(axes, list(handles.values()))


def _handle(label: str, *, marker: str = "o", color: str = "black", **look: Any) -> Line2D:
    return Line2D([], [], marker=marker, ls="", color=color, label=label, **look)


def _front(points: Sequence[_Point], *, lower_is_better: bool) -> list[_Point]:
    """Return the points that passed and that none beats in both, fastest first."""
    sign = 1 if lower_is_better else -1
    front: list[_Point] = []
    for point in sorted((p for p in points if p.passed), key=lambda p: (p.x, sign * p.y)):
        if not front or sign * point.y < sign * front[-1].y:
            front.append(point)
    return front


def _finish(axes: Axes, handles: list[Line2D]) -> None:
    """Add the legend, and write 0.5 and 20 on log axes that span few decades, not powers of ten."""
    axes.figure.legend(
        handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=9
    )
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if axis.get_scale() == "log" and limits[1] / limits[0] < 1e4:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=30))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
