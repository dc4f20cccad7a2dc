"""How the Rerun viewer lays out a run: a page for each camera, and before that all of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import rerun.blueprint as rrb

CAPTURED, FRAME = "captured", "frame"
"""Timelines: `Row.captured_ns` as Unix time, and `Row.index`, which each camera counts itself."""
WINDOW_S, WINDOW_FRAMES = 20, 600
"""How far back the plots show."""
OOD_SERIES = {
    "mahalanobis": "Distance from the training images",
    "reconstruction_error": "Reconstruction error",
}


@dataclass
class CameraEntity:
    """One camera in the recording, and what is shown of it."""

    path: str  # its entity
    name: str  # what its source is called
    # entities below `path` that not every run has and this one does: `reconstruction`,
    # `mahalanobis`, `reconstruction_error`
    parts: set[str] = field(default_factory=set)
    status: str = ""  # the last line of its log
    blank: bool = True  # whether nothing is shown as live


def layout_of(cameras: Collection[CameraEntity], side: int) -> rrb.Blueprint:
    """Lay out what there is, and nothing empty; `side` is S, that of the pictures."""
    pages: list[rrb.Container | rrb.View] = [_page(camera, side) for camera in cameras]
    if len(pages) > 1:
        pictures = [_picture(camera, camera.name, side) for camera in cameras]
        pages.insert(0, rrb.Grid(*pictures, name="All cameras"))
    log = rrb.TextLogView(
        origin="/",
        name="Losses and returns",
        columns=rrb.TextLogColumns(
            timeline_columns=[FRAME, CAPTURED], text_log_columns=["LogLevel", "Body"]
        ),
    )
    return rrb.Blueprint(
        rrb.Vertical(pages[0] if len(pages) == 1 else rrb.Tabs(*pages), log, row_shares=[4, 1]),
        rrb.TimePanel(state="collapsed", timeline=CAPTURED),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
    )


def _page(camera: CameraEntity, side: int) -> rrb.Container:
    """Everything of one camera: what is now on the left, how it came there on the right."""
    path, parts = camera.path, camera.parts
    pictures = [_picture(camera, f"{camera.name}, as encoded", side)]
    if "reconstruction" in parts:
        pictures.append(_picture(camera, "Reconstruction", side, entity="reconstruction"))
    bars = rrb.BarChartView(
        origin=f"{path}/latents/bars", name="Latents", plot_legend=rrb.PlotLegend(visible=False)
    )
    plots = [
        _plot("Latents over time", [f"{path}/latents/over_time"]),
        _plot("Age, ms", [f"{path}/age_ms"]),
        _plot("Drops", [f"{path}/dropped", f"{path}/unwritten"], legend=True),
    ]
    for part, name in OOD_SERIES.items():
        if part in parts:
            plots.append(_plot(f"{name}, red: out of distribution", [f"{path}/{part}/**"]))
    now = rrb.Vertical(rrb.Horizontal(*pictures), bars, row_shares=[3, 2])
    before = rrb.Vertical(*plots, row_shares=[2] + [1] * (len(plots) - 1))
    return rrb.Horizontal(now, before, name=camera.name)


def _picture(camera: CameraEntity, name: str, side: int, *, entity: str = "image") -> rrb.View:
    bounds = rrb.VisualBounds2D(x_range=[0, side], y_range=[0, side])
    return rrb.Spatial2DView(origin=f"{camera.path}/{entity}", name=name, visual_bounds=bounds)


def _plot(name: str, entities: list[str], *, legend: bool = False) -> rrb.View:
    """Lines of the time before the one that is looked at."""
    now = rrb.TimeRangeBoundary.cursor_relative()
    since = {
        CAPTURED: rrb.TimeRangeBoundary.cursor_relative(seconds=-WINDOW_S),
        FRAME: rrb.TimeRangeBoundary.cursor_relative(seq=-WINDOW_FRAMES),
    }
    return rrb.TimeSeriesView(
        name=name,
        contents=entities,
        plot_legend=rrb.PlotLegend(rrb.Corner2D.LeftTop, visible=legend),
        time_ranges=[
            rrb.VisibleTimeRange(timeline, start=start, end=now)
            for timeline, start in since.items()
        ],
    )
