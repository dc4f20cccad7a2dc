from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.errors import BackendError, OutputError
from motorvae.runtime.core.frame import Frame, Gap
from motorvae.runtime.core.row import Row, json_from_row
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.base import Backend
from motorvae.runtime.engines.open import open_engine
from motorvae.runtime.ood.detector import OODDetector, ood_detector_from_bundle
from motorvae.runtime.pixels.convert import fitted as fitted_picture
from motorvae.runtime.pixels.convert import input_from_pixels
from motorvae.runtime.sinks.fanout import SinkReport
from motorvae.runtime.stream.encode_loop import LatentStream
from motorvae.runtime.stream.mailbox import Mailboxes
from motorvae.runtime.stream.stats import StreamSummary

KEYS = ["index", "captured_ns", "age_ms", "dropped", "status", "mu"]
STAGES = ["capture_ms", "convert_ms", "wait_ms", "encode_ms", "emit_ms"]


def gap(index: int, name: str = "") -> Gap:
    return Gap(index, f"reason {index}", time.time_ns(), name)


@pytest.fixture
def encoder(small_bundle: Path) -> Iterator[Backend]:
    with open_engine(load_bundle(small_bundle), GraphKey("encoder")) as backend:
        yield backend


@pytest.fixture
def fitted(frame_at: Callable[..., Frame], small_spec: ModelSpec) -> Callable[..., Frame]:
    """A frame as a capture thread delivers it."""

    def make(index: int, level: int = 128, **facts: Any) -> Frame:
        frame = frame_at(index, level, **facts)
        return Frame(
            fitted_picture(frame.image, small_spec),
            index,
            frame.captured_ns,
            frame.grabbed_ns,
            frame.capture_ns,
            frame.name,
            frame.media_s,
        )

    return make


def filled(*cameras: list[Frame | Gap]) -> Mailboxes:
    """Mailboxes in which everything waits, of cameras that have ended."""
    boxes = Mailboxes()
    for number, items in enumerate(cameras):
        box = boxes.add(f"cam{number}", keep=99, waits=True)
        for item in items:
            if isinstance(item, Gap):
                box.skip(item)
            else:
                box.deliver(item, item.image, convert_ns=7000, duplicate=False)
        box.end()
    return boxes


def drained(
    stream: LatentStream, boxes: Mailboxes, emit: Callable[[Row], object], **options: Any
) -> StreamSummary:
    """Give every row away; return what was counted."""
    for row in stream.rows(boxes, **options):
        emit(row)
    return stream.stats.summary([box.failure for box in boxes.boxes if box.failure])


Run = Callable[..., tuple[StreamSummary, list[dict[str, Any]]]]


@pytest.fixture
def run(encoder: Backend, small_spec: ModelSpec) -> Run:
    """Rows as a reader of JSON gets them, and the summary."""

    def call(
        *cameras: list[Frame | Gap], max_age_ms: float | None = None, **options: Any
    ) -> tuple[StreamSummary, list[dict[str, Any]]]:
        rows: list[Row] = []
        stream = LatentStream(encoder, small_spec, len(cameras), max_age_ms=max_age_ms)
        summary = drained(stream, filled(*cameras), rows.append, **options)
        rows.append(Row(summary.rows, 1, None, 0, "end", summary={**asdict(summary), "sinks": []}))
        return summary, [orjson.loads(json_from_row(row)) for row in rows]

    return call


def test_a_row_has_the_keys_of_the_design_and_says_its_age(
    run: Run, fitted: Callable[..., Frame]
) -> None:
    before_ns = time.monotonic_ns()
    frame = fitted(0, capture_ns=2000, grabbed_ns=before_ns - 50_000_000)
    _, (row, _) = run([frame])
    assert list(row)[: len(KEYS)] == KEYS
    assert set(row) == {*KEYS, *STAGES, "camera", "clock", "duplicate", "schema"}
    assert row["index"] == 0
    assert row["captured_ns"] == frame.captured_ns
    assert row["dropped"] == 0
    assert row["status"] == "ok"
    assert (row["camera"], row["clock"], row["duplicate"]) == ("cam0", "host", False)
    assert len(row["mu"]) == 8
    assert 50 <= row["age_ms"] <= 50 + (time.monotonic_ns() - before_ns) / 1e6
    assert (row["capture_ms"], row["convert_ms"]) == (0.002, 0.007)
    assert all(row[stage] >= 0 for stage in STAGES)
    assert row["wait_ms"] + row["encode_ms"] + row["emit_ms"] <= row["age_ms"]


