"""The process that reads sensors while something else is measured; run by `watcher`.

A process and not a thread: a thread would hold the interpreter's lock within what is timed. It
writes one line of JSON for each reading, and ends when its standard input does, with its cost.
"""

from __future__ import annotations

import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from ...runtime.core.errors import MissingDependencyError
from .base import Sensor, reading_or_none
from .conditions import GPU, PROCESSOR, ConditionFiles, Reading
from .find import nvml_reading
from .ina import ina_sensors

if TYPE_CHECKING:
    from .nvml import NvmlReading


class Watch:
    """Reads power often, and temperatures, clocks and throttling from time to time."""

    def __init__(self, root: Path) -> None:
        self._files = ConditionFiles(root)
        self._power = {
            one.name: one
            for one in ina_sensors(root)
            if isinstance(one, Sensor) and one.reads == "power"
        }
        self._gpus: NvmlReading | None = None
        try:
            self._gpus = nvml_reading()
        except MissingDependencyError:  # the extra is not installed
            self._gpus = None

    def power(self) -> dict[str, int]:
        """Return microwatts by rail; what cannot be read now is left out."""
        found = {name: reading_or_none(sensor) for name, sensor in self._power.items()}
        return {name: value for name, value in found.items() if value is not None}

    def reading(self, *, whole: bool) -> Reading:
        """Read power, and everything else as well where that is due."""
        at_ns = time.monotonic_ns()
        power = self.power()
        if not whole:
            return Reading(at_ns=at_ns, power_uw=power)
        temperatures, throttled = self._files.temperatures(), self._files.throttling()
        fastest, share = self._files.clock()
        clocks = {} if fastest is None else {PROCESSOR: fastest}
        if (gpu := self._files.gpu_clock()) is not None:
            clocks[GPU] = gpu
        if self._gpus:
            degrees, megahertz, slowed = self._gpus.read()
            temperatures |= degrees
            clocks |= megahertz
            throttled += slowed
        return Reading(
            at_ns=at_ns,
            took_ns=time.monotonic_ns() - at_ns,
            temperatures_c=temperatures,
            clocks_mhz=clocks,
            base_share=share,
            throttled=throttled,
            counters=self._files.counters(),
            power_uw=power,
        )


def main(root: str, interval_s: str, each: str) -> None:
    """Read every so many seconds, and each so many times everything, until nobody listens."""
    watch, began_ns, turn = Watch(Path(root)), time.monotonic_ns(), 0
    write = sys.stdout.buffer
    while True:
        reading = watch.reading(whole=turn % int(each) == 0)
        write.write(orjson.dumps(reading.model_dump(exclude_defaults=True)) + b"\n")
        write.flush()
        turn += 1
        left_s = began_ns / 1e9 + turn * float(interval_s) - time.monotonic()
        if select.select([sys.stdin], [], [], max(left_s, 0.001))[0]:
            break
    cost = {"processor_ns": time.process_time_ns(), "ran_ns": time.monotonic_ns() - began_ns}
    write.write(orjson.dumps(cost) + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
