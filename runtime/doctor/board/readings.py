"""What is a temperature, a cooling device that costs speed and a Jetson's GPU, by their files.

One definition for the doctor and for what the benchmarks watch. Names of cooling devices by Linux'
drivers/thermal: cpufreq-cpu0 and devfreq-17000000.gpu lower clocks and idle-cpu0 inserts idle time
(thermal-cpufreq-0, thermal-devfreq-0 and thermal-idle-0 in older kernels), Processor is ACPI's;
those of Jetsons are gpu-throttle-alert and kin (swsususu/ThorFAN: 1 while a Thor was throttled).
Names of the GPU's folder in devfreq: 17000000.gpu (Orin), 17000000.ga10b (Orin, JetPack 5),
17000000.gv11b (Xavier), 57000000.gpu (Nano), gpu-gpc-0 (Thor; rbonghi/jetson_stats issue 885).
"""

from __future__ import annotations

import re

_SLOWS_DOWN = re.compile(
    r"(?!hot-surface-)(?:(?:thermal-)?(?:cpufreq|devfreq|idle)-.+|.+-alert|.*throttle.*|Processor)"
)
_COLDEST, _HOTTEST = -40_000, 150_000
JETSON_GPU = (
    r"(?:[0-9a-f]{1,16}\.)?(?:gpu|ga10b|gv11b|gp10b|gm20b)(?:\.[0-9]{1,3})?|gpu-gpc-[0-9]{1,3}"
)
"""All of the name of a Jetson's GPU in /sys/class/devfreq, as a pattern."""


def slows_down(cooling_device: str) -> bool:
    """Return whether a cooling device of this type costs speed while its state is not 0.

    Not so a fan, a battery's charger, a setting such as TCC Offset, or hot-surface-alert, which
    only says that a Jetson's case is hot to the touch.
    """
    return _SLOWS_DOWN.fullmatch(cooling_device) is not None


def is_temperature(millidegrees: int) -> bool:
    """Return whether a sensor's number is a temperature.

    A Jetson's GPU that is off may say -256000; the hottest of its trip points that are known is
    114500, where a Thor shuts down.
    """
    return _COLDEST < millidegrees < _HOTTEST