def test_a_latent_read_back_is_the_float32_that_the_encoder_gave(
    run: Run, fitted: Callable[..., Frame], encoder: Backend
) -> None:
    frames = [fitted(index, 40 * index) for index in range(6)]
    _, rows = run(list(frames))
    for frame, row in zip(frames, rows, strict=False):
        batch = input_from_pixels(frame.image)[None, None]
        assert np.array_equal(np.asarray(row["mu"], np.float32), encoder.run(batch)["mu"][0])
    assert len({tuple(row["mu"]) for row in rows[:-1]}) == len(frames)


def test_frames_of_several_cameras_share_a_run_and_keep_their_latents(
    encoder: Backend, small_spec: ModelSpec, fitted: Callable[..., Frame]
) -> None:
    sizes = []

    class Counting:
        input_dtype = np.dtype(np.float32)

        def run(self, batch: np.ndarray) -> Any:
            sizes.append(len(batch))
            return encoder.run(batch)

    cameras = [[fitted(index, 10 + 60 * camera + index) for index in range(4)] for camera in (0, 1)]
    rows: list[Row] = []
    stream = LatentStream(Counting(), small_spec, 2)  # type: ignore[arg-type]
    sizes.clear()
    drained(stream, filled(*cameras), rows.append)
    assert sizes == [2, 2, 2, 2]
    for camera, frames in enumerate(cameras):
        of_camera = [row for row in rows if row.camera == f"cam{camera}"]
        assert [row.index for row in of_camera] == [0, 1, 2, 3]
        for frame, row in zip(frames, of_camera, strict=True):
            alone = encoder.run(input_from_pixels(frame.image)[None, None])["mu"][0]
            assert row.mu is not None
            assert np.allclose(row.mu, alone, atol=1e-5)


def test_every_row_accounts_for_the_frames_passed_over(
    run: Run, fitted: Callable[..., Frame]
) -> None:
    summary, rows = run([fitted(2), gap(5), fitted(6), fitted(10), gap(11)])
    assert [row["index"] for row in rows[:-1]] == [2, 5, 6, 10, 11]
    assert [row["dropped"] for row in rows] == [2, 2, 0, 3, 0, 0]
    assert [row["status"] for row in rows] == ["ok", "lost", "ok", "ok", "lost", "end"]
    assert (summary.frames, summary.lost, summary.dropped) == (3, 2, 7)
    assert summary.frames + summary.lost + summary.dropped == 12


def test_a_row_that_is_not_ok_has_no_latent(run: Run, fitted: Callable[..., Frame]) -> None:
    _, rows = run([fitted(0), gap(1, "b.png")])
    for row in rows[1:]:
        assert list(row)[: len(KEYS)] == KEYS
        assert row["mu"] is None
        assert row["age_ms"] is None
        assert row["captured_ns"] > 0
    assert rows[1]["reason"] == "reason 1"
    assert rows[1]["name"] == "b.png"


def test_the_gap_is_from_grab_to_grab(run: Run, fitted: Callable[..., Frame]) -> None:
    now_ns = time.monotonic_ns()
    frames = [fitted(0, grabbed_ns=now_ns - 900_000_000), gap(1), fitted(2, grabbed_ns=now_ns)]
    summary, rows = run([*frames, fitted(3)])
    assert [row.get("gap_ms") for row in rows] == [None, None, 900.0, None, None]
    assert summary.cameras["cam0"].longest_gap_ms == 900.0


def test_a_loss_goes_on_until_there_is_a_latent_again(
    run: Run, fitted: Callable[..., Frame]
) -> None:
    now_ns = time.monotonic_ns()
    frames = [
        fitted(0, grabbed_ns=now_ns - 9_000_000_000),
        gap(1),
        fitted(2, grabbed_ns=now_ns - 100_000_000_000),
        fitted(3, grabbed_ns=now_ns),
        fitted(4),
    ]
    _, rows = run(frames, max_age_ms=60_000)
    assert [row["status"] for row in rows[:-1]] == ["ok", "lost", "stale", "ok", "ok"]
    assert [row.get("gap_ms") for row in rows[:-1]] == [None, None, None, 9000.0, None]


