"""The list of steps: commands that exist, tests that are all selected, and needs that are told."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from motorvae.benchmarks.proof.run import shown_command
from motorvae.benchmarks.proof.steps import (
    DEVICE_LAYER_TESTS,
    GPU_TESTS,
    Place,
    Step,
    planned_steps,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    work = tmp_path / "work"
    return Place(ROOT, work, work / "bundle", work / "runs/gpu", frames=1000)


def test_every_step_is_told_apart_and_ends(place: Place) -> None:
    steps = planned_steps(place)
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)
    assert all(30 <= step.limit_s <= 900 for step in steps)


def test_every_test_for_a_gpu_is_in_one_step_and_no_more(place: Place) -> None:
    """By what -k selects: a new test that no step runs would be unproven without a word."""

    def collected(*words: str) -> set[str]:
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "gpu", *words]
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", *map(str, GPU_TESTS)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return {line for line in done.stdout.splitlines() if "::" in line}

    everything = collected()
    assert len(everything) > 50
    parts = []
    for step in planned_steps(place):
        if step.name.startswith("tests-"):
            words = list(step.command)
            parts.append(collected("-k", words[words.index("-k") + 1]))
    assert len(parts) == 4
    assert set().union(*parts) == everything
    assert sum(map(len, parts)) == len(everything)


def test_every_file_of_the_device_layer_is_there() -> None:
    assert [path for path in DEVICE_LAYER_TESTS if not (ROOT / path).is_file()] == []


def options_of(step: Step) -> list[str]:
    return [word for word in step.command if word.startswith("--")]


@pytest.mark.parametrize("name", ["train", "export", "export-int8", "doctor-torch", "stream-onnx"])
def test_the_options_that_are_typed_exist(place: Place, name: str) -> None:
    (step,) = (step for step in planned_steps(place) if step.name == name)
    shown = shown_command(step.command)
    command = shown.split()[0].removeprefix("motorvae-")
    words = [command, *(["gpu"] if command == "doctor" else [])]
    done = subprocess.run(
        [sys.executable, "-m", "motorvae", *words, "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    for option in options_of(step):
        assert option in done.stdout


def test_what_is_not_installed_or_not_there_is_named_with_the_next_step(tmp_path: Path) -> None:
    def step(**facts: object) -> Step:
        return Step("x", "x", 1, ["x"], **facts)  # type: ignore[arg-type]

    assert step(modules=("pytest",)).why_not() is None
    assert step(modules=("tensorrt",)).why_not() == (
        "needs tensorrt, which is not installed: pip install 'motorvae[tensorrt]', or on a Jetson "
        "JetPack's own"
    )
    assert (step(modules=("onnxruntime-gpu",)).why_not() or "").startswith(
        "needs onnxruntime-gpu, which is not installed: pip uninstall onnxruntime, then pip"
    )
    assert step(files=((tmp_path / "none", "export it"),)).why_not() == (
        f"needs {tmp_path / 'none'}, which is not there: export it"
    )


def test_where_nothing_was_trained_the_model_that_comes_with_the_package_is_exported(
    place: Place,
) -> None:
    (step,) = (step for step in planned_steps(place) if step.name == "export")
    assert "--pretrained vehicles --output" in shown_command(step.due_command)
    run = place.work / "runs" / "gpu"
    run.mkdir(parents=True)
    (run / "metrics.csv").touch()
    assert shown_command(step.due_command).startswith(f"motorvae-export {run} --output")


def test_the_rates_of_one_step_are_taken_by_all_that_need_them(place: Place) -> None:
    steps = {step.name: step for step in planned_steps(place)}
    rates = place.work / "rates.json"
    doctors = [step for name, step in steps.items() if name.startswith("doctor-")]
    assert len(doctors) == 4
    assert list(steps).index("rates") < list(steps).index("doctor-onnx")
    for step in doctors:
        assert "--rates" not in step.due_command  # it measures them by itself
        assert "--gpu-energy" in step.due_command
    assert str(rates) in steps["rates"].command
    rates.parent.mkdir(parents=True)
    rates.touch()
    for step in doctors:
        assert shown_command(step.due_command).endswith(f" --rates {rates}")
        assert "--gpu-energy" in step.due_command


def test_a_users_own_model_replaces_the_trained_one(tmp_path: Path) -> None:
    place = Place(ROOT, tmp_path, tmp_path / "mine", tmp_path / "run", frames=10)
    steps = {step.name: step for step in planned_steps(place)}
    assert steps["export"].has_own_model
    assert steps["export-int8"].has_own_model
    assert not steps["train"].has_own_model  # its rate is measured all the same
    assert str(tmp_path / "mine") in steps["doctor-onnx"].command
    assert "--checkpoint" not in steps["doctor-onnx"].command
    assert str(tmp_path / "run") in steps["doctor-torch"].command
