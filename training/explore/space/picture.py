"""The map as a picture: dots, and as many thumbnails as do not hide each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..figures import literal, png_of_figure
from .colouring import Colouring
from .originals import Thumbnails

_INCHES, _DPI = (11.0, 9.0), 120
_SHOWN = 0.042  # side of a thumbnail, of the map's width
_APART = 1.12  # sides of a thumbnail
_LONGEST = 28
_LARGEST, _LEAST_SPAN = 1e100, 1e-9
"""Of numbers with ticks between them, and of their span against the larger of them."""


def picture_of(
    coordinates: npt.NDArray[np.float64],
    thumbnails: Thumbnails,
    colouring: Colouring,
    *,
    title: str,
    axes_names: tuple[str, str],
) -> bytes:
    """Draw a map of points (N, 2) as a PNG file's bytes."""
    figure = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.subplots()
    size = 30 if len(coordinates) <= 500 else 12
    plot.scatter(
        coordinates[:, 0], coordinates[:, 1], s=size, c=colouring.colours, linewidths=0, zorder=1
    )
    spans = np.maximum(np.ptp(coordinates, axis=0), 1e-12)
    low = coordinates.min(0) - 0.05 * spans
    high = coordinates.max(0) + 0.05 * spans
    plot.set_xlim(low[0], high[0])
    plot.set_ylim(low[1], high[1])
    # Thumbnails are square on paper, whatever the units of the two axes.
    sides = (high - low) * _SHOWN * np.array([1, _INCHES[0] / _INCHES[1]])
    for row in spread_out(coordinates / sides, thumbnails.found, _APART):
        (x, y), (width, height) = coordinates[row], sides
        left, right = x - width / 2, x + width / 2
        bottom, top = y - height / 2, y + height / 2
        edge = colouring.colours[row]
        image = thumbnails.images[row][:, :, ::-1]
        plot.imshow(image, extent=(left, right, bottom, top), aspect="auto", zorder=2)
        corners = [left, right, right, left, left], [bottom, bottom, top, top, bottom]
        plot.add_line(Line2D(*corners, color=edge, linewidth=1.5, zorder=3))
    plot.set_xlim(low[0], high[0])
    plot.set_ylim(low[1], high[1])
    plot.set_title(literal(title))
    plot.set_xlabel(axes_names[0])
    plot.set_ylabel(axes_names[1])
    plot.tick_params(labelsize=8, colors="0.4")
    _add_legend(figure, colouring)
    return png_of_figure(figure, dpi=_DPI)


def spread_out(
    points: npt.NDArray[np.float64], allowed: npt.NDArray[np.bool_], apart: float
) -> list[int]:
    """Return rows of (N, 2) points that are allowed, no two nearer than `apart` on both axes.

    Of rows that are too near each other it is the first.
    """
    kept: list[int] = []
    for row in np.flatnonzero(allowed):
        away = np.abs(points[kept] - points[row])
        if not kept or (away.max(1) >= apart).all():
            kept.append(int(row))
    return kept


def _add_legend(figure: Figure, colouring: Colouring) -> None:
    plot = figure.axes[0]
    title = literal(colouring.title[:_LONGEST])
    if colouring.ends is not None:
        low, high = map(float, colouring.ends)
        # Of other ends its arithmetic overflows, or finds no ticks between them.
        has_ticks = _LEAST_SPAN * max(abs(low), abs(high), 1 / _LARGEST) < high - low < _LARGEST
        norm = Normalize(low, high) if has_ticks else Normalize(0, 1)
        scale = ScalarMappable(norm, ListedColormap(list(colouring.palette)))
        bar = figure.colorbar(scale, ax=plot, label=title, fraction=0.03)
        if not has_ticks:
            bar.set_ticks([0, 1], labels=list(colouring.ends))
    elif colouring.classes:
        handles = [
            Line2D([], [], marker="o", linestyle="", color=colour, label=literal(name[:_LONGEST]))
            for name, colour in zip(colouring.classes, colouring.palette, strict=True)
        ]
        figure.legend(handles=handles, title=title, loc="outside right upper", frameon=False)
