"""Figures of the report beside the samples: latency against error, and the roofline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ...runtime.bundle.graph_key import Part, Precision
from ...runtime.bundle.manifest import Metric
from ..measure.case import Case
from ..measure.result import Result
from .plots import colours_of
from .tables import operations_of

_MARKERS: dict[Precision, str] = {"fp32": "o", "bf16": "s", "fp16": "D", "int8": "^"}
_DASHES: dict[Precision, str] = {"fp32": "-", "bf16": "--", "fp16": "-.", "int8": ":"}
_SIZE_INCHES = (8.0, 5.2)
_GREY = "0.35"


@dataclass(frozen=True)
class _Point:
    case: Case
    x: float
    y: float
    is_held: bool = True


def pareto_of(result: Result, graph: Part) -> Figure | None:
    """Draw p50 of one image against what the drift gate found; None where it looked at none.

    Encoders by the largest error of a latent over its spread, decoders by the PSNR of the worst
    reconstruction. What failed the gate is hollow, and no part of the frontier.
    """
    is_encoder = graph == "encoder"
    points = [
        _Point(case, case.whole.p50, gate.value, gate.passed)
        for case in result.cases
        if case.group == graph and case.batch == 1 and case.whole and (gate := _gate(case))
        if np.isfinite(gate.value) and gate.value > 0
    ]
    if not points:
        return None
    figure, axes = _figure(f"{graph.capitalize()}: latency against what the drift gate found")
    axes.set_xscale("log")
    axes.set_xlabel("p50 of one image in ms, log scale")
    if is_encoder:
        axes.set_yscale("log")
        axes.set_ylabel("largest error of a latent / its spread, log scale")
    else:
        axes.set_ylabel("PSNR of the worst reconstruction in dB")
    front = _front(points, lower_is_better=is_encoder)
    axes.step(
        [point.x for point in front],
        [point.y for point in front],
        where="post",
        color="0.75",
        lw=1.2,
        zorder=1,
    )
    for limit, precisions in _limits(points).items():
        axes.axhline(limit, color="0.6", lw=0.9, ls=_DASHES[precisions[0]], zorder=0)
        axes.annotate(
            f"limit of {' and '.join(precisions)}",
            (1, limit),
            (-4, 3),
            fontsize=8,
            color=_GREY,
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
        )
    for point in front:
        axes.annotate(
            point.case.how, (point.x, point.y), (7, 5), fontsize=8, textcoords="offset points"
        )
    _scatter(axes, points, colours_of(result))
    _legend(axes, points, colours_of(result))
    _plain_numbers(axes)
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
    if not points:
        return None
    figure, axes = _figure("Roofline: the rate reached, under what the machine can do at best")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations for each byte of weights, input and output, log scale")
    axes.set_ylabel("billion operations a second at p50, log scale")
    bandwidth = result.read_memory.best_per_s / 1e9
    lowest = min(min(point.x for point in points) / 2, 1.0)
    most = max(point.x for point in points) * 6  # room for names on the right
    across = np.geomspace(lowest, most, 200)
    for precision, rate in result.matrix.items():
        roof = rate.best_per_s / 1e9
        axes.plot(
            across,
            np.minimum(roof, bandwidth * across),
            color="black",
            lw=1.2,
            ls=_DASHES[precision],
            zorder=0,
        )
        axes.annotate(
            f"{precision} matrix {roof:.0f} {operations_of(precision)}",
            (most, roof),
            (0, 4),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    for x, name in {point.x: point.case.what for point in points}.items():
        lowest_y = min(point.y for point in points if point.x == x)
        axes.annotate(
            name,
            (x, lowest_y),
            (0, -8),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="top",
            fontsize=7.5,
            color=_GREY,
        )
    axes.set_ylim(bottom=min(point.y for point in points) / 6)  # room for names below
    _scatter(axes, points, colours_of(result))
    _legend(axes, points, colours_of(result))
    axes.annotate(
        f"read {bandwidth:.1f} GB/s",
        (lowest, bandwidth * lowest),
        (6, 0),
        textcoords="offset points",
        va="top",
        fontsize=8,
    )
    _plain_numbers(axes)
    return figure


def _gate(case: Case) -> Metric | None:
    return case.latent_error if case.group == "encoder" else case.psnr


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_INCHES, dpi=150, layout="constrained")
    if engine := figure.get_layout_engine():
        engine.set(w_pad=0.15, h_pad=0.15)  # type: ignore[call-arg]  # of the constrained layout
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.grid(color="0.92", lw=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _scatter(axes: Axes, points: Sequence[_Point], colours: dict[str, str]) -> None:
    for point in points:
        colour = colours[point.case.engine]
        axes.scatter(
            point.x,
            point.y,
            s=46,
            marker=_MARKERS[point.case.precision],
            facecolor=colour if point.is_held else "none",
            edgecolor=colour,
            alpha=0.85,
        )


def _legend(axes: Axes, points: Sequence[_Point], colours: dict[str, str]) -> None:
    """Tell engines by colour and precisions by shape, below the axes, where no point is."""
    handles = [
        Line2D([], [], marker="o", ls="", color=colours[engine], label=engine)
        for engine in dict.fromkeys(point.case.engine for point in points)
    ]
    handles += [
        Line2D([], [], marker=_MARKERS[precision], ls="", color=_GREY, label=precision)
        for precision in dict.fromkeys(point.case.precision for point in points)
    ]
    if not all(point.is_held for point in points):
        handles.append(
            Line2D([], [], marker="o", ls="", color=_GREY, mfc="none", label="failed the gate")
        )
    axes.figure.legend(
        handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )


def _limits(points: Sequence[_Point]) -> dict[float, list[Precision]]:
    """Return each limit of the gate with the precisions that it is for."""
    found: dict[float, list[Precision]] = {}
    for point in points:
        gate, precision = _gate(point.case), point.case.precision
        if gate is not None and gate.limit is not None:
            precisions = found.setdefault(gate.limit, [])
            if precision not in precisions:
                precisions.append(precision)
    return found


def _front(points: Sequence[_Point], *, lower_is_better: bool) -> list[_Point]:
    """Return the points that passed and that none beats in both, fastest first."""
    sign = 1 if lower_is_better else -1
    front: list[_Point] = []
    for point in sorted((p for p in points if p.is_held), key=lambda p: (p.x, sign * p.y)):
        if not front or sign * point.y < sign * front[-1].y:
            front.append(point)
    return front


def _plain_numbers(axes: Axes) -> None:
    """Write 0.5 and 20 on logarithmic axes that span few decades, not powers of ten."""
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if axis.get_scale() == "log" and limits[1] / limits[0] < 1e4:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=30))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
