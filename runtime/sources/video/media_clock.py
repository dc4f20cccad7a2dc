"""MediaClock: where in its recording each frame belongs."""

from __future__ import annotations

from fractions import Fraction

_DEFAULT_STEP_S = 1 / 25  # FFmpeg's own, of streams that say nothing about their rate
_LONGEST_PAUSE_S = 10.0  # FFmpeg's own too: in formats that are cut freely, more is a cut


class MediaClock:
    """Gives every frame its position, 0 at the first; positions never go back.

    A frame has a presentation time stamp, which its packet had, and a decoding time stamp, that of
    the packet after which it came out. The first is right unless it is not there (AVI), or goes
    back more often than the second does. Without either, frames follow at the stream's rate.

    Where stamps go back, recordings were put one behind the other, or a counter began anew; where
    they leap ahead in a format that is cut freely (`spliced`), something was cut out. Then
    time goes on one frame later.
    """

    def __init__(self, base: Fraction | None, rate: Fraction | None, *, spliced: bool) -> None:
        self._base = float(base or 0)
        self._step_s = float(1 / rate) if rate else _DEFAULT_STEP_S
        self._spliced = spliced
        self._last = {"pts": -(2**63), "dts": -(2**63)}
        self._faults = {"pts": 0, "dts": 0}
        self._shift_s = 0.0
        self._at_s: float | None = None

    def position_s(self, pts: int | None, dts: int | None, begin_pts: int | None) -> float:
        """Return the position of the next frame in display order, in seconds.

        `begin_pts` is where the recording begins; it counts for the first frame only, which may
        come later where one before it is lost.
        """
        for name, stamp, other in (("pts", pts, dts), ("dts", dts, pts)):
            if stamp is not None:
                self._faults[name] += stamp <= self._last[name]
                self._last[name] = stamp
            elif other is not None:
                self._last[name] = other
        trusted = dts is None or self._faults["pts"] <= self._faults["dts"]
        stamp = pts if pts is not None and trusted else dts
        if self._at_s is None:
            begin = stamp if pts is None or not trusted or begin_pts is None else begin_pts
            self._shift_s = -(begin or 0) * self._base
            self._at_s = max(0.0, (stamp or 0) * self._base + self._shift_s)
            return self._at_s
        next_s = self._at_s + self._step_s
        at_s = next_s if stamp is None else stamp * self._base + self._shift_s
        # A stamp may be rounded, or doubtful, by less than a frame or two.
        if at_s < self._at_s - 2 * self._step_s or (
            self._spliced and at_s > self._at_s + _LONGEST_PAUSE_S
        ):
            self._shift_s += next_s - at_s
            at_s = next_s
        self._at_s = max(at_s, self._at_s)
        return self._at_s