def test_what_is_too_old_is_stale_and_not_encoded(
    small_spec: ModelSpec, encoder: Backend, fitted: Callable[..., Frame]
) -> None:
    runs = []

    class Counting:
        input_dtype = np.dtype(np.float32)

        def run(self, batch: np.ndarray) -> Any:
            runs.append(len(batch))
            return encoder.run(batch)

    stream = LatentStream(Counting(), small_spec, 1, max_age_ms=60_000)  # type: ignore[arg-type]
    runs.clear()
    old_ns = time.monotonic_ns() - 61_000_000_000
    frames = [fitted(0, grabbed_ns=old_ns), fitted(1), fitted(4, grabbed_ns=old_ns)]
    rows: list[Row] = []
    summary = drained(stream, filled(list(frames)), rows.append)
    assert [row.status for row in rows] == ["stale", "ok", "stale"]
    assert runs == [1]
    assert rows[0].mu is None
    assert rows[0].age_ms is not None
    assert rows[0].age_ms > 60_000
    assert rows[0].reason == "older than 60000 ms"
    assert rows[2].dropped == 2
    assert (summary.frames, summary.stale) == (1, 2)


def test_a_latent_that_came_too_late_is_stale_too(
    small_spec: ModelSpec, encoder: Backend, fitted: Callable[..., Frame]
) -> None:
    """The frame was young enough when it was taken; the encoder was slow."""

    class Slow:
        input_dtype = np.dtype(np.float32)

        def run(self, batch: np.ndarray) -> Any:
            results = encoder.run(batch)
            frame_grabbed_ns = started_ns
            while time.monotonic_ns() - frame_grabbed_ns < 300_000_000:
                pass
            return results

    started_ns = 0  # so that warming up is fast
    stream = LatentStream(Slow(), small_spec, 1, max_age_ms=300)  # type: ignore[arg-type]
    started_ns = time.monotonic_ns()
    rows: list[Row] = []
    drained(stream, filled([fitted(0, grabbed_ns=started_ns)]), rows.append)
    assert [row.status for row in rows] == ["stale"]
    assert rows[0].mu is None
    assert rows[0].encode_ms is None


def test_the_summary_has_every_stage_and_what_they_leave(
    run: Run, fitted: Callable[..., Frame]
) -> None:
    summary, rows = run([fitted(index) for index in range(5)])
    end = rows[-1]
    assert end["status"] == "end"
    assert end["index"] == 5
    assert end["summary"]["frames"] == 5
    assert end["summary"]["failure"] is None
    assert list(end["summary"]["stages"]) == [
        "capture",
        "convert",
        "wait",
        "encode",
        "emit",
        "unexplained",
        "age",
    ]
    for figures in end["summary"]["stages"].values():
        assert figures["count"] == 5
        assert figures["p50"] <= figures["p95"] <= figures["p99"] <= figures["max"]
    assert summary.fps == pytest.approx(5 / summary.seconds)


@pytest.mark.parametrize("frames", [0, 1])
def test_a_rate_needs_two_frames(run: Run, fitted: Callable[..., Frame], frames: int) -> None:
    summary, rows = run([fitted(0) for _ in range(frames)])
    assert summary.fps is None
    assert summary.frames == frames
    assert rows[-1]["status"] == "end"


def test_max_frames_counts_no_lost_frames(run: Run, fitted: Callable[..., Frame]) -> None:
    given = [fitted(0), gap(1), fitted(2), fitted(3), fitted(4)]
    _, rows = run(given, max_frames=3)
    assert [row["index"] for row in rows[:-1]] == [0, 1, 2, 3]


def test_max_frames_counts_stale_frames(run: Run, fitted: Callable[..., Frame]) -> None:
    """A camera of which every frame is too old would else never end."""
    old_ns = time.monotonic_ns() - 61_000_000_000
    given = [fitted(0, grabbed_ns=old_ns), fitted(1, grabbed_ns=old_ns), fitted(2), fitted(3)]
    summary, rows = run(given, max_frames=3, max_age_ms=60_000)
    assert [row["status"] for row in rows] == ["stale", "stale", "ok", "end"]
    assert (summary.frames, summary.stale, summary.unread) == (1, 2, 1)


def test_max_frames_holds_within_a_batch(run: Run, fitted: Callable[..., Frame]) -> None:
    cameras = [[fitted(index) for index in range(5)] for _ in range(3)]
    summary, rows = run(*cameras, max_frames=7)
    assert summary.frames == 7
    assert len(rows) == 8


