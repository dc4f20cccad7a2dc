"""MapSink: the Rerun view of a stream with the latent map in it."""

from __future__ import annotations

from collections import defaultdict, deque

import numpy as np
import numpy.typing as npt
import rerun as rr
import rerun.blueprint as rrb

from ....runtime.core.row import Row, RunFacts
from ....runtime.sinks.rerun_sink import AMBER, BLUE, GREY, RED, CameraEntity, ViewSink
from .atlas import SIDE, Atlas

KNOWN = "/map/known"
TRAIL = 30
"""Frames that the point leaves its way behind it for: a second of most cameras."""
_MOST_KEPT = 100_000
_MARGIN = 0.15


class MapSink(ViewSink):
    """As `ViewSink`, with a panel of known images, the present frame among them, and its trail.

    A frame that is out of distribution is red, one that is known blue, and grey where nobody can
    tell. `seen` holds the last 100,000 frames: index, place in the view, and `is_ood`.
    """

    def __init__(self, output: str, facts: RunFacts, atlas: Atlas) -> None:
        self._atlas = atlas
        self._trails: dict[str, deque[npt.NDArray[np.float32]]] = defaultdict(
            lambda: deque(maxlen=TRAIL)
        )
        self.seen: deque[tuple[int, float, float, bool | None]] = deque(maxlen=_MOST_KEPT)
        super().__init__(output, facts)

    def _describe(self) -> None:
        points = rr.Points2D(
            self._atlas.known,
            colors=GREY,
            radii=rr.Radius.ui_points(3),
            labels=list(self._atlas.names),  # the viewer shows one on pointing
            show_labels=False,
        )
        self._log(KNOWN, points, static=True)
        super()._describe()

    def _show(self, camera: CameraEntity, row: Row, mu: npt.NDArray[np.float32]) -> None:
        super()._show(camera, row, mu)
        place = self._atlas.place(mu[None])[0]
        trail = self._trails[camera.path]
        trail.append(place)
        colour = {True: RED, False: BLUE, None: GREY}[row.is_ood]
        label = "out of distribution" if row.is_ood else ""
        point = rr.Points2D(
            [place],
            colors=colour,
            radii=rr.Radius.ui_points(8),
            labels=label or None,
            show_labels=bool(label),
        )
        if len(trail) > 1:
            line = rr.LineStrips2D([list(trail)], colors=AMBER, radii=rr.Radius.ui_points(1.5))
            self._log(f"{camera.path}/map/trail", line)
        self._log(f"{camera.path}/map/now", point)
        self.seen.append((row.index, float(place[0]), float(place[1]), row.is_ood))

    def _blank(self, camera: CameraEntity, row: Row) -> None:
        if not camera.blank:
            self._log(f"{camera.path}/map", rr.Clear(recursive=True))
            self._trails[camera.path].clear()
        super()._blank(camera, row)

    def _further_views(self, camera: CameraEntity) -> list[rrb.View]:
        low, high = -_MARGIN * SIDE, (1 + _MARGIN) * SIDE
        return [
            rrb.Spatial2DView(
                origin="/",
                name=f"Latent map, {self._atlas.title}; red: out of distribution",
                contents=[KNOWN, f"{camera.path}/map/**"],
                visual_bounds=rrb.VisualBounds2D(x_range=[low, high], y_range=[low, high]),
            )
        ]
