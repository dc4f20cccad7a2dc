"""motorvae-bench run --energy where /sys/class is a tree of ours: in a mount namespace."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from motorvae.benchmarks.measure.result import load_result
from motorvae.benchmarks.report.page import save_report

from .sensors.trees import POWERCAP, X86, plant

NAMESPACE = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user", "--user")))
BENCH = "import sys; from motorvae.benchmarks.cli import main; sys.exit(main(sys.argv[1:]))"
SIZES = ("--image-size", 32, "--channels", 4, 8, 8, 16, 16, "--latent-size", 8)
UNTRAINED = ("run", "--untrained", "--quick", "--threads", 1, "--skip-compile", *SIZES)


def has_namespaces() -> bool:
    try:
        probe = [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/sys/class"]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not has_namespaces(), reason="needs unshare --mount")


def bench_over(sysfs: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run the command with a folder in the place of /sys/class."""
    command = [sys.executable, "-c", BENCH, *map(str, args)]
    script = f"mount --bind {shlex.quote(str(sysfs))} /sys/class && exec {shlex.join(command)}"
    return subprocess.run(
        [*NAMESPACE, "sh", "-c", script],
        # No GPU: this machine's own is another test's business.
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_without_a_sensor_nothing_is_measured(tmp_path: Path) -> None:
    empty = tmp_path / "class"
    empty.mkdir()
    output = tmp_path / "bench.json"
    done = bench_over(empty, *UNTRAINED, "--energy", "--output", output)
    assert done.returncode == 1
    assert done.stderr.startswith("motorvae-bench: --energy: this machine shows no sensor")
    assert "RAPL: no zone in /sys/class/powercap" in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["class"]


@pytest.mark.slow
def test_a_run_has_joules_of_a_counter_that_runs(
    tmp_path: Path, running: Callable[..., None]
) -> None:
    plant(tmp_path, X86)
    running(tmp_path / POWERCAP / "intel-rapl:0" / "energy_uj", 20)
    output = tmp_path / "bench.json"
    only = ("--only", "encoder", "--energy-seconds", 1.5)
    done = bench_over(tmp_path / "sys" / "class", *UNTRAINED, *only, "--energy", "--output", output)
    assert done.returncode == 0, done.stderr
    found = load_result(output)
    assert found.energy is not None
    package = {one.name: one for one in found.energy.sensors}["package-0"]
    assert package.source == "/sys/class/powercap/intel-rapl:0/energy_uj"
    assert package.idle_w == pytest.approx(20, rel=0.3)
    measured = [case for case in found.cases if case.stages]
    assert measured
    for case in measured:
        energy = {one.sensor: one for one in case.energy}["package-0"]
        assert energy.watts == pytest.approx(20, rel=0.3), case.key
        assert case.conditions is not None
        assert case.conditions.temperatures_c["coretemp Package id 0"].high == 62
    assert found.watch is not None
    assert found.watch.processor_share < 0.5
    assert "mJ/latent" in done.stderr
    assert "package-0 (energy counter)" in done.stderr
    save_report(tmp_path / "page.html", tmp_path / "page.png", found)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for words in ("<h2>Energy</h2>", "package-0", "Temperatures, clocks and throttling"):
        assert words in page
