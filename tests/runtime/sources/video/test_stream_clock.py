from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from motorvae.runtime.sources.pauses import Pause
from motorvae.runtime.sources.video.stream_clock import (
    NS_PER_MS,
    NS_PER_S,
    SURE_NS,
    StreamClock,
)

HOUR_NS = 3600 * NS_PER_S
PERIOD_NS = 40 * NS_PER_MS


def clock_of(*, own_stamps: bool = False, held_back: bool = False) -> StreamClock:
    return StreamClock(HOUR_NS, own_stamps=own_stamps, held_back=held_back)


def test_what_was_read_while_the_stream_was_looked_at_is_as_old_as_the_connection() -> None:
    clock = clock_of()
    now_ns = HOUR_NS + NS_PER_S
    for _ in range(20):
        assert clock.came_ns(now_ns, now_ns + NS_PER_MS, None) == HOUR_NS
        now_ns += 2 * NS_PER_MS
    came_ns = now_ns + SURE_NS
    assert clock.came_ns(now_ns, came_ns, None) == came_ns
    for _ in range(3):  # the reader was away, and finds more than one
        assert clock.came_ns(came_ns + 5 * NS_PER_S, came_ns + 5 * NS_PER_S + 1, None) == came_ns


def test_a_reader_that_never_has_to_wait_never_makes_a_frame_younger() -> None:
    """It is too slow, or the server too fast: what lies there may be old however long it goes."""
    clock, now_ns, came = clock_of(), HOUR_NS + NS_PER_S, []
    for _ in range(20_000):
        came.append(clock.came_ns(now_ns, now_ns + NS_PER_MS, None))
        now_ns += NS_PER_MS
    assert came == [HOUR_NS] * 20_000
    assert clock.came_ns(now_ns, now_ns + PERIOD_NS, None) == HOUR_NS  # the scheduler's, maybe
    now_ns += 2 * PERIOD_NS
    assert clock.came_ns(now_ns - PERIOD_NS, now_ns, None) == now_ns


def test_a_reader_that_computes_or_is_preempted_once_has_not_read_all() -> None:
    """The first frame after a pause of 1.5 s took 7 ms to hand over, and lay there all the time."""
    clock = clock_of()
    now_ns = HOUR_NS + 1500 * NS_PER_MS
    assert clock.came_ns(now_ns, now_ns + SURE_NS, None, SURE_NS - NS_PER_MS) == HOUR_NS
    for waited_ns in (7 * NS_PER_MS, 0, 7 * NS_PER_MS, 0):
        assert clock.came_ns(now_ns, now_ns + waited_ns, None) == HOUR_NS
        now_ns += waited_ns


def test_a_reader_that_was_away_for_less_than_a_moment_is_believed_at_once() -> None:
    clock = clock_of()
    now_ns = HOUR_NS + NS_PER_S
    for _ in range(2):
        came_ns = clock.came_ns(now_ns, now_ns + PERIOD_NS, None)
        now_ns += PERIOD_NS
    assert came_ns == now_ns
    assert clock.came_ns(now_ns + PERIOD_NS, now_ns + PERIOD_NS, None) == came_ns
    asked_ns = now_ns + PERIOD_NS
    assert clock.came_ns(asked_ns, asked_ns + PERIOD_NS, None) == asked_ns + PERIOD_NS


def test_a_cameras_own_stamps_are_relied_on_after_a_second_without_a_wait() -> None:
    clock, now_ns, came = clock_of(own_stamps=True), HOUR_NS + NS_PER_S, []
    for index in range(2000):
        came.append(clock.came_ns(now_ns, now_ns + NS_PER_MS, index / 1000))
        now_ns += NS_PER_MS
    assert came[:1000] == [HOUR_NS] * 1000
    assert came[1001] > HOUR_NS + 2 * NS_PER_S


def test_a_packet_that_is_held_back_came_when_the_one_before_it_was_handed_over() -> None:
    clock, now_ns, came = clock_of(held_back=True), HOUR_NS + NS_PER_S, []
    handed = []
    for _ in range(5):
        handed.append(now_ns + PERIOD_NS)
        came.append(clock.came_ns(now_ns, now_ns + PERIOD_NS, None))
        now_ns += PERIOD_NS
    assert came == [HOUR_NS, *handed[:-1]]


@given(
    st.lists(st.integers(0, 3000), min_size=5, max_size=200),
    st.integers(-1000, 1000),
    st.booleans(),
)
def test_a_backlog_shows_as_age(delays_ms: list[int], offset_s: int, held_back: bool) -> None:
    """Each frame waits somewhere for a while, and none can overtake another."""
    clock = clock_of(own_stamps=True, held_back=held_back)
    handed_ns = HOUR_NS + NS_PER_S
    clock.came_ns(handed_ns, handed_ns + PERIOD_NS, None)
    handed_ns += PERIOD_NS
    for number, delay_ms in enumerate([0, *delays_ms]):
        taken_ns = HOUR_NS + 2 * NS_PER_S + number * PERIOD_NS
        asked_ns, handed_ns = handed_ns, max(handed_ns, taken_ns + delay_ms * NS_PER_MS)
        came_ns = clock.came_ns(asked_ns, handed_ns, offset_s + number * PERIOD_NS / NS_PER_S)
        assert came_ns <= handed_ns
        if not held_back:  # the first had no delay, so the true time is known
            assert abs(came_ns - taken_ns) <= 1e-4 * (handed_ns - HOUR_NS)


