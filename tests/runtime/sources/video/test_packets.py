"""The rules on made-up packets; that real decoders behave so is shown in test_video."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

import pytest

from motorvae.runtime.sources.video.packets import Arrival, PacketLog


def arrive(log: PacketLog, pts: int | None, *, key: bool = False) -> Arrival:
    packet: Any = SimpleNamespace(pts=pts, is_keyframe=key, duration=1)
    return log.arrived(packet, time.monotonic_ns())


def test_damage_spoils_what_follows_up_to_the_next_key_packet() -> None:
    log = PacketLog(intra_only=False)
    arrivals = [arrive(log, pts, key=pts in {0, 4}) for pts in range(7)]
    log.lose(arrivals[1], "bad")
    assert [log.spoiled(arrival) for arrival in arrivals] == [
        *(False, True, True, True),
        *(False, False, False),
    ]
    assert log.damaged == {1}


def test_without_prediction_damage_stays_where_it_is() -> None:
    log = PacketLog(intra_only=True)
    arrivals = [arrive(log, pts) for pts in range(3)]
    log.lose(arrivals[1], "bad")
    assert [log.spoiled(arrival) for arrival in arrivals] == [False, True, False]


def test_what_is_shown_before_its_key_frame_may_be_predicted_from_across_it() -> None:
    log = PacketLog(intra_only=False)
    arrive(log, 0, key=True)
    bad = arrive(log, 1)
    arrive(log, 4, key=True)
    leading, following = arrive(log, 3), arrive(log, 5)
    log.lose(bad, "bad")
    assert log.spoiled(leading)
    assert not log.spoiled(following)


def test_damage_is_remembered_while_its_frame_may_still_come_out() -> None:
    """A decoder that reorders holds a damaged frame back past two key packets."""
    log = PacketLog(intra_only=False)
    arrive(log, 0, key=True)
    bad = arrive(log, 1)
    log.lose(bad, "bad")
    arrive(log, 2, key=True)
    arrive(log, 3, key=True)
    assert log.waiting.pop(1, None) == bad
    assert log.damaged == {1}


def test_a_gap_waits_for_its_turn_and_comes_once() -> None:
    log = PacketLog(intra_only=False)
    first, last, middle = (arrive(log, pts, key=pts == 0) for pts in (0, 2, 1))
    log.lose(last, "cut")
    log.lose(middle, "torn")
    assert log.waiting.pop(0, None) == first
    assert list(log.gaps_before(0)) == []
    assert list(log.gaps_before(1)) == [("torn", middle.captured_ns)]
    assert list(log.gaps_before(math.inf)) == [("cut", last.captured_ns)]
    assert list(log.gaps_before(math.inf)) == []


def test_a_frame_that_an_error_took_along_is_missing() -> None:
    log = PacketLog(intra_only=False)
    first, whole, bad, last = (arrive(log, pts, key=pts == 0) for pts in range(4))
    assert log.waiting.pop(0, None) == first
    log.lose(bad, "bad")
    assert list(log.gaps_before(3)) == [
        ("frame is missing after a damaged one", whole.captured_ns),
        ("bad", bad.captured_ns),
    ]
    assert log.missing == {1}
    assert log.waiting.pop(3, None) == last
    assert list(log.gaps_before(math.inf)) == []


def test_without_damage_a_packet_without_a_frame_is_not_missed() -> None:
    log = PacketLog(intra_only=False)
    for pts in range(3):
        arrive(log, pts, key=pts == 0)
    assert list(log.gaps_before(2)) == []
    assert log.missing == set()


@pytest.mark.parametrize("stamps", [[5, 7, 6], [5, None, 7]])
def test_the_log_knows_how_many_packets_and_how_far(stamps: list[int | None]) -> None:
    log = PacketLog(intra_only=False)
    for pts in stamps:
        arrive(log, pts)
    assert (log.count, log.first_pts, log.end_pts) == (3, 5, 8)


def test_packets_without_time_stamps_are_told_apart_by_order_only() -> None:
    log = PacketLog(intra_only=True)
    arrive(log, None)
    newest = arrive(log, None)
    assert log.waiting.pop(None, None) == newest
    assert log.waiting.pop(None, None) is None
    assert list(log.gaps_before(math.inf)) == []
