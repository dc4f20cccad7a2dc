"""Rows as Rerun shows them: pictures, latents, ages and losses, live or in a .rrd file."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
import numpy.typing as npt
import rerun as rr
import rerun.blueprint as rrb

from ..core.errors import ConfigError, OutputError
from ..core.row import SCHEMA, Row, RunFacts
from .base import Sink
from .rerun_viewer import ALTERNATIVE, Viewer

APPLICATION = "motorvae"
FLUSH_S = 1.0
"""Between two flushes of a file. Each cuts what has come into chunks, one an entity, and each chunk
takes 2 kB of memory until the file is closed, for the index at its end."""
CHUNK_BYTES = 16 << 20
"""As much is cut without a flush; by default it is 1 MiB, which is a few pictures."""
FLUSH_TIMEOUT_S = 10.0

CAPTURED, FRAME = "captured", "frame"
"""Timelines: `Row.captured_ns` as Unix time, and `Row.index`, which each camera counts itself."""
OOD_SERIES = {
    "mahalanobis": "Distance from the training images",
    "reconstruction_error": "Reconstruction error",
}

MOST_SHOWN = 128
"""Of more latents so many are shown, evenly apart: more bars and lines cannot be told apart."""

RED, AMBER, BLUE = (230, 60, 60), (240, 170, 40), (90, 160, 255)
GREY, WHITE = (150, 150, 150), (255, 255, 255)
LINES = {
    "age_ms": ("age, ms", BLUE),
    "dropped": ("frames dropped", AMBER),
    "unwritten": ("rows not shown", GREY),
    "mahalanobis": ("distance", BLUE),
    "reconstruction_error": ("error", BLUE),
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


Size = npt.NDArray[np.float64]


class ViewSink(Sink):
    """Rows as entities of one Rerun recording, in a viewer that is started here or in a file.

    What waits to be written is bounded: Rerun lets 100 MiB wait, then `write` does. The viewer
    goes on when this sink is closed.
    The output is a path ending in `.rrd`, or "" for a viewer.
    """

    def __init__(self, output: str, facts: RunFacts) -> None:
        batching = rr.ChunkBatcherConfig(FLUSH_S, CHUNK_BYTES) if output else None
        self._recording = rr.RecordingStream(APPLICATION, batcher_config=batching)
        if not rr.is_enabled(self._recording):
            raise ConfigError("--view: RERUN=off is set in the environment: unset it")
        self._facts, self._viewer = facts, None if output else Viewer()
        if self._viewer is not None:
            self.name = "the Rerun viewer"
            self._recording.connect_grpc(self._viewer.url)
        else:
            path = self._new_path(output)
            try:
                self._recording.save(path)
            except (RuntimeError, OSError) as error:
                raise OutputError(f"cannot write {output}: {error}; name another file") from error
            self._stays_at(path)
        self._cameras = {
            camera: CameraEntity(f"/camera-{number}", name)
            for number, (camera, name) in enumerate(_short_names(facts.cameras).items(), 1)
        }
        size = facts.latent_size
        self._shown = np.linspace(0, size - 1, min(size, MOST_SHOWN)).round().astype(np.int64)
        self._flushed_s, self._flushed_rows = time.monotonic(), 0
        self._closed = self._is_abandoned = False
        self._describe()

    def write(self, row: Row) -> None:
        """Show one row; raises where the viewer has ended."""
        self._check_viewer()
        self._recording.set_time(CAPTURED, timestamp=np.datetime64(row.captured_ns, "ns"))
        self._recording.set_time(FRAME, sequence=row.index)
        camera = self._cameras.get(row.camera or "")
        if camera is None:
            self._log("/run", rr.TextLog(f"{row.status}: {row.reason or 'done'}", level="INFO"))
        else:
            if row.mu is None:
                self._blank(camera, row)
            else:
                self._show(camera, row, row.mu)
            self._plot(f"{camera.path}/dropped", row.dropped)
            self._plot(f"{camera.path}/unwritten", row.unwritten)
        self.rows += 1

    def flush(self) -> None:
        """Once a second, wait until what was written is on its way."""
        self._check_viewer()
        if time.monotonic() - self._flushed_s >= FLUSH_S:
            self._flush()

    def close(self) -> None:
        """Write what is left and complete the file; a viewer stays open."""
        if self._closed:
            return
        self._closed = True
        try:
            is_there = self._viewer is None or self._viewer.why_ended() is None
            if is_there and not self._is_abandoned:  # else the error was raised when it failed
                self._flush()
        finally:
            if not self._is_abandoned:
                self._recording.disconnect()
            if self._viewer is not None:
                self._viewer.leave()

    def _show(self, camera: CameraEntity, row: Row, mu: npt.NDArray[np.float32]) -> None:
        """Show a latent and what belongs to it."""
        path = camera.path
        if camera.blank:
            camera.blank = False
            if camera.status:
                gap = f" after {row.gap_ms / 1000:.1f} s" if row.gap_ms else ""
                self._log_status(camera, f"ok again{gap}", "INFO")
            self._log(f"{path}/image/notice", rr.Clear(recursive=True))
        if row.picture is not None:
            self._log(f"{path}/image", self._image(row.picture))
        if row.reconstruction is not None:  # it stays, with its frame, until the next is decoded
            self._add_part(camera, "reconstruction")
            levels = np.rint(np.clip(row.reconstruction, 0, 1) * np.float32(255))
            picture = levels.astype(np.uint8)
            self._log(f"{path}/reconstruction", self._image(picture))
            corner = np.array([0.12, 0.05]) * self._size
            self._log(f"{path}/reconstruction/of", _text(f"frame {row.index}", corner, WHITE))
        shown = mu[self._shown]
        self._log(f"{path}/latents/bars", rr.BarChart(shown))
        self._log(f"{path}/latents/over_time", rr.Scalars(shown))
        self._plot(f"{path}/age_ms", row.age_ms)
        for part in OOD_SERIES:
            if (value := getattr(row, part)) is not None:
                self._add_part(camera, part)
                self._plot(f"{path}/{part}", value)
                self._plot(f"{path}/{part}/ood", value if row.is_ood else None)

    @property
    def _size(self) -> npt.NDArray[np.float64]:
        """Width and height of the pictures."""
        return np.array([self._facts.model.width, self._facts.model.height], np.float64)

    def _image(self, picture: npt.NDArray[np.uint8]) -> rr.Image:
        """Show (H, W) luma, or (3, H, W) planes."""
        if picture.ndim == 2:
            return rr.Image(picture, color_model="L")
        planes = picture[::-1] if self._facts.model.color == "bgr" else picture
        return rr.Image(np.ascontiguousarray(planes.transpose(1, 2, 0)), color_model="RGB")

    def _blank(self, camera: CameraEntity, row: Row) -> None:
        """Take down what would look live, and show the reason."""
        status = f"{row.status}: {row.reason or 'no reason known'}"
        if not camera.blank:
            for entity in ("image", "reconstruction", "latents", "age_ms", *OOD_SERIES):
                self._log(f"{camera.path}/{entity}", rr.Clear(recursive=True))
        if status != camera.status or not camera.blank:
            stale = row.status == "stale"
            self._log_status(camera, status, "WARN" if stale else "ERROR")
            path, colour = f"{camera.path}/image/notice", AMBER if stale else RED
            self._log(path, rr.Boxes2D(mins=[[0, 0]], sizes=[self._size], colors=colour))
            self._log(f"{path}/text", _text(status, 0.5 * self._size, colour))
        camera.blank = True

    def _log_status(self, camera: CameraEntity, text: str, level: str) -> None:
        camera.status = text
        self._log(f"{camera.path}/status", rr.TextLog(f"{camera.name}: {text}", level=level))

    def _plot(self, path: str, value: float | None) -> None:
        if value is not None:
            self._log(path, rr.Scalars(float(value)))

    def _log(self, path: str, entity: rr.AsComponents, *, static: bool = False) -> None:
        # Strict, or a mistake here becomes a warning and a row that is not shown.
        self._recording.log(path, entity, static=static, strict=True)

    def _add_part(self, camera: CameraEntity, part: str) -> None:
        """Give a panel to something that has come for the first time."""
        if part not in camera.parts:
            camera.parts.add(part)
            self._send_layout()

    def _send_layout(self) -> None:
        size = self._facts.latent_size
        sampled = f", {MOST_SHOWN} of {size}" if size > MOST_SHOWN else ""
        further = {one.path: self._further_views(one) for one in self._cameras.values()}
        layout = _layout(self._cameras.values(), self._size, sampled, further)
        self._recording.send_blueprint(layout)

    def _further_views(self, _camera: CameraEntity) -> list[rrb.View]:
        """Return what else is shown of a camera, beside its pictures."""
        return []

    def _flush(self) -> None:
        self._flushed_s = time.monotonic()
        try:
            self._recording.flush(timeout_sec=FLUSH_TIMEOUT_S)
        except (RuntimeError, ValueError, OSError) as error:
            # Never touch the recording again: what ends it waits on a thread that may be gone. Seen
            # with a full disk and rerun-sdk 0.39: its destructor, `disconnect` and the flush at the
            # end of the process have no time-out, and each hung in about every third run.
            self._is_abandoned = True
            rr.unregister_shutdown()
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._recording.inner))
            self.rows = self._flushed_rows
            self._check_viewer()
            raise OutputError(
                f"cannot write {self.name}: {error}; make room there or name another place"
            ) from error
        self._flushed_rows = self.rows

    def _check_viewer(self) -> None:
        if self._viewer is not None and (why := self._viewer.why_ended()) is not None:
            raise OutputError(f"{why}; start again, or {ALTERNATIVE}")

    def _describe(self) -> None:
        """Send what holds for the whole recording: facts, names and styles, the layout."""
        facts = self._facts
        self._recording.send_recording_name(", ".join(facts.cameras))
        self._recording.send_property(
            APPLICATION,
            rr.AnyValues(
                schema=SCHEMA,
                cameras=list(facts.cameras),
                latent_shape=list(facts.latent_shape),
                weights_sha256=facts.weights_sha256,
                backend=facts.backend,
            ),
        )
        marks = rr.SeriesPoints(
            names="out of distribution", colors=RED, markers="circle", marker_sizes=4
        )
        for camera in self._cameras.values():
            for entity, (name, colour) in LINES.items():
                line = rr.SeriesLines(names=name, colors=colour, widths=1.5)
                self._log(f"{camera.path}/{entity}", line, static=True)
            for part in OOD_SERIES:
                self._log(f"{camera.path}/{part}/ood", marks, static=True)
        self._send_layout()


def _short_names(cameras: Sequence[str]) -> dict[str, str]:
    """Return what to call each camera where room is short: a path by its end, if that is unique."""
    ends = {camera: PurePath(camera).name if camera[:1] == "/" else camera for camera in cameras}
    return ends if len(set(ends.values())) == len(ends) else {camera: camera for camera in cameras}


def _text(text: str, place: npt.NDArray[np.float64], colour: tuple[int, int, int]) -> rr.Points2D:
    """Return text in a picture, its middle at `place`."""
    return rr.Points2D([place], radii=0, colors=colour, labels=text, show_labels=True)


def _layout(
    cameras: Collection[CameraEntity],
    size: Size,
    sampled: str,
    further: Mapping[str, Sequence[rrb.View]],
) -> rrb.Blueprint:
    """Lay out what there is, and nothing empty; `size` is width and height of the pictures.

    `sampled` says how many of the latents are shown, where it is not all; `further` views are of
    each camera, by its entity.
    """
    pages: list[rrb.Container | rrb.View] = [
        _page(camera, size, sampled, further[camera.path]) for camera in cameras
    ]
    if len(pages) > 1:
        pictures = [_picture(camera, camera.name, size) for camera in cameras]
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


def _page(
    camera: CameraEntity, size: Size, sampled: str, further: Sequence[rrb.View]
) -> rrb.Container:
    """Everything of one camera: what is now on the left, how it came there on the right."""
    path, parts = camera.path, camera.parts
    pictures = [_picture(camera, f"{camera.name}, as encoded", size)]
    if "reconstruction" in parts:
        pictures.append(_picture(camera, "Reconstruction", size, entity="reconstruction"))
    bars = rrb.BarChartView(
        origin=f"{path}/latents/bars",
        name=f"Latents{sampled}",
        plot_legend=rrb.PlotLegend(visible=False),
    )
    plots = [
        _plot(f"Latents over time{sampled}", [f"{path}/latents/over_time"]),
        _plot("Age, ms", [f"{path}/age_ms"]),
        _plot("Drops", [f"{path}/dropped", f"{path}/unwritten"], legend=True),
    ]
    for part, name in OOD_SERIES.items():
        if part in parts:
            plots.append(_plot(f"{name}, red: out of distribution", [f"{path}/{part}/**"]))
    now = rrb.Vertical(rrb.Horizontal(*pictures), bars, row_shares=[3, 2])
    before = rrb.Vertical(*plots, row_shares=[2] + [1] * (len(plots) - 1))
    return rrb.Horizontal(now, *further, before, name=camera.name)


def _picture(camera: CameraEntity, name: str, size: Size, *, entity: str = "image") -> rrb.View:
    bounds = rrb.VisualBounds2D(x_range=[0, size[0]], y_range=[0, size[1]])
    return rrb.Spatial2DView(origin=f"{camera.path}/{entity}", name=name, visual_bounds=bounds)


def _plot(name: str, entities: list[str], *, legend: bool = False) -> rrb.View:
    """Lines of the last 20 s, or 600 frames, before what is looked at."""
    relative = rrb.TimeRangeBoundary.cursor_relative
    since = {CAPTURED: relative(seconds=-20), FRAME: relative(seq=-600)}
    return rrb.TimeSeriesView(
        name=name,
        contents=entities,
        plot_legend=rrb.PlotLegend(rrb.Corner2D.LeftTop, visible=legend),
        time_ranges=[
            rrb.VisibleTimeRange(timeline, start=start, end=relative())
            for timeline, start in since.items()
        ],
    )
