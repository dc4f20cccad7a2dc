from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from motorvae.benchmarks.measure.case import Case
from motorvae.benchmarks.measure.energy import WINDOWS
from motorvae.benchmarks.measure.rounds import RoundPlan, stopwatch, timed_cases
from motorvae.benchmarks.sensors import find
from motorvae.benchmarks.sensors.find import find_sensors
from motorvae.benchmarks.sensors.meter import Meter

from .trees import ORIN_NANO, POWERCAP, X86, plant

SCHEDULE = RoundPlan(samples=4, warmup=1, settle=1, turn=2)
Running = Callable[..., None]


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "_LIBRARY", "libnvidia-ml-none.so.1")


def busy(ms: float) -> Callable[[], None]:
    """Work that takes so long, whatever else the machine does."""

    def work() -> None:
        until_s = time.perf_counter() + ms / 1e3
        while time.perf_counter() < until_s:
            pass

    return work


def cases_by(root: Path, batch: int = 1) -> tuple[list[Case], Meter]:
    planned = [
        (Case.planned(group="encoder", engine=name, batch=batch), stopwatch(busy(ms), "run"))
        for name, ms in (("fast", 2), ("slow", 8))
    ]
    with Meter(find_sensors(root), window_s=0.4, idle_s=0.3, root=root) as meter:
        return timed_cases(planned, SCHEDULE, meter), meter


def test_joules_for_a_latent_are_those_of_its_own_windows(tmp_path: Path, running: Running) -> None:
    plant(tmp_path, X86)
    running(tmp_path / POWERCAP / "intel-rapl:0" / "energy_uj", 20)
    (fast, slow), meter = cases_by(tmp_path)
    # Twenty watts at any time, so that joules follow the time of a latent.
    for case, ms in ((fast, 2), (slow, 8)):
        energy = {one.sensor: one for one in case.energy}["package-0"]
        assert len(energy.windows) == WINDOWS
        seconds = sum(window.duration_ns for window in energy.windows) / 1e9
        latents = sum(window.latents for window in energy.windows)
        assert energy.watts == pytest.approx(20, rel=0.15)
        assert energy.joules_per_latent == pytest.approx(20 * seconds / latents, rel=0.15)
        assert energy.joules_per_latent is not None
        assert energy.joules_per_latent >= 0.9 * 20 * ms / 1e3
    facts = meter.facts
    assert facts is not None
    package = {one.name: one for one in facts.sensors}["package-0"]
    assert package.idle_w == pytest.approx(20, rel=0.2)
    assert package.update_ms is not None
    assert 0.5 < package.update_ms < 20
    assert {one.name: one for one in facts.sensors}["psys"].idle_w is None  # it stands still
    assert any("NVML" in text for text in facts.absent)


def test_a_batch_is_so_many_latents(tmp_path: Path, running: Running) -> None:
    plant(tmp_path, X86)
    running(tmp_path / POWERCAP / "intel-rapl:0" / "energy_uj", 20)
    (fast, _), _ = cases_by(tmp_path, batch=10)
    energy = {one.sensor: one for one in fast.energy}["package-0"]
    assert energy.joules_per_latent is not None
    assert energy.joules_per_latent < 20 * 2 / 1e3


def test_a_sensor_that_does_not_move_gives_a_reason_and_no_figure(
    tmp_path: Path, running: Running
) -> None:
    plant(tmp_path, X86)
    running(tmp_path / POWERCAP / "intel-rapl:0" / "energy_uj", 20)
    (fast, _), _ = cases_by(tmp_path)
    still = {one.sensor: one for one in fast.energy}["psys"]
    assert still.joules_per_latent is None
    assert still.not_measured == "its value did not change while it was polled for 2 s"


def test_a_window_of_too_few_updates_gives_a_reason_and_no_figure(
    tmp_path: Path, running: Running
) -> None:
    plant(tmp_path, X86)
    running(tmp_path / POWERCAP / "intel-rapl:0" / "energy_uj", 20, every_s=0.1)
    (fast, _), meter = cases_by(tmp_path)
    slow = {one.sensor: one for one in fast.energy}["package-0"]
    assert slow.joules_per_latent is None
    assert slow.not_measured is not None
    assert "fewer than 20 of its updates" in slow.not_measured
    assert "take more --energy-seconds" in slow.not_measured
    assert meter.facts is not None  # nor is idle power that of three changes
    assert {one.name: one.idle_w for one in meter.facts.sensors}["package-0"] is None


def test_a_throttled_case_is_marked(tmp_path: Path) -> None:
    plant(tmp_path, ORIN_NANO)
    (tmp_path / "sys/class/thermal/cooling_device1/cur_state").write_text("1\n")
    with Meter(None, window_s=0.1, idle_s=0.1, root=tmp_path) as meter:
        planned = [(Case.planned(group="encoder", engine="it"), stopwatch(busy(1), "run"))]
        (case,) = timed_cases(planned, SCHEDULE, meter)
    assert case.energy == ()
    assert case.conditions is not None
    assert case.conditions.throttled == ("gpu-throttle-alert state 1",)
    assert "throttled: gpu-throttle-alert state 1" in case.warnings
    assert meter.facts is None
    assert meter.watched is not None


def test_nothing_is_watched_where_there_is_nothing_to_see(tmp_path: Path) -> None:
    with Meter(None, window_s=0.1, idle_s=0.1, root=tmp_path) as meter:
        planned = [(Case.planned(group="encoder", engine="it"), stopwatch(busy(1), "run"))]
        (case,) = timed_cases(planned, SCHEDULE, meter)
    assert (case.energy, case.conditions, meter.watched) == ((), None, None)


def test_a_case_is_kept_where_the_process_that_reads_sensors_is_gone(tmp_path: Path) -> None:
    plant(tmp_path, ORIN_NANO)
    planned = [(Case.planned(group="encoder", engine="it"), stopwatch(busy(1), "run"))]
    with Meter(None, window_s=0.1, idle_s=0.1, root=tmp_path) as meter:
        assert meter._watcher is not None
        meter._watcher.wait_for(time.monotonic_ns(), whole=True)
        meter._watcher._process.kill()
        meter._watcher._process.wait(60)
        first, second = (timed_cases(planned, SCHEDULE, meter)[0] for _ in range(2))
    for case in (first, second):
        assert (case.status, case.conditions) == ("measured", None)
        (warning,) = [one for one in case.warnings if "not known" in one]
        assert "the process that reads sensors has stopped" in warning
