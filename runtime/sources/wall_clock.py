"""WallClock: Unix time of moments on the monotonic clock, for the rows of one stream."""

from __future__ import annotations

import time
from collections.abc import Callable

SET_BACK_NS = 10_000_000
"""A wall clock that falls behind the monotonic one by more at once was set, not just adjusted."""
_CLOSE_NS = 100_000
_TRIES = 4


class WallClock:
    """Unix time that never goes back in a stream, unless the clock itself was set back.

    The two clocks cannot be read at the same moment, so that frames which came together would not
    always keep their order; where the wall clock was set, also for a second only, what is returned
    follows it at once. `wall_ns` and `monotonic_ns` read the clocks.
    """

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns, self._monotonic_ns = wall_ns, monotonic_ns
        self._offset_ns, self._latest_ns = self._read(), 0

    def at(self, monotonic_ns: int) -> int:
        """Return the Unix time of a moment on the monotonic clock."""
        self._look()
        return self._ordered(monotonic_ns + self._offset_ns)

    def ordered(self, unix_ns: int) -> int:
        """Return a Unix time, or the latest one that was returned if that is later."""
        self._look()
        return self._ordered(unix_ns)

    def _look(self) -> None:
        offset_ns = self._read()
        if offset_ns < self._offset_ns - SET_BACK_NS:
            self._latest_ns = 0
        self._offset_ns = offset_ns

    def _ordered(self, unix_ns: int) -> int:
        self._latest_ns = max(self._latest_ns, unix_ns)
        return self._latest_ns

    def _read(self) -> int:
        """Return how far the wall clock is ahead; the process may be stopped between two reads."""
        best: tuple[int, int] | None = None
        for _ in range(_TRIES):
            before_ns, wall_ns, after_ns = (
                self._monotonic_ns(),
                self._wall_ns(),
                self._monotonic_ns(),
            )
            found = (after_ns - before_ns, wall_ns - after_ns)
            best = found if best is None else min(best, found)
            if best[0] <= _CLOSE_NS:
                break
        assert best is not None  # noqa: S101  # for the type checker
        return best[1]
