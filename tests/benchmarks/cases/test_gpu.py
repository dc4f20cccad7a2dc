from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motorvae.benchmarks.cases.gpu import engine_cases, measure, planned_engines, public_case
from motorvae.benchmarks.measure.result import clocks, environment_now, load_now, power_state
from motorvae.benchmarks.sensors import find
from motorvae.benchmarks.sensors.meter import Meter
from motorvae.benchmarks.under_test.model_under_test import ModelUnderTest
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.engines.gpu_info import NoGpu, find_gpu
from motorvae.runtime.engines.open import EngineRequest, open_engine

from ..sensors.trees import POWERCAP, X86, plant


def test_without_a_gpu_each_engine_says_why(tested: ModelUnderTest) -> None:
    gpu = find_gpu()
    if not isinstance(gpu, NoGpu):
        pytest.skip("this machine has a GPU")
    cases = engine_cases(tested.bundle, tested.reference, frames=2)
    assert [(case.engine, case.not_measured) for case in cases] == [
        ("TensorRT", gpu.reason),
        ("TensorRT-RTX", gpu.reason),
    ]


def test_a_machine_without_the_tools_says_nothing_of_power(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment_now(threads={}, load_start=load_now()).power_mode is None
    assert power_state() == clocks() == ()


def test_the_power_state_is_what_nvidia_smi_says_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'A GPU, P0, 30.1 W, 70 W, 1500 MHz, 5000 MHz, 40, 3 %'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (state,) = power_state()
    assert (state["name"], state["clocks.sm"], state["utilization.gpu"]) == (
        "A GPU",
        "1500 MHz",
        "3 %",
    )
    assert "clocks.sm 1500 MHz" in clocks()[0]


def test_decoders_are_timed_and_gated_as_encoders_are(tested: ModelUnderTest) -> None:
    """On the processor: it shows what is asked of a decoder's engine, and proves nothing of it."""
    bundle, reference = tested.bundle, tested.reference
    planned, _ = planned_engines("tensorrt", GraphKey("decoder", target="tensorrt"))
    assert planned.case.how == "TensorRT, fp32, decoder, CUDA graph: off"
    with open_engine(bundle, GraphKey("decoder"), EngineRequest(backend="onnx")) as backend:
        case, _ = measure(planned, backend, reference, frames=5)
        others = replace(reference, reconstruction=1 - np.asarray(reference.reconstruction))
        drifted, _ = measure(planned, backend, others, frames=5)
    assert (case.status, case.not_measured) == ("measured", None)
    assert [report.output for report in case.gate] == ["reconstruction"]
    assert case.psnr is not None
    assert len(case.stages["wall"].samples) == 10  # true latents, and those of the encoder
    assert (drifted.status, drifted.stages) == ("drifted", {})


def test_no_text_of_a_public_case_tells_one_machine_from_another() -> None:
    planned, _ = planned_engines("tensorrt", GraphKey("encoder", target="tensorrt"))
    private = "hostname=box7 Serial Number: 1650522003820 /home/ada/x"
    private += " GPU-12345678-9abc-def0-1234-56789abcdef0"
    case = planned.case.with_facts(not_measured=private, notes=(private,), warnings=(private,))
    found = public_case(case)
    for text in (found.not_measured, *found.notes, *found.warnings):
        assert text == "hostname=... Serial Number: ... ~/x GPU-..."
    assert len(found.warnings) == 1


def test_what_passed_the_gate_is_run_again_for_its_energy(
    tested: ModelUnderTest,
    tmp_path: Path,
    running: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(find, "_LIBRARY", "libnvidia-ml-none.so.1")
    plant(tmp_path, X86)
    running(tmp_path / POWERCAP / "intel-rapl:0" / "energy_uj", 20)
    bundle, reference = tested.bundle, tested.reference
    planned, _ = planned_engines("tensorrt", GraphKey("encoder", target="tensorrt"))
    with (
        open_engine(bundle, GraphKey("encoder"), EngineRequest(backend="onnx")) as backend,
        Meter(find.find_sensors(tmp_path), window_s=0.4, idle_s=0.2, root=tmp_path) as meter,
    ):
        case, _ = measure(planned, backend, reference, frames=5, meter=meter)
        others = replace(reference, mu=1 + np.asarray(reference.mu))
        drifted, _ = measure(planned, backend, others, frames=5, meter=meter)
    energy = {one.sensor: one for one in case.energy}["package-0"]
    assert energy.watts == pytest.approx(20, rel=0.3)
    assert case.conditions is not None
    assert case.conditions.temperatures_c["x86_pkg_temp"].high == 61
    assert (drifted.status, drifted.energy) == ("drifted", ())
