from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from motorvae.benchmarks.measure.energy import (
    Conditions,
    Energy,
    EnergyFacts,
    SensorFacts,
    Span,
    WatchFacts,
    Window,
)
from motorvae.benchmarks.measure.result import Result
from motorvae.benchmarks.report.energy import (
    conditions_table,
    energy_absent,
    energy_table,
    print_energy,
    sensors_table,
)
from motorvae.benchmarks.report.tables import group_table

PACKAGE = SensorFacts(
    name="package-0",
    source="/sys/class/powercap/intel-rapl:0/energy_uj",
    scope="processor",
    covers="the processor's package",
    reads="energy counter",
    update_ms=0.98,
    changes=200,
    idle_w=4.5,
    idle_s=5,
)
BOARD = PACKAGE.model_copy(update={"name": "psys", "scope": "board", "update_ms": None})
DRAM = PACKAGE.model_copy(update={"name": "package-0 dram", "scope": "part"})


@pytest.fixture
def metered(result: Result) -> Result:
    """The first case with 30 mJ for each latent and throttled, and one without a figure."""
    # 500 latents and 15 J in 1 s, three times.
    windows = (Window(duration_ns=10**9, latents=500, microjoules=15_000_000),) * 3
    eager, absent, restless, *others = result.cases
    measured = eager.with_facts(
        energy=(
            Energy(sensor="psys", not_measured="its value did not change"),
            Energy(sensor="package-0", windows=windows),
            Energy(sensor="package-0 dram", windows=windows),
        ),
        conditions=Conditions(
            samples=4,
            temperatures_c={"x86_pkg_temp": Span(low=50, median=60, high=71.5)},
            clocks_mhz={"processor": Span(low=1200, median=2000, high=3600)},
            throttled=("package_throttle_count +3",),
        ),
        warnings=("throttled: package_throttle_count +3",),
    )
    short = restless.with_facts(
        energy=(Energy(sensor="psys", not_measured="its value did not change"),)
    )
    facts = EnergyFacts(
        sensors=(BOARD, PACKAGE, DRAM), absent=("NVML: no driver",), windows=3, window_s=5
    )
    watch = WatchFacts(interval_s=0.5, samples=100, processor_share=0.0012, reading_ms=0.4)
    cases = (measured, absent, short, *others)
    return result.model_copy(update={"cases": cases, "energy": facts, "watch": watch})


def test_the_screen_has_joules_beside_the_sensor_its_rate_and_the_idle_power(
    metered: Result,
) -> None:
    stream = io.StringIO()
    print_energy(Console(file=stream, width=80), metered)
    text = " ".join(stream.getvalue().split())
    assert re.search(r"package-0 mJ/latent W idle W", text)
    assert "encoder torch eager fp32 30.00 15.00 4.50" in text
    assert "package-0 (energy counter): the processor's package; changes every 0.980 ms" in text
    assert "idle 4.50 W over 5 s, not subtracted" in text
    assert "up to 72 °C (x86_pkg_temp), processor at 1200 to 3600 MHz" in text
    assert "throttled: 1 cases, such as encoder, batch 1, torch eager" in text
    assert max(map(len, stream.getvalue().splitlines())) <= 80


def test_a_groups_table_has_a_column_for_each_sensor_that_sees_a_whole(metered: Result) -> None:
    table = group_table(metered, "encoder")
    assert table is not None
    assert "mJ package-0" in table.figures
    assert not {"mJ psys", "mJ package-0 dram"} & {*table.figures}
    place = len(table.texts) + table.figures.index("mJ package-0")
    assert [row[place] for row in table.rows] == ["30.00", ""]
    assert table.rows[0][1].endswith("torch eager * (throttled)")


def test_the_page_has_every_sensor_and_every_reason(metered: Result) -> None:
    sensors, energy = sensors_table(metered), energy_table(metered)
    assert sensors is not None
    assert energy is not None
    assert [row[0] for row in sensors.rows] == ["psys", "package-0", "package-0 dram"]
    assert [row[4] for row in sensors.rows] == ["no change", "0.980", "0.980"]
    assert [row[1:4] for row in energy.rows] == [
        ("package-0", "30.00", "15.00"),
        ("package-0 dram", "30.00", "15.00"),
    ]
    assert energy_absent(metered) == [
        "NVML: no driver",
        "psys, encoder, batch 1, torch eager and 1 more cases: its value did not change",
    ]
    conditions = conditions_table(metered)
    assert conditions is not None
    assert conditions.rows == (
        (
            "encoder, batch 1, torch eager",
            "package_throttle_count +3",
            "processor 1200 to 3600",
            "x86_pkg_temp",
            "71.5",
            "4",
        ),
    )
    assert "0.12% of one core" in conditions.title


def test_a_result_without_energy_says_nothing_of_it(result: Result) -> None:
    stream = io.StringIO()
    print_energy(Console(file=stream, width=80), result)
    assert stream.getvalue() == ""
    assert (sensors_table(result), energy_table(result), conditions_table(result)) == (None,) * 3
    assert energy_absent(result) == []
