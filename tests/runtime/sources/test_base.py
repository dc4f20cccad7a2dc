from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from motorvae.runtime.core.errors import CameraError, SourceError
from motorvae.runtime.core.frame import Frame, Gap, Mode
from motorvae.runtime.sources.base import CaptureRequest, FrameSource, Paced

FrameAt = Callable[..., Frame]
GOT = Mode(640, 480, 29.97, "YUYV")


def gap(index: int) -> Gap:
    return Gap(index, "for a test", time.time_ns())


class Recording(FrameSource):
    """Items that are there at once."""

    name = "recording"

    def __init__(self, items: list[Frame | Gap], fps: float | None = 200.0) -> None:
        self.fps, self.expected = fps, len(items)
        self._items = iter(items)
        self.closed = 0

    def read(self) -> Frame | Gap | None:
        return next(self._items, None)

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (Mode(), "unknown"),
        (Mode(640, 480, 30.0, "MJPG"), "640x480 30 fps MJPG"),
        (Mode(width=640, fps=29.97), "640x? 29.97 fps"),
        (Mode(fourcc="YUYV"), "YUYV"),
    ],
)
def test_a_mode_is_said_in_a_few_words(mode: Mode, text: str) -> None:
    assert str(mode) == text


def test_what_cannot_return_says_so() -> None:
    source = Recording([])
    assert not source.can_reconnect
    with pytest.raises(SourceError, match="recording cannot be opened again"):
        source.reopen()


def test_pace_delivers_no_frame_before_it_is_due(frame_at: FrameAt) -> None:
    source = Recording([frame_at(index) for index in range(5)])
    with Paced(source) as paced:
        assert paced.live
        started_ns = time.monotonic_ns()
        for index in range(5):
            frame = paced.read()
            assert isinstance(frame, Frame)
            assert time.monotonic_ns() - started_ns >= index * 4_900_000
            assert frame.grabbed_ns - started_ns >= index * 4_900_000
        assert paced.read() is None
    assert source.closed == 1


def test_pace_plays_frames_at_their_own_times(frame_at: FrameAt) -> None:
    """A recording of varying rate: what is due later comes later, whatever the nominal rate."""
    times = [0.0, 0.01, 0.31, 0.32]
    source = Recording([frame_at(n, media_s=at_s) for n, at_s in enumerate(times)], fps=1000)
    with Paced(source) as paced:
        frames = [item for item in iter(paced.read, None) if isinstance(item, Frame)]
    due = [frame.grabbed_ns - frames[0].grabbed_ns for frame in frames]
    assert due == pytest.approx([at_s * 1e9 for at_s in times], abs=10)
    for frame in frames:
        assert frame.capture_ns >= 0  # it was not there before it was due


def test_pace_counts_age_from_when_a_frame_was_due(frame_at: FrameAt) -> None:
    """Neither a decoder that reads ahead nor a reader that is late changes a frame's age."""
    ahead = frame_at(0, grabbed_ns=1, captured_ns=1)
    late = frame_at(1)
    with Paced(Recording([ahead, late], fps=1e6)) as paced:
        first = paced.read()
        middle_ns = time.monotonic_ns()
        second = paced.read()
    assert isinstance(first, Frame)
    assert isinstance(second, Frame)
    assert first.grabbed_ns > 1
    assert second.grabbed_ns - first.grabbed_ns == pytest.approx(1000, abs=2)
    assert second.grabbed_ns < middle_ns
    drift_ns = (second.captured_ns - first.captured_ns) - (second.grabbed_ns - first.grabbed_ns)
    assert abs(drift_ns) < 50_000_000


def test_pace_leaves_what_was_spent_on_luma_to_conversion(frame_at: FrameAt) -> None:
    """Both count from when the frame was due, and neither twice."""
    spent_ns = 3_000_000
    with Paced(Recording([frame_at(0, convert_ns=spent_ns)])) as paced:
        frame = paced.read()
        done_ns = time.monotonic_ns()
    assert isinstance(frame, Frame)
    assert frame.convert_ns == spent_ns
    assert frame.grabbed_ns + frame.capture_ns + frame.convert_ns <= done_ns
    assert frame.capture_ns < done_ns - frame.grabbed_ns


def test_pace_passes_gaps_on_and_invents_a_rate_where_there_is_none() -> None:
    with Paced(Recording([gap(0)], fps=None)) as paced:
        assert paced.fps == 30.0
        assert isinstance(paced.read(), Gap)
        assert paced.read() is None


@pytest.mark.parametrize(
    "asked",
    [Mode(), Mode(width=640), Mode(height=480), Mode(fps=30), Mode(640, 480, 30.5, "yuyv")],
)
def test_what_was_honoured_passes(asked: Mode) -> None:
    CaptureRequest(asked).check("camera 0", GOT)


@pytest.mark.parametrize(
    "asked", [Mode(width=641), Mode(height=1), Mode(fps=31), Mode(fps=29), Mode(fourcc="MJPG")]
)
def test_what_was_not_honoured_is_refused_unless_any_mode_is_taken(asked: Mode) -> None:
    with pytest.raises(CameraError, match="asked for") as caught:
        CaptureRequest(asked).check("camera 0", GOT)
    assert caught.value.clause() == f"asked for {asked}, got {GOT}"
    CaptureRequest(asked, accept_mode=True).check("camera 0", GOT)


@pytest.mark.parametrize("asked", [Mode(width=640), Mode(fps=30), Mode(fourcc="MJPG")])
def test_what_is_not_known_counts_as_not_honoured(asked: Mode) -> None:
    with pytest.raises(CameraError, match="got unknown"):
        CaptureRequest(asked).check("camera 0", Mode())


def test_the_error_names_asked_and_got_and_the_way_out() -> None:
    with pytest.raises(CameraError) as caught:
        CaptureRequest(Mode(1280, 720, 60, "MJPG")).check(
            "camera 0",
            Mode(640, 480, 30, "YUYV"),
            advice="ask for what it can do (motorvae-doctor cameras)",
        )
    assert str(caught.value) == (
        "camera 0: asked for 1280x720 60 fps MJPG, got 640x480 30 fps YUYV; ask for what it can "
        "do (motorvae-doctor cameras), or take it with --accept-mode"
    )


def test_a_long_pause_of_a_recording_can_be_interrupted(frame_at: FrameAt) -> None:
    with Paced(Recording([replace(frame_at(0), media_s=3600.0)])) as paced:
        found: list[Frame | Gap | None] = []
        reader = threading.Thread(target=lambda: found.append(paced.read()))
        reader.start()
        paced.interrupt()
        reader.join(30)
        assert not reader.is_alive()
        assert found == [None]
