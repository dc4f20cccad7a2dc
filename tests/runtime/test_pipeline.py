from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from motorvae.runtime.backend import Backend, open_backend
from motorvae.runtime.bundle import load_bundle
from motorvae.runtime.errors import BackendError, CameraError, OutputError
from motorvae.runtime.frames import Frame, Gap, input_from_image
from motorvae.runtime.pipeline import LatentStream, StreamSummary
from motorvae.runtime.source import CaptureThread, FrameSource
from motorvae.runtime.spec import ModelSpec

KEYS = ["index", "captured_ns", "age_ms", "dropped", "status", "mu"]
STAGES = ["capture_ms", "wait_ms", "preprocess_ms", "encode_ms"]


class Items(FrameSource):
    """Frames, gaps and failures in the order given, each made when it is read."""

    name = "items"

    def __init__(self, *makers: Callable[[], Frame | Gap]) -> None:
        self._makers = iter(makers)

    def read(self) -> Frame | Gap | None:
        maker = next(self._makers, None)
        return maker() if maker else None

    def close(self) -> None:
        pass


class Rows:
    """Rows as a reader of JSON gets them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, row: Mapping[str, object]) -> None:
        self.rows.append(orjson.loads(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)))


def fail(error: Exception) -> Callable[[], Frame | Gap]:
    def raise_it() -> Frame | Gap:
        raise error

    return raise_it


def gap(index: int, name: str = "") -> Gap:
    return Gap(index, f"reason {index}", time.time_ns(), name)


@pytest.fixture
def encoder(small_bundle: Path) -> Iterator[Backend]:
    with open_backend(load_bundle(small_bundle), "encoder") as backend:
        yield backend


@pytest.fixture
def run(encoder: Backend, small_spec: ModelSpec) -> Callable[..., Any]:
    def call(*makers: Callable[[], Frame | Gap], **options: Any) -> tuple[StreamSummary, list]:
        rows = Rows()
        summary = LatentStream(encoder, small_spec).run(Items(*makers), rows, **options)
        return summary, rows.rows

    return call


def test_a_row_has_the_keys_of_the_design_and_says_its_age(
    run: Callable[..., Any], frame_at: Callable[..., Frame]
) -> None:
    made: list[Frame] = []

    def make() -> Frame:
        made.append(frame_at(0, capture_ns=2000, grabbed_ns=time.monotonic_ns() - 50_000_000))
        return made[0]

    before_ns = time.monotonic_ns()
    _, (row, _) = run(make)
    assert list(row)[: len(KEYS)] == KEYS
    assert set(row) == {*KEYS, *STAGES}
    assert row["index"] == 0
    assert row["captured_ns"] == made[0].captured_ns
    assert row["dropped"] == 0
    assert row["status"] == "ok"
    assert len(row["mu"]) == 8
    assert 50 <= row["age_ms"] <= 50 + (time.monotonic_ns() - before_ns) / 1e6
    assert sum(row[stage] for stage in STAGES) == pytest.approx(row["age_ms"], abs=0.003)
    assert all(row[stage] >= 0 for stage in STAGES)


def test_a_latent_read_back_is_the_float32_that_the_encoder_gave(
    run: Callable[..., Any],
    frame_at: Callable[..., Frame],
    encoder: Backend,
    small_spec: ModelSpec,
) -> None:
    frames = [frame_at(index, 40 * index) for index in range(6)]
    _, rows = run(*(lambda frame=frame: frame for frame in frames))
    for frame, row in zip(frames, rows, strict=False):
        batch = input_from_image(frame.image, small_spec)[None, None]
        assert np.array_equal(np.asarray(row["mu"], np.float32), encoder.run(batch)["mu"][0])
    assert len({tuple(row["mu"]) for row in rows[:-1]}) == len(frames)


def test_every_row_accounts_for_the_frames_passed_over(
    run: Callable[..., Any], frame_at: Callable[..., Frame]
) -> None:
    given = [frame_at(2), gap(5), frame_at(6), frame_at(10), gap(11)]
    summary, rows = run(*(lambda item=item: item for item in given))
    assert [row["index"] for row in rows] == [2, 5, 6, 10, 11, 12]
    assert [row["dropped"] for row in rows] == [2, 2, 0, 3, 0, 0]
    assert [row["status"] for row in rows] == ["ok", "lost", "ok", "ok", "lost", "end"]
    assert (summary.frames, summary.lost, summary.dropped) == (3, 2, 7)
    assert summary.frames + summary.lost + summary.dropped == rows[-1]["index"]


def test_a_row_that_is_not_ok_has_no_latent(
    run: Callable[..., Any], frame_at: Callable[..., Frame]
) -> None:
    _, rows = run(lambda: frame_at(0), lambda: gap(1, "b.png"))
    for row in rows[1:]:
        assert list(row)[: len(KEYS)] == KEYS
        assert row["mu"] is None
        assert row["age_ms"] is None
        assert row["captured_ns"] > 0
    assert rows[1]["reason"] == "reason 1"
    assert rows[1]["name"] == "b.png"


def test_the_name_of_an_image_is_in_its_row(
    run: Callable[..., Any], frame_at: Callable[..., Frame]
) -> None:
    _, rows = run(lambda: frame_at(0, name="sub/a.png"))
    assert rows[0]["name"] == "sub/a.png"


def test_the_end_row_holds_the_summary(
    run: Callable[..., Any], frame_at: Callable[..., Frame]
) -> None:
    summary, rows = run(*(lambda index=index: frame_at(index) for index in range(5)))
    end = rows[-1]
    assert end["status"] == "end"
    assert end["summary"]["frames"] == 5
    assert end["summary"]["failure"] is None
    assert list(end["summary"]["stages"]) == [
        "capture",
        "wait",
        "preprocess",
        "encode",
        "age",
        "emit",
    ]
    for figures in end["summary"]["stages"].values():
        assert figures["count"] == 5
        assert figures["p50"] <= figures["p95"] <= figures["p99"] <= figures["max"]
    assert summary.fps == pytest.approx(5 / summary.seconds)


@pytest.mark.parametrize("frames", [0, 1])
def test_a_rate_needs_two_frames(
    run: Callable[..., Any], frame_at: Callable[..., Frame], frames: int
) -> None:
    summary, rows = run(*(lambda: frame_at(0) for _ in range(frames)))
    assert summary.fps is None
    assert summary.frames == frames
    assert rows[-1]["status"] == "end"


def test_a_lost_camera_is_a_row_and_never_a_latent(
    run: Callable[..., Any], frame_at: Callable[..., Frame]
) -> None:
    lost = CameraError("lost camera 7: unplugged")
    summary, rows = run(lambda: frame_at(0), lambda: frame_at(1), fail(lost))
    assert [row["status"] for row in rows] == ["ok", "ok", "lost", "end"]
    assert rows[2]["index"] == 2
    assert rows[2]["reason"] == "lost camera 7: unplugged"
    assert rows[2]["mu"] is None
    assert summary.failure == "lost camera 7: unplugged"
    assert summary.lost == 1


def test_a_dead_thread_is_a_row_with_its_cause(
    hand_fed: Any, frame_at: Callable[..., Frame], encoder: Backend, small_spec: ModelSpec
) -> None:
    rows = Rows()
    with CaptureThread(hand_fed) as latest:
        hand_fed.wait_until_asked()
        hand_fed.give(frame_at(3))
        hand_fed.end(CameraError("lost hand-fed after 4 frames: let go"))
        summary = LatentStream(encoder, small_spec).run(latest, rows)
    assert [row["status"] for row in rows.rows] == ["ok", "lost", "end"]
    assert rows.rows[0]["dropped"] == 3
    assert summary.failure == "lost hand-fed after 4 frames: let go"


def test_max_frames_counts_latents_only(
    run: Callable[..., Any], frame_at: Callable[..., Frame]
) -> None:
    given = [frame_at(0), gap(1), frame_at(2), frame_at(3), frame_at(4)]
    _, rows = run(*(lambda item=item: item for item in given), max_frames=3)
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[-1]["status"] == "end"


def test_a_latent_that_is_not_finite_is_an_error_and_no_row(
    encoder: Backend, small_spec: ModelSpec, frame_at: Callable[..., Frame]
) -> None:
    class Broken:
        name = "broken"

        def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
            mu = encoder.run(batch)["mu"].copy()
            mu[0, 3] = np.nan
            return {"mu": mu}

    rows = Rows()
    with pytest.raises(BackendError, match="the latent of frame 7 is not finite"):
        LatentStream(Broken(), small_spec).run(Items(lambda: frame_at(7)), rows)  # type: ignore[arg-type]
    assert rows.rows == []


def test_a_failing_sink_ends_the_run(
    encoder: Backend, small_spec: ModelSpec, frame_at: Callable[..., Frame]
) -> None:
    class Full(Rows):
        def write(self, row: Mapping[str, object]) -> None:
            if self.rows:
                raise OutputError("disk full")
            super().write(row)

    sink = Full()
    stream = LatentStream(encoder, small_spec)
    with pytest.raises(OutputError, match="disk full"):
        stream.run(Items(lambda: frame_at(0), lambda: frame_at(1), lambda: frame_at(2)), sink)
    assert len(sink.rows) == 1
