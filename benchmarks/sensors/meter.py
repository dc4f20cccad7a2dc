"""Energy, temperatures and clocks of cases: what `timed_cases` asks while it measures."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from pathlib import Path

from ...runtime.core.errors import MeasurementError
from ...runtime.core.lifecycle import Closing
from ..measure.case import Case
from ..measure.energy import (
    LEAST_UPDATES,
    WINDOWS,
    Conditions,
    Energy,
    EnergyFacts,
    SensorFacts,
    WatchFacts,
    Window,
)
from ..measure.rounds import Laps, TimedCase, wait_until_quiet
from .base import ROOT, Rhythm, Sensor, reading_or_none, rhythm_of
from .conditions import ConditionFiles
from .find import Found, has_driver
from .watcher import POWER_S, Watcher

_POLL_S = 2.0
_Readings = dict[str, int]


class Meter(Closing):
    """Watches conditions and, where it was asked for, energy; closed after the last case.

    Args:
        sensors: Sensors of energy and why others are not there; None where it is not asked for.
        window_s: How long one window of a case lasts at least.
        idle_s: How long the idle power is measured, now.
        root: Where sysfs begins.
    """

    def __init__(
        self, sensors: Found | None, *, window_s: float, idle_s: float, root: Path = ROOT
    ) -> None:
        self._is_asked = sensors is not None
        self._sensors, self._absent = sensors or Found([], [])
        self._window_s = window_s
        self._watcher: Watcher | None = None
        has_power = any(sensor.reads == "power" for sensor in self._sensors)
        if has_power or ConditionFiles(root) or has_driver():
            self._watcher = Watcher(root, has_power=has_power)
        self._rhythms: dict[str, Rhythm] = {}
        self._idle: dict[str, float | None] = {}
        self._idle_s = idle_s
        self._lost: str | None = None  # Why nothing is watched any more
        if self._sensors:
            try:
                if self._watcher is not None:  # it takes a moment to start
                    self._watcher.wait_for(time.monotonic_ns())
                self._measure_idle()
                for sensor in self._sensors:
                    self._rhythms[sensor.name] = rhythm_of(sensor, most_s=_POLL_S)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """End the process that reads sensors."""
        if self._watcher is not None:
            self._watcher.close()

    @property
    def facts(self) -> EnergyFacts | None:
        """The sensors, and why others are not there; None where energy was not asked for."""
        if not self._is_asked:
            return None
        return EnergyFacts(
            sensors=tuple(self._facts_of(sensor) for sensor in self._sensors),
            absent=tuple(one.words for one in self._absent),
            windows=WINDOWS,
            window_s=self._window_s,
        )

    @property
    def watched(self) -> WatchFacts | None:
        """What the process that reads sensors did; known once it is closed."""
        return self._watcher.facts if self._watcher is not None else None

    def measured(self, timed: Sequence[TimedCase]) -> list[Case]:
        """Return cases with conditions, and with energy by windows that are taken in turns."""
        windows: list[list[tuple[int, int, int, _Readings]]] = [[] for _ in timed]
        if self._sensors:
            for _ in range(WINDOWS):  # in turns, so that drift shows and hits all alike
                for place, one in enumerate(timed):
                    windows[place].append(self._window(one.lap))
        found = []
        for one, taken in zip(timed, windows, strict=True):
            energy = tuple(self._energy(one.case, sensor, taken) for sensor in self._sensors)
            spans = [*one.spans, *((begin, end) for begin, end, _, _ in taken)]
            conditions = self._conditions(spans)
            warnings = one.case.warnings
            if self._lost is not None:
                warnings += (f"temperatures, clocks and throttling are not known: {self._lost}",)
            if conditions is not None and conditions.throttled:
                warnings += (f"throttled: {', '.join(conditions.throttled)}",)
            found.append(
                one.case.with_facts(energy=energy, conditions=conditions, warnings=warnings)
            )
        return found

    def _conditions(self, spans: Sequence[tuple[int, int]]) -> Conditions | None:
        if self._watcher is None or self._lost is not None or not spans:
            return None
        try:
            return self._watcher.conditions(spans)
        except MeasurementError as error:  # what was timed is worth as much without them
            self._lost = str(error)
            return None

    def _microjoules_of_power(self, sensor: Sensor, begin_ns: int, end_ns: int) -> int | None:
        if self._watcher is None or self._lost is not None:
            return None
        try:
            return self._watcher.microjoules(sensor.name, begin_ns, end_ns)
        except MeasurementError as error:
            self._lost = str(error)
            return None

    def _measure_idle(self) -> None:
        wait_until_quiet()
        before = self._counters()
        begin_ns = time.monotonic_ns()
        time.sleep(self._idle_s)
        after, end_ns = self._counters(), time.monotonic_ns()
        for sensor in self._sensors:
            joules = self._microjoules(sensor, begin_ns, end_ns, before, after)
            seconds = (end_ns - begin_ns) / 1e9
            if joules is not None and joules < 0:  # a driver may begin its counter anew
                joules = None
            self._idle[sensor.name] = None if joules is None else joules / 1e6 / seconds

    def _window(self, lap: Laps) -> tuple[int, int, int, _Readings]:
        """Run a case for some time; return begin, end, calls, and the microjoules of counters."""
        gc.collect()
        wait_until_quiet()
        lap()  # the first one finds cold caches
        calls = 0
        before = self._counters()
        begin_ns = end_ns = time.monotonic_ns()
        while end_ns - begin_ns < self._window_s * 1e9:
            lap()
            calls += 1
            end_ns = time.monotonic_ns()
        after = self._counters()
        counted = {
            sensor.name: sensor.counted(before[sensor.name], after[sensor.name])
            for sensor in self._sensors
            if sensor.name in before and sensor.name in after
        }
        return begin_ns, end_ns, calls, counted

    def _counters(self) -> _Readings:
        counters = [one for one in self._sensors if one.reads == "energy counter"]
        found = {sensor.name: reading_or_none(sensor) for sensor in counters}
        return {name: value for name, value in found.items() if value is not None}

    def _microjoules(
        self, sensor: Sensor, begin_ns: int, end_ns: int, before: _Readings, after: _Readings
    ) -> int | None:
        if sensor.reads == "power":
            return self._microjoules_of_power(sensor, begin_ns, end_ns)
        if sensor.name not in before or sensor.name not in after:
            return None
        return sensor.counted(before[sensor.name], after[sensor.name])

    def _energy(
        self, case: Case, sensor: Sensor, taken: Sequence[tuple[int, int, int, _Readings]]
    ) -> Energy:
        def without(reason: str) -> Energy:
            return Energy(sensor=sensor.name, not_measured=reason)

        rhythm = self._rhythms[sensor.name]
        if rhythm.update_ms is None:
            return without(f"its value did not change while it was polled for {_POLL_S:g} s")
        update_ms = _update_ms(sensor, rhythm.update_ms)
        shortest_ms = min(end - begin for begin, end, _, _ in taken) / 1e6
        if shortest_ms < LEAST_UPDATES * update_ms:
            return without(
                f"a window of {shortest_ms:.0f} ms has fewer than {LEAST_UPDATES} of its updates, "
                f"one each {update_ms:.3g} ms: take more --energy-seconds"
            )
        windows = []
        for begin, end, calls, counted in taken:
            joules = counted.get(sensor.name)
            if sensor.reads == "power":
                joules = self._microjoules_of_power(sensor, begin, end)
            if joules is None or joules < 0:
                lost = f": {self._lost}" if self._lost and sensor.reads == "power" else ""
                return without(f"it could not be read in one of the windows{lost}")
            windows.append(
                Window(duration_ns=end - begin, latents=calls * case.batch, microjoules=joules)
            )
        if not any(window.microjoules for window in windows):
            return without("its value did not change in any window")
        return Energy(sensor=sensor.name, windows=tuple(windows))

    def _facts_of(self, sensor: Sensor) -> SensorFacts:
        rhythm = self._rhythms[sensor.name]
        # Of a counter that stands still there is no power, rather than none; and of one that
        # changed a few times only, none that could stand beside the windows'.
        is_known = (
            rhythm.update_ms is not None
            and self._idle_s * 1e3 >= LEAST_UPDATES * _update_ms(sensor, rhythm.update_ms)
        )
        return SensorFacts(
            name=sensor.name,
            source=sensor.source,
            scope=sensor.scope,
            covers=sensor.covers,
            reads=sensor.reads,
            update_ms=rhythm.update_ms,
            changes=rhythm.changes,
            idle_w=self._idle[sensor.name] if is_known else None,
            idle_s=self._idle_s,
        )


def _update_ms(sensor: Sensor, changes_every_ms: float) -> float:
    """Return the time between two values that count: power is read only so often."""
    return max(changes_every_ms, POWER_S * 1e3 if sensor.reads == "power" else 0)
