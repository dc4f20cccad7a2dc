"""StreamClock: when the packets of a live stream really came; a backlog makes them older."""

from __future__ import annotations

from ..pauses import Pause

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
WAITED_NS = 3 * NS_PER_MS
"""Who waits so long for a packet has probably read all that lay there before it."""
SURE_NS = NS_PER_S
"""Who waits so long certainly has, even on a busy machine."""
AWAY_NS = 100 * NS_PER_MS
"""What may be older than this is believed to be new after two waits in a row, or a sure one."""
LONGEST_CATCHING_UP_NS = 10 * NS_PER_S
"""For so long a wait must be half as long as is usual between two packets to count as one."""
_PACE_FRAMES = 8
LONGEST_RUN_NS = NS_PER_S
"""After so long the camera's own stamps are relied on, although the reader never had to wait."""
DRIFT = 100e-6  # of two crystals at worst, each within 50 parts per million
RESTART_S = 1.0  # stamps that go back further than reordered frames do: the camera was restarted


class StreamClock:
    """Finds out when the packets of a live stream came; older than true at worst, never younger.

    What FFmpeg reads while it finds out what a stream holds is handed over afterwards, at once, and
    so is what came while nobody read. It came after the moment at which nothing lay there, and
    that is all that is known: until the reader has to wait for a packet, this is the time that
    packets get. At first it is the one before the connection was opened.

    Where time stamps are the camera's own, more is known: a packet that is behind them by more
    than the least seen so far waited on its way, in the network, or for a reader that is too slow.
    The least may rise slowly, for clocks drift apart, but it is not forgotten: a backlog stays old.

    A wait in which the process itself stood still shows that nothing lay there before that, and
    nothing of what came since: it ends for what came first, however much lies behind it. So it is
    taken apart, and only what was waited for after the pause counts for what comes then.

    All times but time stamps are monotonic, in ns; `opened_ns` is from before the connection was
    opened. With `own_stamps` the stream's time stamps are the camera's, not made up by FFmpeg; a
    packet that is `held_back` is handed over when the next one begins to come, which ends it.
    """

    def __init__(self, opened_ns: int, *, own_stamps: bool, held_back: bool) -> None:
        self._own_stamps, self._held_back = own_stamps, held_back
        self._empty_ns = opened_ns
        self._last_ns: int | None = None
        self._lying_since_ns: int | None = None
        self._waits = self._pace_ns = 0
        self._joined = False
        self._least_ns: float | None = None
        self._least_at_ns = 0
        self._stamp_s = 0.0

    def came_ns(
        self,
        asked_ns: int,
        now_ns: int,
        stamp_s: float | None,
        busy_ns: int = 0,
        pause: Pause | None = None,
    ) -> int:
        """Return when a packet came for which the reader waited from `asked_ns` to `now_ns`.

        `stamp_s` is the packet's time stamp; `busy_ns`, the reader's processor time in between, is
        no waiting; `pause` is when the process stood still in between, if it did.
        """
        last_ns = asked_ns if self._last_ns is None else self._last_ns
        self._last_ns = now_ns
        if self._lying_since_ns is None and pause is None:
            self._pace_ns += (now_ns - last_ns - self._pace_ns) // _PACE_FRAMES
        if pause is not None:
            if self._has_read_all(asked_ns, pause.start_ns - asked_ns - busy_ns):
                self._empty_ns = max(self._empty_ns, pause.start_ns)
            self._waits, asked_ns = 0, max(asked_ns, pause.end_ns)
        if self._has_read_all(asked_ns, now_ns - asked_ns - busy_ns):
            self._lying_since_ns = None
        elif self._lying_since_ns is None:
            self._lying_since_ns = asked_ns
        if stamp_s is not None and stamp_s < self._stamp_s - RESTART_S:
            # What was learned of the stamps holds no more, and what lies there teaches nothing.
            self._joined, self._least_ns = False, None
            if self._lying_since_ns is not None:
                self._lying_since_ns = asked_ns
        if self._lying_since_ns is not None:
            # The camera's own stamps may show more than that a packet lay there.
            joined = self._joined or now_ns - self._lying_since_ns > LONGEST_RUN_NS
            if not (self._own_stamps and joined and stamp_s is not None):
                self._lag_ns(now_ns, stamp_s)
                return self._empty_ns
        self._joined = True
        self._empty_ns = now_ns
        came_ns = last_ns if self._held_back else now_ns
        return came_ns - self._lag_ns(came_ns, stamp_s)

    def _has_read_all(self, asked_ns: int, waited_ns: int) -> bool:
        """Whether nothing lay there; one short wait may be the scheduler's, so it proves little."""
        # What lies at the far end of a slow link comes with waits between, yet faster than usual.
        since_ns = self._lying_since_ns
        catching_up = since_ns is not None and asked_ns - since_ns < LONGEST_CATCHING_UP_NS
        least_ns = max(WAITED_NS, min(self._pace_ns, SURE_NS) // 2) if catching_up else WAITED_NS
        self._waits = self._waits + 1 if waited_ns >= least_ns else 0
        if asked_ns - self._empty_ns < AWAY_NS:
            return self._waits > 0
        return self._waits > 1 or waited_ns >= SURE_NS

    def _lag_ns(self, came_ns: int, stamp_s: float | None) -> int:
        if stamp_s is None or not self._own_stamps:
            return 0
        behind_ns = came_ns - stamp_s * NS_PER_S
        if self._least_ns is None:
            self._least_ns = behind_ns
        else:
            drifted_ns = DRIFT * max(0, came_ns - self._least_at_ns)
            self._least_ns = min(behind_ns, self._least_ns + drifted_ns)
        self._least_at_ns, self._stamp_s = came_ns, stamp_s
        return max(0, round(behind_ns - self._least_ns))
