from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from motorvae.runtime.core.frame import Frame, Gap
from motorvae.runtime.stream import mailbox
from motorvae.runtime.stream.mailbox import LostFrame, Mailbox, Mailboxes, QueuedFrame

FrameAt = Callable[..., Frame]
SOON = {"timeout_s": 0.05, "give_up_s": 0.05}
LATE = {"timeout_s": 1e6, "give_up_s": 1e6}


@pytest.fixture
def boxes() -> Mailboxes:
    return Mailboxes(batch_wait_s=60)


def live(boxes: Mailboxes, name: str = "a", keep: int = 1, **timeouts: float) -> Mailbox:
    return boxes.add(name, keep=keep, waits=False, **(timeouts or LATE))


def put(box: Mailbox, frame: Frame, **facts: Any) -> None:
    box.deliver(frame, frame.image, convert_ns=0, **{"duplicate": False, **facts})


def gap(index: int, reason: str = "damaged") -> Gap:
    return Gap(index, reason, time.time_ns())


def taken(boxes: Mailboxes) -> list[tuple[int, str, int]]:
    """Index, kind and drops of all that waits, oldest first."""
    found = []
    while any(box.items for box in boxes.boxes):
        for item in boxes.take():
            what = item.row.reason if isinstance(item, LostFrame) else "frame"
            found.append((item.row.index, what or "", item.row.dropped))
    return found


def items_of(boxes: Mailboxes, count: int) -> list[QueuedFrame | LostFrame]:
    """The next items, of whichever camera."""
    found: list[QueuedFrame | LostFrame] = []
    while len(found) < count:
        found += boxes.take()
    return found


def only(boxes: Mailboxes) -> QueuedFrame:
    (item,) = boxes.take()
    assert isinstance(item, QueuedFrame)
    return item


def test_the_newest_frame_is_kept_and_those_it_overtook_are_counted(
    boxes: Mailboxes, frame_at: FrameAt
) -> None:
    box = live(boxes)
    for index in range(5):
        put(box, frame_at(index))
    assert taken(boxes) == [(4, "frame", 4)]
    put(box, frame_at(8))
    assert taken(boxes) == [(8, "frame", 3)]


def test_several_frames_wait_where_asked_and_keep_their_own_time(
    boxes: Mailboxes, frame_at: FrameAt
) -> None:
    box = live(boxes, keep=3)
    for index in range(5):
        put(box, frame_at(index, grabbed_ns=100 + index))
    queued = [only(boxes) for _ in range(3)]
    assert [(item.row.index, item.grabbed_ns) for item in queued] == [
        (2, 102),
        (3, 103),
        (4, 104),
    ]
    assert [item.row.dropped for item in queued] == [2, 0, 0]


def test_gaps_are_never_pushed_out_and_keep_their_place(
    boxes: Mailboxes, frame_at: FrameAt
) -> None:
    box = live(boxes)
    put(box, frame_at(0))
    box.skip(gap(1))
    put(box, frame_at(2))
    box.skip(gap(3))
    box.skip(gap(4))
    assert taken(boxes) == [
        (1, "damaged", 1),
        (2, "frame", 0),
        (3, "damaged", 0),
        (4, "damaged", 0),
    ]


def test_a_damaged_frame_says_when_the_last_whole_one_was_grabbed(
    boxes: Mailboxes, frame_at: FrameAt
) -> None:
    box = live(boxes, keep=9)
    put(box, frame_at(0, grabbed_ns=1000))
    box.skip(gap(1))
    box.skip(gap(2))
    put(box, frame_at(3, grabbed_ns=5000))
    put(box, frame_at(4, grabbed_ns=6000))
    items = items_of(boxes, 5)
    losses = [item for item in items if isinstance(item, LostFrame)]
    assert [loss.last_grab_ns for loss in losses] == [1000, 1000]


def test_a_loss_is_one_row_at_once_and_says_when_it_began(
    boxes: Mailboxes, frame_at: FrameAt
) -> None:
    box = live(boxes, keep=9)
    put(box, frame_at(0, grabbed_ns=1000))
    box.lose("unplugged")
    box.lose("still unplugged")
    assert not box.is_awaited
    put(box, frame_at(1, grabbed_ns=9000))
    put(box, frame_at(2))
    assert box.is_awaited
    first, loss, back, after = items_of(boxes, 4)
    assert isinstance(first, QueuedFrame)
    assert isinstance(loss, LostFrame)
    assert isinstance(back, QueuedFrame)
    assert isinstance(after, QueuedFrame)
    assert loss.row.reason == "unplugged"
    assert loss.last_grab_ns == 1000
    # The loss took an index, since no two rows share one.
    assert [item.row.index for item in (first, loss, back, after)] == [0, 1, 2, 3]
    assert back.row.dropped == 0


def test_a_loss_noticed_at_a_frame_is_that_frames_row(boxes: Mailboxes, frame_at: FrameAt) -> None:
    """A recording's indices stay those of its frames."""
    box = live(boxes, keep=9)
    put(box, frame_at(0))
    box.lose("frozen", index=3)
    put(box, frame_at(9))
    assert taken(boxes) == [(0, "frame", 0), (3, "frozen", 2), (9, "frame", 0)]