def test_reconstruction_makes_no_latent_older(
    encoder: Backend, small_spec: ModelSpec, fitted: Callable[..., Frame]
) -> None:
    """The latents of a batch are ready together; what one row waits for is not the other's age."""

    class Slow:
        def complete(self, row: Row, _luma: np.ndarray) -> None:
            until_ns = time.monotonic_ns() + 200_000_000
            while time.monotonic_ns() < until_ns:
                pass
            row.decode_ms = 200.0

    rows: list[Row] = []
    stream = LatentStream(encoder, small_spec, 2, reconstruction=Slow())  # type: ignore[arg-type]
    now_ns = time.monotonic_ns()
    cameras = [[fitted(0, grabbed_ns=now_ns)], [fitted(0, grabbed_ns=now_ns)]]
    drained(stream, filled(*cameras), rows.append)
    assert [row.decode_ms for row in rows] == [200.0, 200.0]
    emits = [row.emit_ms or 0.0 for row in rows]
    assert abs(emits[1] - emits[0]) < 100
    assert abs((rows[1].age_ms or 0.0) - (rows[0].age_ms or 0.0)) < 100


def test_frames_that_nobody_took_are_counted(run: Run, fitted: Callable[..., Frame]) -> None:
    summary, _ = run([fitted(index) for index in range(10)], max_frames=3)
    assert (summary.frames, summary.unread) == (3, 7)


def test_pictures_travel_with_their_rows_only_where_they_are_shown(
    encoder: Backend, small_spec: ModelSpec, fitted: Callable[..., Frame]
) -> None:
    frame = fitted(0, 77)
    for wanted in (True, False):
        rows: list[Row] = []
        stream = LatentStream(encoder, small_spec, 1, pictures=wanted)
        drained(stream, filled([frame]), rows.append)
        assert (rows[0].picture is frame.image) == wanted


@pytest.mark.parametrize("output", ["mu", "log_var"])
def test_a_latent_that_is_not_finite_is_an_error_and_no_row(
    encoder: Backend, small_spec: ModelSpec, fitted: Callable[..., Frame], output: str
) -> None:
    class Broken:
        input_dtype = np.dtype(np.float32)

        def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
            results = {name: values.copy() for name, values in encoder.run(batch).items()}
            results[output][0, 3] = np.nan
            return results

    rows: list[Row] = []
    stream = LatentStream(Broken(), small_spec)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="the latent of frame 7 of cam0 is not finite"):
        drained(stream, filled([fitted(7)]), rows.append)
    assert rows == []


def test_a_failing_outlet_ends_the_run(
    encoder: Backend, small_spec: ModelSpec, fitted: Callable[..., Frame]
) -> None:
    rows: list[Row] = []

    def emit(row: Row) -> None:
        if rows:
            raise OutputError("disk full")
        rows.append(row)

    stream = LatentStream(encoder, small_spec)
    with pytest.raises(OutputError, match="disk full"):
        drained(stream, filled([fitted(0), fitted(1), fitted(2)]), emit)
    assert len(rows) == 1


def test_each_frame_of_a_batch_is_judged_by_its_own_appearance(
    encoder: Backend,
    small_bundle: Path,
    small_spec: ModelSpec,
    fitted: Callable[..., Frame],
) -> None:
    """They are measured by another thread while the encoder runs, all of a batch together."""
    known = ood_detector_from_bundle(load_bundle(small_bundle))
    assert isinstance(known, OODDetector)
    frames = [[fitted(index, 40 + 60 * camera) for index in range(3)] for camera in range(3)]
    stream = LatentStream(encoder, small_spec, 3, ood=known)
    for _ in range(2):  # a stream may run again
        rows: list[Row] = []
        drained(stream, filled(*frames), rows.append)
        assert len(rows) == 9
        for row in rows:
            image = frames[int(row.camera[-1])][row.index].image
            assert row.appearance == pytest.approx(known.appearance(image))
    assert len({row.appearance for row in rows}) == 3


def test_every_key_of_the_last_row_is_documented(run: Run, fitted: Callable[..., Frame]) -> None:
    text = (Path(__file__).parents[3] / "docs" / "rows.md").read_text(encoding="utf-8")
    section = text.partition("## The last row")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`(\w+)`", section))
    _, rows = run([fitted(0)])
    summary = rows[-1]["summary"]
    report = {field.name for field in fields(SinkReport)}
    nested = {*summary["stages"], *summary["stages"]["age"], *summary["cameras"]["cam0"]}
    assert {*rows[-1], *summary, *nested, *report} - documented <= {"status", "schema"}
