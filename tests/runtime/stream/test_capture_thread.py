from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.core.errors import CameraError
from motorvae.runtime.core.frame import Frame, Gap
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.convert import fitted, input_from_pixels, luma_from_image
from motorvae.runtime.sources.base import FrameSource
from motorvae.runtime.stream import capture_thread as capture
from motorvae.runtime.stream.capture_thread import CaptureThread
from motorvae.runtime.stream.mailbox import LostFrame, Mailboxes, QueuedFrame

FrameAt = Callable[..., Frame]
Script = list[Any]


class Scripted(FrameSource):
    """A camera that does what each of its lives says: frames, gaps, and how it ends.

    Args:
        lives: What is read after each opening. An exception is raised; the end of a life is the
            end of the stream. A life that is an exception cannot be opened.
    """

    name = "scripted"
    live = True

    def __init__(self, *lives: Script | Exception, can_reconnect: bool = True) -> None:
        self.can_reconnect = can_reconnect
        self._lives = list(lives)
        self._items = iter(self._next_life())
        self.calls: list[str] = []

    def _next_life(self) -> Script:
        life = self._lives.pop(0) if self._lives else CameraError("gone for good")
        if isinstance(life, Exception):
            raise life
        return life

    def read(self) -> Frame | Gap | None:
        item = next(self._items, None)
        if isinstance(item, Exception):
            raise item
        return item() if callable(item) else item

    def close(self) -> None:
        self.calls.append("close")

    def reopen(self) -> None:
        # What it is asked after its last life depends on how soon the test ends.
        self.calls.append("reopen" if self._lives else "reopen in vain")
        self._items = iter(self._next_life())


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(capture, "LONGEST_PAUSE_S", 0.01)


Run = Callable[..., list[tuple[str, int]]]


class Kinds:
    """Tells items apart: the reason of a loss, `back` for the frame that ends it, or `frame`."""

    def __init__(self) -> None:
        self._is_lost = False

    def of(self, item: QueuedFrame | LostFrame) -> str:
        if isinstance(item, LostFrame):
            self._is_lost = item.last_grab_ns is not None
            return item.row.reason or ""
        was_lost, self._is_lost = self._is_lost, False
        return "back" if was_lost else "frame"


@pytest.fixture
def run(small_spec: ModelSpec) -> Iterator[Run]:
    """Everything that comes out of a source's mailbox, as (reason or 'frame' or 'back', index)."""

    def call(
        source: FrameSource,
        *,
        items: int | None = None,
        give_up_s: float = 60,
        out: list[Any] | None = None,
        **options: Any,
    ) -> list[tuple[str, int]]:
        boxes = Mailboxes()
        waits = not source.can_reconnect
        timeouts = {"timeout_s": 60, "give_up_s": give_up_s} if source.can_reconnect else {}
        box = boxes.add("x", keep=64, waits=waits, **timeouts)
        found: list[tuple[str, int]] = []
        kinds = Kinds()
        with CaptureThread(source, box, small_spec, **options) as thread:
            thread.start()
            while (items is None or len(found) < items) and (taken := boxes.take()):
                for item in taken:
                    found.append((kinds.of(item), item.row.index))
                    if out is not None:
                        out.append(item)
        return found

    return call


def test_frames_arrive_as_the_encoders_luma_with_their_facts(
    run: Run, small_spec: ModelSpec
) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3), np.uint8)
    frame = Frame(image, 0, captured_ns=1, grabbed_ns=2, capture_ns=3, name="a", media_s=4.0)
    out: list[Any] = []
    assert run(Scripted([frame], can_reconnect=False), out=out) == [("frame", 0)]
    (frame_out,) = out
    assert frame_out.pixels.dtype == np.uint8
    assert np.array_equal(
        frame_out.pixels * np.float32(1 / 255),
        input_from_pixels(fitted(luma_from_image(image), small_spec)),
    )
    assert (frame_out.row.captured_ns, frame_out.grabbed_ns, frame_out.capture_ns) == (1, 2, 3)
    assert (frame_out.row.name, frame_out.row.media_s) == ("a", 4.0)
    assert frame_out.convert_ns > 0
    assert not frame_out.row.duplicate


def test_luma_from_the_source_is_taken_as_it_is_with_the_time_it_took(
    run: Run, small_spec: ModelSpec
) -> None:
    side = small_spec.image_size
    luma = np.random.default_rng(2).integers(0, 256, (side, side), np.uint8)
    out: list[Any] = []
    frame = Frame(luma, 0, 1, 2, 3, convert_ns=10**12, is_fitted=True)
    assert run(Scripted([frame], can_reconnect=False), out=out) == [("frame", 0)]
    assert out[0].pixels is luma
    assert out[0].capture_ns == 3
    assert out[0].convert_ns > 10**12