def test_what_a_clock_counted_while_the_camera_was_gone_is_no_drop(
    boxes: Mailboxes, frame_at: FrameAt
) -> None:
    box = live(boxes)
    put(box, frame_at(0))
    assert taken(boxes) == [(0, "frame", 0)]
    box.lose("unplugged")
    put(box, frame_at(100))
    assert taken(boxes) == [(1, "unplugged", 0), (101, "frame", 0)]
    put(box, frame_at(103))
    assert taken(boxes) == [(104, "frame", 2)]


def test_the_end_of_a_loss_is_not_overtaken(boxes: Mailboxes, frame_at: FrameAt) -> None:
    """The frame that ended the loss is pushed out; the loss stays, and the next one ends it."""
    box = live(boxes)
    put(box, frame_at(0, grabbed_ns=1000))
    box.lose("unplugged")
    for index in (1, 2, 3):
        put(box, frame_at(index, grabbed_ns=9000 + index))
    loss, back = items_of(boxes, 2)
    assert isinstance(loss, LostFrame)
    assert isinstance(back, QueuedFrame)
    assert loss.row.dropped == 1
    assert loss.last_grab_ns == 1000
    assert (back.grabbed_ns, back.row.dropped) == (9003, 2)


def test_frame_zero_was_overtaken_by_the_loss_too(boxes: Mailboxes, frame_at: FrameAt) -> None:
    """A frame that waits when the camera is lost was delivered, and is still handed out."""
    box = live(boxes)
    put(box, frame_at(0))
    box.lose("unplugged")
    assert taken(boxes) == [(0, "frame", 0), (1, "unplugged", 0)]


def test_silence_is_a_loss_and_a_long_one_is_given_up(boxes: Mailboxes, frame_at: FrameAt) -> None:
    box = live(boxes, **SOON)
    put(box, frame_at(0))
    assert only(boxes).row.index == 0
    started = time.monotonic()
    (silent,) = boxes.take()
    assert isinstance(silent, LostFrame)
    assert silent.row.reason == "no frame came for 0.05 s, whole or damaged"
    assert time.monotonic() - started >= 0.04
    (given_up,) = boxes.take()
    assert isinstance(given_up, LostFrame)
    assert (
        given_up.row.reason == "given up after 0.05 s: no frame came for 0.05 s, whole or damaged"
    )
    assert time.monotonic() - started >= 0.09
    assert boxes.take() == []
    assert box.failure == f"a: {given_up.row.reason}"
    put(box, frame_at(1))  # too late
    assert boxes.take() == []


def test_damage_is_told_apart_from_silence(boxes: Mailboxes) -> None:
    box = live(boxes, timeout_s=0.05, give_up_s=1e6)
    box.skip(gap(0, "torn"))
    reasons = [item.row.reason for item in items_of(boxes, 2)]
    assert reasons == ["torn", "no whole frame came for 0.05 s: torn"]
    box.listen()
    put_again = box.skip(gap(1, "torn"))
    assert put_again is None


