"""The readings that a process of its own takes beside a measurement, by the monotonic clock."""

from __future__ import annotations

import bisect
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import orjson

from ...runtime.core.errors import MeasurementError
from ...runtime.core.lifecycle import Closing
from ...runtime.core.system.children import python_module
from ..measure.energy import Conditions, Span, WatchFacts, span_of
from .base import ROOT
from .conditions import Reading

CONDITIONS_S, POWER_S = 0.5, 0.05
"""Between two readings of temperatures and clocks, and of power where rails show it."""
BELOW_BASE = 0.95
"""A processor under load whose fastest core never has this share of its base clock is throttled:
whatever the driver calls it, the processor is sold with that clock under all loads."""
_PATIENCE_S = 20.0
_Spans = Sequence[tuple[int, int]]


class Watcher(Closing):
    """Reads sensors until it is closed.

    Args:
        root: Where sysfs begins.
        has_power: Whether a rail shows power, which is read more often.
    """

    def __init__(self, root: Path = ROOT, *, has_power: bool = False) -> None:
        self.interval_s = POWER_S if has_power else CONDITIONS_S
        each = round(CONDITIONS_S / self.interval_s)
        self._readings: list[Reading] = []
        self._whole: list[Reading] = []  # Those of everything
        self._cost: dict[str, int] | None = None
        self._rest = b""
        # A pipe that nobody reads during a measurement would fill up.
        self._file = tempfile.NamedTemporaryFile(prefix="motorvae-sensors-")  # noqa: SIM115  # closed below
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115  # as above
        module = "motorvae.benchmarks.sensors.child"
        self._process = subprocess.Popen(
            python_module(module, str(root), str(self.interval_s), str(each)),
            stdin=subprocess.PIPE,
            stdout=self._file,
            stderr=self._messages,
        )
        self._reader = Path(self._file.name).open("rb")  # noqa: SIM115  # as above

    def close(self) -> None:
        """End the process, whose cost is known from then on."""
        if self._reader.closed:
            return
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._take()
        for file in (self._reader, self._file, self._messages):
            file.close()

    def wait_for(self, at_ns: int, *, whole: bool = False) -> None:
        """Wait until something was read at that time or later, or everything.

        A MeasurementError with its last words where the process has ended.
        """
        give_up_s = time.monotonic() + _PATIENCE_S
        self._take()
        readings = self._whole if whole else self._readings
        while not readings or readings[-1].at_ns < at_ns:
            if self._process.poll() is not None or time.monotonic() > give_up_s:
                self._messages.seek(0)
                lines = self._messages.read().decode(errors="replace").strip().splitlines()
                said = lines[-1] if lines else "nothing"
                raise MeasurementError(
                    f"the process that reads sensors has stopped: it said {said!r}; run it again, "
                    "and report this if it stays"
                )
            time.sleep(self.interval_s / 4)
            self._take()

    def microjoules(self, rail: str, begin_ns: int, end_ns: int) -> int | None:
        """Integrate a rail's power between two times by trapezoids; None where it has no reading.

        Between two readings power is taken to be linear.
        """
        self.wait_for(end_ns)
        known = [(one.at_ns, one.power_uw[rail]) for one in self._readings if rail in one.power_uw]
        if len(known) < 2 or known[0][0] > begin_ns or known[-1][0] < end_ns:
            return None
        times, power = np.asarray(known, np.float64).T
        inner = (times > begin_ns) & (times < end_ns)
        at = np.concatenate(([begin_ns], times[inner], [end_ns]))
        values = np.interp(at, times, power)
        return round(float(np.sum((values[1:] + values[:-1]) / 2 * np.diff(at))) / 1e9)

    def conditions(self, spans: _Spans) -> Conditions | None:
        """Summarize what was read in some spans of time, each of them begin and end.

        A span between two readings has the nearest ones. None without any reading.
        """
        self.wait_for(max(end for _, end in spans), whole=True)
        whole = self._whole
        times = [one.at_ns for one in whole]
        chosen: set[int] = set()
        gaps: set[int] = set()  # between a reading and the next one
        for begin, end in spans:
            # From the last reading before it up to the first one after it.
            first = max(0, bisect.bisect_right(times, begin) - 1)
            last = min(len(times) - 1, bisect.bisect_left(times, end))
            inside = range(bisect.bisect_left(times, begin), bisect.bisect_right(times, end))
            chosen.update(inside or range(first, last + 1))
            gaps.update(range(first, last))
        causes: dict[str, int] = {}
        for gap in sorted(gaps):
            before, after = whole[gap].counters, whole[gap + 1].counters
            for name, count in after.items():
                causes[name] = causes.get(name, 0) + count - before.get(name, count)
        taken = [whole[place] for place in sorted(chosen)]
        if not taken:
            return None
        shares = [one.base_share for one in taken if one.base_share is not None]
        throttled = list(dict.fromkeys(cause for one in taken for cause in one.throttled))
        throttled += [f"{name} +{count}" for name, count in causes.items() if count > 0]
        if shares and max(shares) < BELOW_BASE:
            throttled.append(f"no core above {max(shares):.0%} of its base clock")
        return Conditions(
            samples=len(taken),
            temperatures_c=_spans(one.temperatures_c for one in taken),
            clocks_mhz=_spans(one.clocks_mhz for one in taken),
            throttled=tuple(throttled),
        )

    @property
    def facts(self) -> WatchFacts | None:
        """What the readings cost; known once it is closed."""
        took = [one.took_ns for one in self._whole]
        if self._cost is None or not took:
            return None
        return WatchFacts(
            interval_s=CONDITIONS_S,
            samples=len(self._whole),
            processor_share=self._cost["processor_ns"] / max(1, self._cost["ran_ns"]),
            reading_ms=float(np.median(took)) / 1e6,
        )

    def _take(self) -> None:
        *lines, self._rest = (self._rest + self._reader.read()).split(b"\n")
        for line in lines:
            content = orjson.loads(line)
            if "ran_ns" in content:
                self._cost = content
            else:
                reading = Reading.model_validate(content)
                self._readings.append(reading)
                if reading.took_ns:
                    self._whole.append(reading)


def _spans(readings: Iterable[dict[str, float]]) -> dict[str, Span]:
    by_name: dict[str, list[float]] = {}
    for reading in readings:
        for name, value in reading.items():
            by_name.setdefault(name, []).append(value)
    return {name: span_of(values) for name, values in by_name.items()}