def test_what_waits_does_not_hold_the_cameras_image(small_spec: ModelSpec) -> None:
    """A crop of a large image would be a view that keeps all of it."""
    image = np.random.default_rng(1).integers(0, 256, (32, 3200), np.uint8)
    out: list[Any] = []
    source = Scripted([Frame(image, 0, 1, 2, 3)], can_reconnect=False)
    with_crop = small_spec.model_copy(update={"fit": "crop"})
    boxes = Mailboxes()
    box = boxes.add("x", keep=1, waits=True)
    with CaptureThread(source, box, with_crop) as thread:
        thread.start()
        out += [item for item in boxes.take() if isinstance(item, QueuedFrame)]
    assert out[0].pixels.flags.c_contiguous
    base = out[0].pixels.base
    assert base is None or base.nbytes == out[0].pixels.nbytes


def test_the_end_of_a_recording_is_an_end(run: Run, frame_at: FrameAt) -> None:
    source = Scripted([frame_at(0, 1), frame_at(1, 2)], can_reconnect=False)
    assert run(source) == [("frame", 0), ("frame", 1)]
    assert source.calls == ["close"]


def test_the_end_of_a_camera_is_a_loss_and_it_is_opened_again(run: Run, frame_at: FrameAt) -> None:
    source = Scripted([frame_at(0, 1)], [frame_at(1, 2)])
    found = run(source, items=3)
    assert found == [("frame", 0), ("the stream ended", 1), ("back", 2)]
    assert source.calls[:2] == ["close", "reopen"]


def test_it_is_opened_again_until_it_is_there(run: Run, frame_at: FrameAt) -> None:
    away = CameraError("not there")
    source = Scripted([frame_at(0, 1), CameraError("unplugged")], away, away, [frame_at(1, 2)])
    assert run(source, items=3) == [("frame", 0), ("unplugged", 1), ("back", 2)]
    assert source.calls[:4] == ["close", "reopen", "reopen", "reopen"]


def test_it_is_given_up_in_the_end(run: Run, frame_at: FrameAt) -> None:
    source = Scripted([frame_at(0, 1), CameraError("unplugged")])
    found = run(source, give_up_s=0.2)
    assert found == [
        ("frame", 0),
        ("unplugged", 1),
        ("given up after 0.2 s: gone for good", 2),
    ]
    assert "reopen in vain" in source.calls