def test_what_comes_before_a_key_frame_makes_no_row_and_is_no_silence(
    boxes: Mailboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = live(boxes, timeout_s=0.01, give_up_s=1e6)
    early = Gap(0, "no key frame has come", time.time_ns(), counts=False)
    assert box.skip(early) is None
    (loss,) = items_of(boxes, 1)
    assert (loss.row.index, loss.row.reason) == (
        0,
        "no whole frame came for 0.01 s: no key frame has come",
    )
    assert box.skip(early) is None  # a key frame may yet come
    monkeypatch.setattr(mailbox, "LONGEST_JOIN_S", 0.0)
    assert box.skip(early) == "no whole frame came for 0.01 s: no key frame has come"


def test_a_flood_of_damaged_live_frames_is_bounded_and_counted(boxes: Mailboxes) -> None:
    box = live(boxes, keep=2)
    total = 3 * mailbox.MOST_LIVE_LOSSES
    for index in range(total):
        box.skip(gap(index))
    assert len(box.items) == mailbox.MOST_LIVE_LOSSES
    items = items_of(boxes, mailbox.MOST_LIVE_LOSSES)
    assert sum(1 + item.row.dropped for item in items) == total


def test_a_reason_learned_later_is_the_one_for_giving_up(boxes: Mailboxes) -> None:
    box = live(boxes, timeout_s=1e6, give_up_s=0.02)
    box.lose("the stream ended")
    assert len(boxes.take()) == 1
    box.lose("connection refused")
    (given_up,) = boxes.take()
    assert isinstance(given_up, LostFrame)
    assert given_up.row.reason == "given up after 0.02 s: connection refused"


def test_a_recording_never_falls_silent(boxes: Mailboxes) -> None:
    box = boxes.add("film", keep=1, waits=True)
    assert box.check_deadline(time.monotonic_ns()) == math.inf
    assert not box.skip(gap(0))


def test_it_tries_for_ever_where_asked(boxes: Mailboxes) -> None:
    box = live(boxes, timeout_s=1, give_up_s=math.inf)
    box.lose("unplugged")
    assert box.check_deadline(time.monotonic_ns()) == math.inf


def test_a_recording_waits_for_room(boxes: Mailboxes, frame_at: FrameAt) -> None:
    box = boxes.add("film", keep=2, waits=True)

    def capture() -> None:
        for index in range(50):
            box.wait_for_room()
            put(box, frame_at(index))
        box.end()

    thread = threading.Thread(target=capture)
    thread.start()
    found = []
    while items := boxes.take():
        found += [item.row.index for item in items if isinstance(item, QueuedFrame)]
        assert box.frames <= 2
    thread.join(60)
    assert found == list(range(50))


def test_a_capture_that_waits_for_room_is_let_go(boxes: Mailboxes, frame_at: FrameAt) -> None:
    box = boxes.add("film", keep=1, waits=True)
    put(box, frame_at(0))
    thread = threading.Thread(target=box.wait_for_room)
    thread.start()
    box.stop()
    thread.join(60)
    assert not thread.is_alive()
    put(box, frame_at(1))  # too late
    assert only(boxes).row.index == 0
    assert not box.items


def test_frames_that_are_there_together_come_together(boxes: Mailboxes, frame_at: FrameAt) -> None:
    """The first waits for the second: a minute, were it not there before."""
    left, right = live(boxes, "left"), live(boxes, "right")
    put(left, frame_at(0))
    thread = threading.Thread(target=lambda: put(right, frame_at(7)))
    thread.start()
    items = boxes.take()
    thread.join(60)
    assert [
        (item.row.camera, item.row.index) for item in items if isinstance(item, QueuedFrame)
    ] == [
        ("left", 0),
        ("right", 7),
    ]


def test_a_frame_does_not_wait_for_a_camera_that_is_lost_or_ended(
    boxes: Mailboxes, frame_at: FrameAt
) -> None:
    there, lost, ended = live(boxes, "there"), live(boxes, "lost"), live(boxes, "ended")
    lost.lose("unplugged")
    ended.end()
    put(there, frame_at(0))
    assert [item.row.camera for item in boxes.take()] == ["there", "lost"]
    put(there, frame_at(1))
    assert [item.row.camera for item in boxes.take()] == ["there"]


def test_a_frame_waits_no_longer_than_allowed(frame_at: FrameAt) -> None:
    boxes = Mailboxes(batch_wait_s=0.01)
    there, slow = live(boxes, "there"), live(boxes, "slow")
    put(there, frame_at(0))
    assert slow.is_awaited
    assert [item.row.camera for item in boxes.take()] == ["there"]


def test_stopping_ends_the_waiting_and_nothing_more_comes(
    boxes: Mailboxes, frame_at: FrameAt
) -> None:
    box = live(boxes)
    threading.Timer(0.01, boxes.stop).start()
    assert boxes.take() == []
    put(box, frame_at(0))
    assert boxes.take() == []


def test_losses_never_hold_the_frame_behind_them(boxes: Mailboxes, frame_at: FrameAt) -> None:
    """However many damaged frames come between two runs of the encoder, the newest is encoded."""
    box, other = live(boxes), live(boxes, "other")
    for index in range(0, 100, 2):
        put(box, frame_at(index))
        box.skip(gap(index + 1))
    put(box, frame_at(100))
    put(other, frame_at(0))
    taken_at_once = boxes.take()
    of_box = [item for item in taken_at_once if item.row.camera == "a"]
    assert len(of_box) == 51
    assert isinstance(of_box[-1], QueuedFrame)
    assert of_box[-1].row.index == 100
    assert not box.items


def test_damaged_frames_of_a_recording_wait_for_room_too(boxes: Mailboxes) -> None:
    box = boxes.add("film", keep=1, waits=True)
    done = threading.Event()

    def capture() -> None:
        for index in range(1000):
            box.wait_for_room()
            box.skip(gap(index))
        done.set()
        box.end()

    threading.Thread(target=capture, daemon=True).start()
    found, most = 0, 0
    while items := boxes.take():
        found += len(items)
        most = max(most, len(items))
    assert done.wait(60)
    assert found == 1000
    assert most <= 65


def test_what_nobody_took_is_counted_at_the_end(boxes: Mailboxes, frame_at: FrameAt) -> None:
    box = live(boxes, keep=2)
    for index in range(5):
        put(box, frame_at(index))
    assert boxes.close() == {"a": 5}
    put(box, frame_at(5))
    assert not box.items


def test_silence_counts_from_when_the_source_is_open(boxes: Mailboxes) -> None:
    box = live(boxes, timeout_s=0.05, give_up_s=1e6)
    while not box.skip(gap(0)):
        threading.Event().wait(0.01)
    box.listen()
    assert not box.skip(gap(1))
    assert box.check_deadline(0) > time.monotonic_ns()
