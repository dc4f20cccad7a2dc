"""Trees in the form of sysfs.

File names, units and values have the form that the kernel's documentation gives; the machines are
made up, and no value was recorded on one.
"""

from __future__ import annotations

from pathlib import Path

Tree = dict[str, str | int]


def plant(root: Path, tree: Tree) -> None:
    """Write files below a root."""
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n", encoding="ascii")


POWERCAP = "sys/class/powercap"
X86: Tree = {
    f"{POWERCAP}/intel-rapl/enabled": 1,
    f"{POWERCAP}/intel-rapl:0/name": "package-0",
    f"{POWERCAP}/intel-rapl:0/energy_uj": "000000001000000",
    f"{POWERCAP}/intel-rapl:0/max_energy_range_uj": 262143328850,
    f"{POWERCAP}/intel-rapl:0:0/name": "core",
    f"{POWERCAP}/intel-rapl:0:0/energy_uj": 500000,
    f"{POWERCAP}/intel-rapl:0:0/max_energy_range_uj": 262143328850,
    f"{POWERCAP}/intel-rapl:0:1/name": "dram",
    f"{POWERCAP}/intel-rapl:0:1/energy_uj": 300000,
    f"{POWERCAP}/intel-rapl:0:1/max_energy_range_uj": 65712999613,
    f"{POWERCAP}/intel-rapl:1/name": "psys",
    f"{POWERCAP}/intel-rapl:1/energy_uj": 9000000,
    f"{POWERCAP}/intel-rapl:1/max_energy_range_uj": 262143328850,
    # The same package once more, by another way.
    f"{POWERCAP}/intel-rapl-mmio:0/name": "package-0",
    f"{POWERCAP}/intel-rapl-mmio:0/energy_uj": 1000000,
    "sys/class/thermal/thermal_zone0/type": "acpitz",
    "sys/class/thermal/thermal_zone0/temp": 27800,
    "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone1/temp": 61000,
    "sys/class/thermal/cooling_device0/type": "Processor",
    "sys/class/thermal/cooling_device0/cur_state": 0,
    "sys/class/thermal/cooling_device1/type": "intel_powerclamp",
    "sys/class/thermal/cooling_device1/cur_state": -1,
    "sys/class/thermal/cooling_device2/type": "TCC Offset",
    "sys/class/thermal/cooling_device2/cur_state": 3,
    "sys/class/hwmon/hwmon0/name": "nvme",
    "sys/class/hwmon/hwmon0/temp1_input": 41850,
    "sys/class/hwmon/hwmon1/name": "coretemp",
    "sys/class/hwmon/hwmon1/temp1_input": 62000,
    "sys/class/hwmon/hwmon1/temp1_label": "Package id 0",
    "sys/class/hwmon/hwmon1/temp2_input": 60000,
    "sys/class/hwmon/hwmon1/temp2_label": "Core 0",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": 800000,
    "sys/devices/system/cpu/cpufreq/policy0/base_frequency": 2400000,
    "sys/devices/system/cpu/cpufreq/policy1/scaling_cur_freq": 3900000,
    "sys/devices/system/cpu/cpufreq/policy1/base_frequency": 2400000,
    **{
        f"sys/devices/system/cpu/cpu{cpu}/{name}": value
        for cpu in range(4)  # two cores of two threads, one package
        for name, value in {
            "topology/physical_package_id": 0,
            "topology/core_id": cpu // 2,
            "thermal_throttle/core_throttle_count": 10 + cpu // 2,
            "thermal_throttle/package_throttle_count": 7,
        }.items()
    },
}
_INA = "sys/class/hwmon/hwmon1"
ORIN_NANO: Tree = {
    f"{_INA}/name": "ina3221",
    f"{_INA}/in1_label": "VDD_IN",
    f"{_INA}/in1_input": 4984,
    f"{_INA}/curr1_input": 1856,
    f"{_INA}/in2_label": "VDD_CPU_GPU_CV",
    f"{_INA}/in2_input": 4984,
    f"{_INA}/curr2_input": 640,
    f"{_INA}/in3_label": "VDD_SOC",
    f"{_INA}/in3_enable": 0,
    f"{_INA}/in3_input": 4984,
    f"{_INA}/curr3_input": 320,
    "sys/class/hwmon/hwmon3/name": "soctherm_oc",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": 0,
    "sys/class/hwmon/hwmon3/oc3_event_cnt": 2,
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": 48218,
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": -256000,
    "sys/class/thermal/cooling_device0/type": "pwm-fan",
    "sys/class/thermal/cooling_device0/cur_state": 3,
    "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert",
    "sys/class/thermal/cooling_device1/cur_state": 0,
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": 1510400,
}
AGX_ORIN: Tree = {
    "sys/class/hwmon/hwmon2/name": "ina3221",
    "sys/class/hwmon/hwmon2/in1_label": "VDD_GPU_SOC",
    "sys/class/hwmon/hwmon2/in1_input": 19000,
    "sys/class/hwmon/hwmon2/curr1_input": 200,
    "sys/class/hwmon/hwmon2/in2_label": "NC",
    "sys/class/hwmon/hwmon2/in2_input": 0,
    "sys/class/hwmon/hwmon2/curr2_input": 0,
}
THOR: Tree = {
    "sys/class/hwmon/hwmon4/name": "ina238",
    "sys/class/hwmon/hwmon4/in1_label": "VIN",
    "sys/class/hwmon/hwmon4/power1_input": 51250000,
}