def test_a_backlog_is_not_forgotten_while_the_clocks_drift() -> None:
    """The camera's clock is slow by 50 ppm, and from the first minute on it is 3 s behind."""
    clock = clock_of(own_stamps=True)
    for second in range(1800):
        taken_ns = HOUR_NS + second * NS_PER_S
        handed_ns = taken_ns + (3 * NS_PER_S if second > 60 else 0)
        came_ns = clock.came_ns(handed_ns - PERIOD_NS, handed_ns, second * (1 - 50e-6))
        error_ms = (came_ns - taken_ns) / NS_PER_MS
        assert abs(error_ms) < 200


def test_a_restarted_camera_counts_from_anew() -> None:
    clock = clock_of(own_stamps=True)
    for stamp_s in (5000.0, 5000.04, 0.0, 0.04):
        now_ns = HOUR_NS + round(stamp_s * NS_PER_S) % (60 * NS_PER_S)
        assert clock.came_ns(now_ns - SURE_NS, now_ns, stamp_s) == now_ns


def test_stamps_that_are_made_up_say_nothing_of_age() -> None:
    clock = clock_of(own_stamps=False)
    for now_ns, stamp_s in ((HOUR_NS, 0.0), (HOUR_NS + 9 * NS_PER_S, 0.04)):
        assert clock.came_ns(now_ns - PERIOD_NS, now_ns, stamp_s) == now_ns


def read_in_pace(clock: StreamClock, now_ns: int, frames: int = 20) -> int:
    """Read a live stream that is waited for; return when its last packet came."""
    for _ in range(frames):
        clock.came_ns(now_ns, now_ns + PERIOD_NS, None)
        now_ns += PERIOD_NS
    return now_ns


def test_what_came_while_the_process_stood_still_is_as_old_as_the_pause() -> None:
    """It was stopped while it waited; what lies there then is handed over at once."""
    clock = clock_of()
    asked_ns = read_in_pace(clock, HOUR_NS)
    stopped_ns = asked_ns + 10 * NS_PER_MS
    now_ns = stopped_ns + 3 * NS_PER_S
    pause = Pause(stopped_ns, now_ns)
    assert clock.came_ns(asked_ns, now_ns, None, 0, pause) == stopped_ns
    for _ in range(75):
        assert clock.came_ns(now_ns, now_ns + NS_PER_MS, None) == stopped_ns
        now_ns += NS_PER_MS
    assert clock.came_ns(now_ns, now_ns + PERIOD_NS, None) == stopped_ns  # one wait proves little
    now_ns += PERIOD_NS
    assert clock.came_ns(now_ns, now_ns + PERIOD_NS, None) == now_ns + PERIOD_NS


def test_a_pause_that_began_with_the_wait_shows_nothing_of_what_lay_there() -> None:
    clock = clock_of()
    asked_ns = read_in_pace(clock, HOUR_NS)
    now_ns = asked_ns + 3 * NS_PER_S
    assert clock.came_ns(asked_ns, now_ns, None, 0, Pause(asked_ns, now_ns)) == asked_ns


def test_a_wait_that_goes_on_after_the_pause_counts() -> None:
    clock = clock_of()
    asked_ns = read_in_pace(clock, HOUR_NS)
    pause = Pause(asked_ns + 10 * NS_PER_MS, asked_ns + NS_PER_S)
    now_ns = pause.end_ns + SURE_NS
    assert clock.came_ns(asked_ns, now_ns, None, 0, pause) == now_ns


def test_what_a_slow_link_hands_over_faster_than_usual_is_old() -> None:
    """A backlog at the camera's end comes with a wait for every frame."""
    clock = clock_of()
    asked_ns = read_in_pace(clock, HOUR_NS)
    pause = Pause(asked_ns + 10 * NS_PER_MS, asked_ns + 3 * NS_PER_S)
    now_ns = pause.end_ns
    assert clock.came_ns(asked_ns, now_ns, None, 0, pause) == pause.start_ns
    for _ in range(100):
        assert clock.came_ns(now_ns, now_ns + PERIOD_NS // 4, None) == pause.start_ns
        now_ns += PERIOD_NS // 4
    assert read_in_pace(clock, now_ns, 2) == now_ns + 2 * PERIOD_NS
    assert clock.came_ns(now_ns, now_ns + PERIOD_NS, None) == now_ns + PERIOD_NS


def test_a_camera_that_restarted_during_a_pause_is_not_new() -> None:
    clock = clock_of(own_stamps=True)
    now_ns = HOUR_NS + SURE_NS
    for frame in range(20):
        clock.came_ns(now_ns, now_ns + PERIOD_NS, 100 + frame * 0.04)
        now_ns += PERIOD_NS
    pause = Pause(now_ns, now_ns + 3 * NS_PER_S)
    for frame in range(10):
        asked_ns = now_ns if frame == 0 else pause.end_ns
        found = clock.came_ns(asked_ns, pause.end_ns, frame * 0.04, 0, pause if not frame else None)
        assert found == pause.start_ns
