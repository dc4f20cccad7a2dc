"""Curves of several runs in one picture, by matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..figures import literal, png_of_figure
from .runs import RunHistory

_PANELS = {
    "held_out_reconstruction": "squared error of held-out images (sum over pixels)",
    "held_out_kl": "KL of held-out images (nats, sum over latents)",
}
_ACROSS = {"elapsed_s": ("minutes of training", 1 / 60), "steps": ("steps", 1.0)}
_MARKED = 30
"""Epochs; of fewer each has a marker."""


def chart_of_runs(names: Sequence[str], histories: Sequence[RunHistory]) -> bytes:
    """Draw error and KL over time and over steps, a line a run, its best epoch marked; a PNG."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    colours = mpl.colormaps["tab10" if len(names) <= 10 else "turbo"]
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        axes = figure.subplots(len(_PANELS), len(_ACROSS), squeeze=False)
    for row, (column, label) in zip(axes, _PANELS.items(), strict=True):
        for plot, (across, (title, scale)) in zip(row, _ACROSS.items(), strict=True):
            for number, (name, run) in enumerate(zip(names, histories, strict=True)):
                share = number if len(names) <= 10 else number / (len(names) - 1)
                colour = colours(share)
                _draw(plot, run, (across, column), name=name, scale=scale, colour=colour)
            values = [row[column] for run in histories for row in run.rows]
            if any(0 < value < math.inf for value in values):  # of a run that diverged none is
                plot.set_yscale("log")
            plot.set_xlabel(title)
            plot.set_title(label, fontsize=10)
    axes[0][0].legend(frameon=False, fontsize=9)
    axes[0][1].plot([], [], "o", color="0.4", markerfacecolor="none", label="best epoch")
    axes[0][1].legend(frameon=False, fontsize=9)
    return png_of_figure(figure, dpi=110)


def _draw(
    plot: Axes,
    run: RunHistory,
    columns: tuple[str, str],
    *,
    name: str,
    scale: float,
    colour: tuple[float, float, float, float],
) -> None:
    across, column = columns
    plot.plot(
        [row[across] * scale for row in run.rows],
        [row[column] for row in run.rows],
        marker="." if len(run.rows) < _MARKED else "",
        color=colour,
        linewidth=1.4,
        label=literal(name),
    )
    plot.plot(
        [run.best[across] * scale], [run.best[column]], "o", color=colour, markerfacecolor="none"
    )
