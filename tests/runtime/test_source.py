from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from motorvae.runtime.errors import CameraError
from motorvae.runtime.frames import Frame, Gap
from motorvae.runtime.source import CaptureThread, FrameSource, Paced

FrameAt = Callable[..., Frame]


def gap(index: int) -> Gap:
    return Gap(index, f"gap {index}", time.time_ns())


def index_of(item: Frame | Gap | None) -> int:
    assert item is not None
    return item.index


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


def test_only_the_newest_frame_is_kept(hand_fed: Any, frame_at: FrameAt) -> None:
    with CaptureThread(hand_fed) as latest:
        hand_fed.wait_until_asked()
        for index in range(5):
            hand_fed.give(frame_at(index))
        assert index_of(latest.read()) == 4
        hand_fed.give(frame_at(5))
        assert index_of(latest.read()) == 5
        hand_fed.end()
        assert latest.read() is None
        assert latest.read() is None


def test_a_slow_reader_of_every_frame_gets_them_with_their_own_time(
    hand_fed: Any, frame_at: FrameAt
) -> None:
    """Read when they come, so that waiting makes them older; the oldest are pushed out."""
    with CaptureThread(hand_fed, keep=3) as queue:
        hand_fed.wait_until_asked()
        for index in range(5):
            hand_fed.give(frame_at(index, grabbed_ns=100 + index))
        taken = [queue.read() for _ in range(3)]
        assert [index_of(frame) for frame in taken] == [2, 3, 4]
        assert [frame.grabbed_ns for frame in taken if isinstance(frame, Frame)] == [102, 103, 104]
        hand_fed.end()


def test_a_frame_keeps_the_facts_of_its_grab(hand_fed: Any, frame_at: FrameAt) -> None:
    with CaptureThread(hand_fed) as latest:
        hand_fed.wait_until_asked()
        given = frame_at(0, captured_ns=1, grabbed_ns=2, capture_ns=3)
        hand_fed.give(given)
        assert latest.read() is given
        hand_fed.end()


def test_a_reader_waits_for_the_next_frame(hand_fed: Any, frame_at: FrameAt) -> None:
    read: list[Frame | Gap | None] = []
    with CaptureThread(hand_fed) as latest:
        hand_fed.wait_until_asked()
        reader = threading.Thread(target=lambda: read.append(latest.read()))
        reader.start()
        hand_fed.give(frame_at(0))
        reader.join(60)
        assert index_of(read[0]) == 0
        hand_fed.end()


def test_gaps_are_never_overwritten_and_come_in_order(hand_fed: Any, frame_at: FrameAt) -> None:
    with CaptureThread(hand_fed) as latest:
        hand_fed.wait_until_asked()
        for item in (frame_at(0), gap(1), frame_at(2), gap(3), gap(4)):
            hand_fed.give(item)
        assert [index_of(latest.read()) for _ in range(4)] == [1, 2, 3, 4]
        for item in (frame_at(5), gap(6), frame_at(7)):
            hand_fed.give(item)
        assert [index_of(latest.read()) for _ in range(2)] == [6, 7]
        hand_fed.end()
        assert latest.read() is None


def test_what_came_before_a_failure_is_delivered_then_the_cause_is_raised(
    hand_fed: Any, frame_at: FrameAt
) -> None:
    cause = CameraError("lost camera 7: unplugged")
    with CaptureThread(hand_fed) as latest:
        hand_fed.wait_until_asked()
        hand_fed.give(frame_at(0))
        hand_fed.give(gap(1))
        hand_fed.end(cause)
        assert [index_of(latest.read()) for _ in range(2)] == [0, 1]
        for _ in range(2):
            with pytest.raises(CameraError, match="lost camera 7: unplugged") as caught:
                latest.read()
            assert caught.value.__cause__ is cause


def test_a_fault_in_the_thread_is_raised_with_its_cause_even_without_words(hand_fed: Any) -> None:
    with CaptureThread(hand_fed) as latest:
        hand_fed.end(ZeroDivisionError())
        with pytest.raises(CameraError, match="ZeroDivisionError") as caught:
            latest.read()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_closing_stops_the_thread_and_closes_the_source_once(
    hand_fed: Any, frame_at: FrameAt
) -> None:
    latest = CaptureThread(hand_fed)
    hand_fed.wait_until_asked()
    latest.interrupt()
    hand_fed.give(frame_at(0), last=True)
    latest.close()
    assert hand_fed.closed == 1
    assert not latest._thread.is_alive()


def test_an_interrupted_reader_returns(hand_fed: Any) -> None:
    read: list[Frame | Gap | None] = []
    latest = CaptureThread(hand_fed)
    hand_fed.wait_until_asked()
    reader = threading.Thread(target=lambda: read.append(latest.read()))
    reader.start()
    latest.interrupt()
    reader.join(60)
    assert read == [None]
    hand_fed.end()
    latest.close()


def test_it_takes_over_what_is_known_of_the_source(frame_at: FrameAt) -> None:
    source = Recording([frame_at(0)])
    with CaptureThread(source) as latest:
        assert (latest.name, latest.fps, latest.expected) == ("recording", 200.0, 1)
        assert latest.live
    assert source.closed == 1


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


def test_pace_passes_gaps_on_and_invents_a_rate_where_there_is_none() -> None:
    with Paced(Recording([gap(0)], fps=None)) as paced:
        assert paced.fps == 30.0
        assert isinstance(paced.read(), Gap)
        assert paced.read() is None
