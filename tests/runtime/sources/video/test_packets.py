"""The rules on made-up packets; that real decoders behave so is shown in test_video."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from motorvae.runtime.sources.video.codecs.bitstream import PacketFacts
from motorvae.runtime.sources.video.packets import Arrival, PacketLog


def arrive(
    log: PacketLog, pts: int | None, *, key: bool = False, dts: int | None = None, **facts: Any
) -> Arrival:
    packet: Any = SimpleNamespace(pts=pts, dts=dts, duration=1, is_discard=facts.pop("hide", False))
    return log.arrived(packet, time.monotonic_ns(), PacketFacts(entry=key, **facts))


def test_damage_spoils_what_follows_up_to_the_next_entry() -> None:
    log = PacketLog(intra_only=False)
    arrivals = [arrive(log, pts, key=pts in {0, 4}) for pts in range(7)]
    log.lose(arrivals[1], "bad")
    assert [log.spoiled(arrival) for arrival in arrivals] == [
        *(False, True, True, True),
        *(False, False, False),
    ]


def test_damage_to_a_frame_that_none_refers_to_stays_where_it_is() -> None:
    log = PacketLog(intra_only=False)
    first, bad, last = (arrive(log, pts, key=pts == 0, reference=pts != 1) for pts in range(3))
    log.lose(bad, "bad")
    assert log.is_lost(bad)
    assert not log.spoiled(first)
    assert not log.spoiled(last)


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


def test_damage_to_what_is_shown_before_its_key_frame_does_not_reach_beyond() -> None:
    log = PacketLog(intra_only=False)
    arrive(log, 0, key=True)
    arrive(log, 4, key=True)
    bad, other, following = arrive(log, 2), arrive(log, 3), arrive(log, 5)
    log.lose(bad, "bad")
    assert log.spoiled(other)
    assert not log.spoiled(following)


def test_what_comes_before_the_first_entry_is_neither_delivered_nor_lost() -> None:
    log = PacketLog(intra_only=False)
    early = arrive(log, 3)
    log.take(arrive(log, 8, key=True))
    leading, following = arrive(log, 7), arrive(log, 9)
    log.lose(early, "does not decode")
    log.lose(leading, "does not decode")
    assert log.spoiled(leading)
    assert not log.spoiled(following)
    assert list(log.gaps_before(None)) == []


def test_what_is_not_meant_to_be_shown_is_no_gap() -> None:
    log = PacketLog(intra_only=False)
    log.take(arrive(log, 0, key=True))
    log.lose(arrive(log, 1, hide=True), "bad")
    following = arrive(log, 2)
    assert log.spoiled(following)
    assert list(log.gaps_before(following)) == []


def test_an_entry_by_parts_is_none_where_one_of_the_parts_is_damaged() -> None:
    for damaged in (False, True):
        log = PacketLog(intra_only=False)
        arrivals = [arrive(log, pts, key=pts == 0) for pts in range(4)]
        log.lose(arrivals[1], "bad")
        if damaged:
            log.lose(arrivals[3], "bad")
        assert log.spoiled(arrive(log, 4, key=True, refreshed=2)) == damaged


def test_a_broken_entry_breaks_only_what_is_shown_before_it() -> None:
    log = PacketLog(intra_only=False)
    arrive(log, 0, key=True)
    arrive(log, 4, key=True, broken=True)
    leading, following = arrive(log, 3), arrive(log, 5)
    assert log.missing_link(leading) == "frame is predicted from one that did not come"
    assert log.missing_link(following) is None


def test_damage_is_remembered_while_its_frame_may_still_come_out() -> None:
    """A decoder that reorders holds a damaged frame back past two key packets."""
    log = PacketLog(intra_only=False)
    arrive(log, 0, key=True)
    bad = arrive(log, 1)
    log.lose(bad, "bad")
    arrive(log, 2, key=True)
    arrive(log, 3, key=True)
    assert log.is_lost(bad)


def test_a_gap_waits_for_its_turn_and_comes_once() -> None:
    log = PacketLog(intra_only=False)
    first, last, middle = (arrive(log, pts, key=pts == 0) for pts in (0, 2, 1))
    log.lose(last, "cut")
    log.lose(middle, "torn")
    assert log.take(first)
    assert list(log.gaps_before(first)) == []
    assert list(log.gaps_before(middle)) == [("torn", middle.captured_ns)]
    assert list(log.gaps_before(None)) == [("cut", last.captured_ns)]
    assert list(log.gaps_before(None)) == []


def test_a_frame_that_an_error_took_along_is_missing() -> None:
    log = PacketLog(intra_only=False)
    first, whole, bad, last = (arrive(log, pts, key=pts == 0) for pts in range(4))
    assert log.take(first)
    log.lose(bad, "bad")
    assert list(log.gaps_before(last)) == [
        ("frame is missing after a damaged one", whole.captured_ns),
        ("bad", bad.captured_ns),
    ]
    assert not log.take(whole)
    assert log.take(last)
    assert list(log.gaps_before(None)) == []


def test_without_damage_a_packet_without_a_frame_is_not_missed() -> None:
    log = PacketLog(intra_only=False)
    arrivals = [arrive(log, pts, key=pts == 0) for pts in range(3)]
    assert list(log.gaps_before(arrivals[2])) == []
    assert all(log.take(arrival) for arrival in arrivals)


def test_recordings_one_behind_the_other_keep_their_order() -> None:
    """The second begins at a time stamp that the first one has passed."""
    log = PacketLog(intra_only=False)
    stamps = [5, 6, 7, 1, 2, 3]
    arrivals = [arrive(log, pts, dts=pts, key=pts == 5) for pts in stamps]
    log.lose(arrivals[4], "bad")
    log.take(arrivals[0])
    assert list(log.gaps_before(arrivals[2])) == [
        ("frame is missing after a damaged one", arrivals[1].captured_ns)
    ]


@pytest.mark.parametrize("stamps", [[5, 7, 6], [5, None, 7]])
def test_the_log_knows_how_many_packets_and_how_far(stamps: list[int | None]) -> None:
    log = PacketLog(intra_only=False)
    for pts in stamps:
        arrive(log, pts)
    assert (log.count, log.first_pts, log.end_pts) == (3, 5, 8)


def test_without_display_times_gaps_come_in_the_order_of_their_packets() -> None:
    log = PacketLog(intra_only=False, timed=False)
    first, bad, last = (arrive(log, 9 - number, key=number == 0) for number in range(3))
    log.lose(bad, "bad")
    assert list(log.gaps_before(first)) == []
    assert list(log.gaps_before(last)) == [("bad", bad.captured_ns)]
