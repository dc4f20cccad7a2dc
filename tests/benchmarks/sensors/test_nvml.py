"""zeus and NVIDIA's own bindings, for real, on a stand-in for the driver's library."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="needs a C compiler: apt-get install gcc"),
    pytest.mark.skipif(
        importlib.util.find_spec("zeus") is None, reason="needs zeus: the extra energy"
    ),
]
ASK = """
import json, time
from pathlib import Path
from motorvae.benchmarks.sensors.base import rhythm_of
from motorvae.benchmarks.sensors.find import find_sensors, nvml_reading
root = Path("/nonexistent")
found = find_sensors(root)
answer = {"absent": [one.words for one in found.absent if one.kind.startswith("NVML")]}
for sensor in found.sensors:
    begin, before = time.monotonic(), sensor.read()
    rhythm = rhythm_of(sensor, most_s=1)
    answer |= {
        "name": sensor.name, "scope": sensor.scope, "update_ms": rhythm.update_ms,
        "watts": sensor.counted(before, sensor.read()) / 1e6 / (time.monotonic() - begin),
    }
reading = nvml_reading()
answer["reading"] = reading.read() if reading else None
print(json.dumps(answer))
"""


def compiled(folder: Path, *flags: str) -> Path:
    source, target = Path(__file__).with_name("nvml.c"), folder / "libnvidia-ml.so.1"
    assert COMPILER is not None
    subprocess.run(
        [COMPILER, *flags, "-shared", "-fPIC", "-o", str(target), str(source)],
        check=True,
        timeout=60,
    )
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("nvml"))


def asked(library: Path, **more: str) -> dict[str, Any]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library), **more}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    environment |= more
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ASK],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_gpu_has_its_name_its_joules_and_its_rate(library: Path) -> None:
    found = asked(library)
    assert (found["name"], found["scope"]) == ("GPU 0 Stand-in", "GPU")
    assert found["watts"] == pytest.approx(30, rel=0.2)
    assert 16 < found["update_ms"] < 400  # changes are missed where the processor is busy
    assert found["reading"] == [{"GPU 0 Stand-in": 65}, {"GPU 0 Stand-in": 1755}, []]


def test_a_gpu_that_heat_slows_down_says_so(library: Path) -> None:
    found = asked(library, MOTORVAE_TEST_HOT="1")
    assert found["reading"][2] == ["GPU 0 Stand-in: thermal slowdown by the driver"]


def test_a_driver_that_knows_the_older_name_only_says_so_as_well(tmp_path: Path) -> None:
    found = asked(compiled(tmp_path, "-DOLDER_DRIVER"), MOTORVAE_TEST_HOT="1")
    assert found["reading"][2] == ["GPU 0 Stand-in: thermal slowdown by the driver"]


def test_a_gpu_that_gives_no_reasons_has_its_clock_all_the_same(library: Path) -> None:
    found = asked(library, MOTORVAE_TEST_NO_REASONS="1")
    assert found["reading"] == [{"GPU 0 Stand-in": 65}, {"GPU 0 Stand-in": 1755}, []]


def test_a_gpu_without_a_counter_is_absent_with_the_reason(library: Path) -> None:
    found = asked(library, MOTORVAE_TEST_NO_COUNTER="1")
    assert "name" not in found
    assert found["absent"] == ["NVML GPU 0 Stand-in: no energy counter: Not Supported"]


def test_no_visible_gpu_is_one_clause(library: Path) -> None:
    (absent,) = asked(library, CUDA_VISIBLE_DEVICES="")["absent"]
    assert absent.startswith(
        "NVML: no GPU that NVML shows: CUDA_VISIBLE_DEVICES is set to an empty"
    )


def test_without_zeus_the_command_that_brings_it_is_named(library: Path) -> None:
    blocked = "import sys; sys.modules['zeus'] = None\n" + ASK.replace("reading = nvml", "#")
    done = subprocess.run(
        [sys.executable, "-c", blocked.replace("reading.read() if reading else None", "None")],
        env={**os.environ, "LD_LIBRARY_PATH": str(library)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (absent,) = json.loads(done.stdout)["absent"]
    assert "needs the package zeus, which is not installed" in absent
    assert "pip install 'motorvae[energy]'" in absent
