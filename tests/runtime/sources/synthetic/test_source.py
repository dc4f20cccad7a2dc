from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest

from motorvae.runtime.core.errors import CameraError
from motorvae.runtime.core.frame import Frame, Gap
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.synthetic.source import SyntheticSource
from motorvae.runtime.sources.synthetic.vehicles import MovingVehicles


def source_of(query: str) -> SyntheticSource:
    return SyntheticSource(SourceSpec.parse(f"synthetic?{query}"), CaptureRequest())


def frame_of(source: SyntheticSource) -> Frame:
    item = source.read()
    assert isinstance(item, Frame)
    return item


class Clock:
    """The monotonic clock of a source, moved on by its waits instead of by the world."""

    def __init__(self, source: SyntheticSource, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        self._was_stopped = source._stop.is_set
        monkeypatch.setattr(source._stop, "wait", self._wait)

    def _wait(self, seconds: float) -> bool:
        self.now_s += seconds
        return self._was_stopped()


def test_it_shows_its_world_at_the_time_of_each_tick() -> None:
    world = MovingVehicles(7, 128)
    with source_of("seed=7&fps=100&size=128") as source:
        assert source.live
        assert source.can_reconnect
        assert source.fps == 100
        frames = [frame_of(source) for _ in range(4)]
    for one, other in itertools.pairwise(frames):
        assert other.index > one.index
        assert other.grabbed_ns > one.grabbed_ns
    for frame in frames:
        assert frame.media_s == pytest.approx(frame.index / 100)
        assert np.array_equal(frame.image, world.image(frame.index / 100))
        assert frame.clock == "host"


def test_it_does_not_wait_for_a_late_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of("fps=10&size=32")
    clock = Clock(source, monkeypatch)
    assert frame_of(source).index == 0
    assert frame_of(source).index == 1
    clock.now_s += 0.75
    assert frame_of(source).index == 8
    assert clock.now_s == pytest.approx(100.85)
    assert frame_of(source).index == 9


def test_dropped_and_stalled_ticks_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of("fps=10&size=32&drop=0,3..4&stall=6..15")
    clock = Clock(source, monkeypatch)
    assert [frame_of(source).index for _ in range(5)] == [1, 2, 5, 16, 17]
    assert clock.now_s == pytest.approx(101.7)


def test_a_frozen_picture_repeats_while_the_frames_go_on() -> None:
    with source_of("fps=max&size=32&freeze=3..5&frames=8") as source:
        frames = [frame_of(source) for _ in range(8)]
    assert [frame.index for frame in frames] == list(range(8))
    same = [np.array_equal(one.image, other.image) for one, other in itertools.pairwise(frames)]
    assert same[2:5] == [True] * 3
    assert not same[1]
    assert not same[5]


def test_damage_is_a_gap_in_its_place() -> None:
    with source_of("fps=max&size=32&damage=1..2&frames=4") as source:
        items = [source.read() for _ in range(5)]
    assert [type(item) for item in items] == [Frame, Gap, Gap, Frame, type(None)]
    assert [item.index for item in items[:4]] == [0, 1, 2, 3]
    assert isinstance(items[1], Gap)
    assert "damaged" in items[1].reason


def test_it_is_lost_and_returns_when_its_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of("fps=10&size=32&lose=2..9,12")
    clock = Clock(source, monkeypatch)
    assert [frame_of(source).index for _ in range(2)] == [0, 1]
    for _ in range(2):
        with pytest.raises(CameraError, match="lost synthetic after 2 frames: it is gone") as lost:
            source.read()
        assert lost.value.clause() == "it is gone until frame 9 on request"
    assert clock.now_s == pytest.approx(100.2)
    source.close()
    for now_s in (100.2, 100.95):
        clock.now_s = now_s
        with pytest.raises(CameraError, match="cannot open synthetic: it is gone until frame 9"):
            source.reopen()
    clock.now_s = 101.01
    source.reopen()
    assert [frame_of(source).index for _ in range(2)] == [10, 11]
    with pytest.raises(CameraError, match="after 4 frames: it is gone until frame 12"):
        source.read()


def test_a_loss_that_passed_unread_is_noticed_late(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of("fps=10&size=32&lose=2..3")
    clock = Clock(source, monkeypatch)
    assert frame_of(source).index == 0
    clock.now_s += 5
    with pytest.raises(CameraError, match="lost synthetic"):
        source.read()
    source.close()
    source.reopen()
    assert frame_of(source).index == 50


def test_it_ends_for_good_after_its_last_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of("fps=10&size=32&frames=3&drop=1")
    Clock(source, monkeypatch)
    assert source.expected == 3
    assert [frame_of(source).index for _ in range(2)] == [0, 2]
    assert source.can_reconnect
    assert source.read() is None
    assert not source.can_reconnect


def test_as_fast_as_it_is_read_there_is_no_clock() -> None:
    with source_of("fps=max&size=32&frames=1000&loop=7&drop=2..3") as source:
        assert not source.live
        assert not source.can_reconnect
        assert source.fps is None
        items = list(iter(source.read, None))
    assert [item.index for item in items] == [0, 1, *range(4, 1000)]
    frames = [item for item in items if isinstance(item, Frame)]
    assert frames[0].image is frames[5].image  # 0 and 7: drawn once
    assert not np.array_equal(frames[0].image, frames[4].image)
    with pytest.raises(ValueError, match="read-only"):
        frames[0].image[0] = 0


@pytest.mark.parametrize("end", ["interrupt", "close"])
def test_a_waiting_read_returns_when_it_is_ended(end: str) -> None:
    source = source_of("fps=30&size=32&stall=1..1000000")
    frame_of(source)
    read: list[Frame | Gap | None] = []
    reader = threading.Thread(target=lambda: read.append(source.read()))
    reader.start()
    getattr(source, end)()
    reader.join(60)
    assert read == [None]
    assert source.can_reconnect
    source.reopen()
    assert not source._stop.is_set()