def test_pauses_double_up_to_a_limit_and_vary(
    monkeypatch: pytest.MonkeyPatch, run: Run, frame_at: FrameAt
) -> None:
    waited: list[float] = []
    wait = threading.Event.wait

    def record(event: threading.Event, timeout: float | None = None) -> bool:
        if timeout is not None and threading.current_thread().name.startswith("capture"):
            waited.append(timeout)
        return wait(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", record)
    away = [CameraError("not there")] * 8
    run(Scripted([frame_at(0, 1)], *away, [frame_at(1, 2)]), items=3)
    waited = waited[:9]
    assert 0.001 <= waited[0] <= 0.003
    assert 0.002 <= waited[1] <= 0.006
    assert 0.004 <= waited[2] <= 0.012
    assert max(waited) <= 0.015
    assert len({*waited}) == len(waited)


def test_a_failure_of_what_cannot_return_ends_it_with_a_reason(
    frame_at: FrameAt, small_spec: ModelSpec
) -> None:
    source = Scripted([frame_at(0, 1), CameraError("broke")], can_reconnect=False)
    boxes = Mailboxes()
    box = boxes.add("x", keep=4, waits=True)
    with CaptureThread(source, box, small_spec) as thread:
        thread.start()
        while boxes.take():
            pass
    assert box.failure == "x: broke"


def test_a_damaged_frame_is_passed_on_and_the_next_one_ends_the_gap(
    run: Run, frame_at: FrameAt
) -> None:
    gap = Gap(1, "does not decode", time.time_ns())
    source = Scripted([frame_at(0, 1), gap, frame_at(2, 2)])
    assert run(source, items=3) == [("frame", 0), ("does not decode", 1), ("back", 2)]


def test_an_image_that_cannot_be_converted_is_a_gap(run: Run, frame_at: FrameAt) -> None:
    empty = Frame(np.zeros((0, 4), np.uint8), 1, 1, 2, 3)
    source = Scripted([frame_at(0, 1), empty, frame_at(2, 2)], can_reconnect=False)
    kinds = run(source)
    assert [index for _, index in kinds] == [0, 1, 2]
    assert "has no pixels" in kinds[1][0]


def test_a_camera_that_sends_only_rubbish_is_opened_again(
    frame_at: FrameAt, small_spec: ModelSpec
) -> None:
    rubbish = [Gap(index, "rubbish", time.time_ns()) for index in range(1, 200_000)]
    source = Scripted([frame_at(0, 1), *rubbish], [frame_at(1, 2)])
    boxes = Mailboxes()
    box = boxes.add("x", keep=4, waits=False, timeout_s=0.05, give_up_s=60)
    with CaptureThread(source, box, small_spec) as thread:
        thread.start()
        kinds: list[str] = []
        kinds_of = Kinds()
        while "back" not in kinds:
            kinds += [kinds_of.of(item) for item in boxes.take()]
    assert source.calls[:2] == ["close", "reopen"]
    assert kinds[0] == "frame"
    assert "rubbish" in kinds


def seconds(value: float) -> int:
    return round(value * 1e9)


def test_a_repeated_picture_is_a_duplicate(run: Run, frame_at: FrameAt) -> None:
    out: list[Any] = []
    levels = [10, 10, 20, 20, 10]
    frames = [frame_at(index, level) for index, level in enumerate(levels)]
    run(Scripted(frames, can_reconnect=False), out=out)
    assert [frame_out.row.duplicate for frame_out in out] == [False, True, False, True, False]


def test_a_frozen_camera_is_lost_and_stays_so_until_the_picture_changes(
    run: Run, frame_at: FrameAt
) -> None:
    def at(index: int, level: int, second: float) -> Frame:
        return frame_at(index, level, grabbed_ns=seconds(second))

    source = Scripted(
        [at(0, 10, 0), at(1, 20, 1), at(2, 20, 1.9), at(3, 20, 2.1)],  # same for 1.1 s
        [at(4, 20, 2.2)],  # back, and still the same
        [at(5, 20, 2.3)],
        [at(6, 30, 2.4)],
    )
    out: list[Any] = []
    found = run(source, items=5, freeze_after_s=1.0, out=out)
    assert found[:4] == [
        ("frame", 0),
        ("frame", 1),
        ("frame", 2),
        ("the picture has not changed for 1 s", 3),
    ]
    assert found[4][0] == "back"
    assert source.calls.count("reopen") == 3
    (first, *_) = [item for item in out if isinstance(item, LostFrame)]
    assert first.last_grab_ns == seconds(1.9)


def test_a_still_scene_is_no_frozen_camera_just_because_it_was_unplugged(
    run: Run, frame_at: FrameAt
) -> None:
    source = Scripted(
        [frame_at(0, 10, grabbed_ns=0), CameraError("unplugged")],
        [frame_at(1, 10, grabbed_ns=seconds(100))],
    )
    found = run(source, items=3, freeze_after_s=1.0)
    assert [kind for kind, _ in found] == ["frame", "unplugged", "back"]


def test_a_recording_freezes_in_its_own_time_and_goes_on(run: Run, frame_at: FrameAt) -> None:
    levels = [10, 20, 20, 20, 20, 20, 30]
    frames = [
        frame_at(index, level, media_s=0.5 * index, grabbed_ns=index)
        for index, level in enumerate(levels)
    ]
    found = run(Scripted(frames, can_reconnect=False), freeze_after_s=1.0)
    assert found == [
        ("frame", 0),
        ("frame", 1),
        ("frame", 2),
        ("frame", 3),
        ("the picture has not changed for 1 s", 4),
        ("back", 6),
    ]


def test_a_picture_may_stand_still_where_freezing_is_no_loss(run: Run, frame_at: FrameAt) -> None:
    frames = [frame_at(index, 10, grabbed_ns=seconds(index)) for index in range(20)]
    assert len(run(Scripted(frames, can_reconnect=False))) == 20


UNEXPECTED = [
    IndexError("index out of range"),
    MemoryError(),
    RecursionError("maximum recursion depth exceeded"),
    UnicodeDecodeError("ascii", b"\xff", 0, 1, "ordinal not in range"),
    ValueError("two lines\nof rtsp://user:secret@host/live text"),
]
REASONS = [
    "IndexError: index out of range",
    "MemoryError",
    "RecursionError: maximum recursion depth exceeded",
    "UnicodeDecodeError: 'ascii' codec can't decode byte 0xff in position 0: ordinal not in range",
    "ValueError: two lines of rtsp://***@host/live text",
]


@pytest.mark.parametrize(("error", "reason"), [*zip(UNEXPECTED, REASONS, strict=True)])
def test_whatever_a_camera_makes_a_library_raise_is_a_row_and_it_is_opened_again(
    run: Run, frame_at: FrameAt, error: Exception, reason: str
) -> None:
    source = Scripted([frame_at(0, 1), error], error, [frame_at(1, 2)])
    assert run(source, items=3) == [("frame", 0), (reason, 1), ("back", 2)]
    assert source.calls[:3] == ["close", "reopen", "reopen"]


def test_a_frame_that_no_conversion_takes_costs_a_row(run: Run, frame_at: FrameAt) -> None:
    odd = Frame("no array", 1, 1, 2, 3)  # type: ignore[arg-type]
    source = Scripted([frame_at(0, 1), odd], [frame_at(2, 2)])
    found = run(source, items=3)
    assert [index for _, index in found] == [0, 1, 3]
    assert found[2][0] == "back"


def test_a_recording_that_makes_a_library_raise_ends_with_its_reason(
    frame_at: FrameAt, small_spec: ModelSpec
) -> None:
    boxes = Mailboxes()
    box = boxes.add("x", keep=4, waits=True)
    found = []
    source = Scripted([frame_at(0, 1), ZeroDivisionError("a bug")], can_reconnect=False)
    with CaptureThread(source, box, small_spec) as thread:
        thread.start()
        while items := boxes.take():
            found += items
    assert isinstance(found[-1], LostFrame)
    assert found[-1].row.reason == "ZeroDivisionError: a bug"
    assert box.failure == "x: ZeroDivisionError: a bug"


def test_a_camera_that_is_given_up_is_not_read_any_more(small_spec: ModelSpec) -> None:
    """It goes on sending, and nothing of it is whole: it is closed, and its thread ends."""

    class Endless(Scripted):
        def read(self) -> Gap:
            return Gap(0, "rubbish", time.time_ns())

        def reopen(self) -> None:
            self.calls.append("reopen")

    source = Endless([])
    boxes = Mailboxes()
    box = boxes.add("x", keep=4, waits=False, timeout_s=0.02, give_up_s=0.2)
    reasons = []
    thread = CaptureThread(source, box, small_spec)
    thread.start()
    while items := boxes.take():
        reasons += [item.row.reason for item in items]
    thread._thread.join(60)
    assert not thread._thread.is_alive()
    assert source.calls[-1] == "close"
    assert "reopen" in source.calls
    assert reasons[0] == "rubbish"
    assert "no whole frame came for 0.02 s: rubbish" in reasons
    assert reasons[-1] == "given up after 0.2 s: no whole frame came for 0.02 s: rubbish"
    thread.close()


def test_a_camera_whose_first_frame_is_damaged_is_not_closed_for_an_old_silence(
    frame_at: FrameAt, small_spec: ModelSpec
) -> None:
    """It was away for longer than the time-out; since it is back, nothing has been silent."""
    away = [CameraError("not there")] * 12
    damaged = Gap(1, "does not decode", time.time_ns())
    source = Scripted([frame_at(0, 1)], *away, [damaged, frame_at(2, 2)])
    boxes = Mailboxes()
    box = boxes.add("x", keep=4, waits=False, timeout_s=0.03, give_up_s=60)
    kinds: list[str] = []
    kinds_of = Kinds()
    with CaptureThread(source, box, small_spec) as thread:
        thread.start()
        while "back" not in kinds:
            kinds += [kinds_of.of(item) for item in boxes.take()]
    assert source.calls.count("reopen") == 13
    assert not any("no whole frame" in kind for kind in kinds)


def test_closing_stops_the_thread_and_closes_the_source(
    hand_fed: Any, frame_at: FrameAt, small_spec: ModelSpec
) -> None:
    boxes = Mailboxes()
    box = boxes.add("x", keep=1, waits=False)
    thread = CaptureThread(hand_fed, box, small_spec)
    thread.start()
    hand_fed.wait_until_asked()
    thread.stop()
    hand_fed.give(frame_at(0), last=True)
    thread.close()
    assert hand_fed.closed == 1
    assert not thread._thread.is_alive()


def test_a_thread_that_never_started_closes_its_source(
    hand_fed: Any, small_spec: ModelSpec
) -> None:
    boxes = Mailboxes()
    box = boxes.add("x", keep=1, waits=False)
    CaptureThread(hand_fed, box, small_spec).close()
    assert hand_fed.closed == 1
