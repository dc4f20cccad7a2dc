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


def frame(pts: int | None) -> Any:
    return SimpleNamespace(pts=pts)


def test_damage_spoils_what_follows_up_to_the_next_key_packet() -> None:
    log = PacketLog(intra_only=False)
    arrivals = [arrive(log, pts, key=pts in {0, 4}) for pts in range(7)]
    assert log.damaged(arrivals[1])
    assert [log.spoiled(arrival) for arrival in arrivals] == [
        *(False, True, True, True),
        *(False, False, False),
    ]
    assert [log.is_damaged(arrival) for arrival in arrivals].count(True) == 1


def test_without_prediction_damage_stays_where_it_is() -> None:
    log = PacketLog(intra_only=True)
    arrivals = [arrive(log, pts) for pts in range(3)]
    log.damaged(arrivals[1])
    assert [log.spoiled(arrival) for arrival in arrivals] == [False, True, False]


def test_what_is_shown_before_its_key_frame_may_be_predicted_from_across_it() -> None:
    log = PacketLog(intra_only=False)
    arrive(log, 0, key=True)
    bad = arrive(log, 1)
    arrive(log, 4, key=True)
    leading, following = arrive(log, 3), arrive(log, 5)
    log.damaged(bad)
    assert log.spoiled(leading)
    assert not log.spoiled(following)


def test_damage_is_remembered_while_its_frame_may_still_come_out() -> None:
    """A decoder that reorders holds a damaged frame back past two key packets."""
    log = PacketLog(intra_only=False)
    arrive(log, 0, key=True)
    bad = arrive(log, 1)
    log.damaged(bad)
    arrive(log, 2, key=True)
    arrive(log, 3, key=True)
    origin = log.origin(frame(1))
    assert origin == bad
    assert log.is_damaged(bad)


def test_the_same_damage_counts_once() -> None:
    log = PacketLog(intra_only=False)
    arrival = arrive(log, 0, key=True)
    assert log.damaged(arrival)
    assert not log.damaged(arrival)


def test_a_frame_that_an_error_took_along_is_missing() -> None:
    log = PacketLog(intra_only=False)
    first, whole, bad, last = (arrive(log, pts, key=pts == 0) for pts in range(4))
    assert log.origin(frame(0)) == first
    log.damaged(bad)
    assert log.overtaken(3) == [(1, whole)]
    assert log.is_missing(frame(1))
    assert log.origin(frame(3)) == last
    assert log.overtaken(math.inf) == []


def test_without_damage_a_packet_without_a_frame_is_not_missed() -> None:
    log = PacketLog(intra_only=False)
    for pts in range(3):
        arrive(log, pts, key=pts == 0)
    assert log.overtaken(2) == []
    assert not log.is_missing(frame(0))


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
    assert log.origin(frame(None)) == newest
    assert log.origin(frame(None)) is None
    assert log.overtaken(math.inf) == []
