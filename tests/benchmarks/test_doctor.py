from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console

import motorvae.benchmarks.doctor
import motorvae.benchmarks.examine_gpu
import motorvae.benchmarks.sensors.find
from motorvae.benchmarks.cases.gpu import (
    WARMUP,
    OneByOne,
    measure,
    planned_cases,
)
from motorvae.benchmarks.cli import main as bench
from motorvae.benchmarks.doctor import main
from motorvae.benchmarks.measure.case import NOT_REACHED, Case, CudaGraph, GpuMode, samples_of
from motorvae.benchmarks.measure.result import GpuFacts, GpuRates, Rate, Result, load_result
from motorvae.benchmarks.report.tables import print_gpu_cases
from motorvae.benchmarks.sensors.base import Absent
from motorvae.benchmarks.sensors.find import Found
from motorvae.export.verify.reference import Reference, reference_from_bundle
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.bundle.manifest import GraphReport, Metric
from motorvae.runtime.core.documents import save_document
from motorvae.runtime.core.errors import BackendError, MeasurementError, OutputError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.base import Arrays, Backend
from motorvae.runtime.engines.gpu_info import Gpu, find_gpu
from motorvae.runtime.engines.open import EngineRequest, open_engine

ORIN = Gpu("A GPU of a test", "8.7", "13.0", "580.10", 8 << 30, integrated=True)
"""TensorRT-RTX does not list its compute capability, so that no builder here takes it."""


def gate(value: float) -> tuple[GraphReport, ...]:
    metric = Metric(name="max error / spread", value=value, limit=0.05, passed=value <= 0.05)
    return (
        GraphReport(
            graph="encoder",
            precision="fp16",
            output="mu",
            engine="an engine",
            reference="torch",
            images=3,
            metrics=(metric,),
        ),
    )


@pytest.fixture(autouse=True)
def no_rates(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's rates take a process with torch: it starts only where it is what is tested."""
    if "real_rates" in request.fixturenames:
        return

    def refuse(_spec: ModelSpec) -> GpuRates:
        raise MeasurementError("not asked for in this test")

    monkeypatch.setattr(motorvae.benchmarks.examine_gpu, "rates_of_gpu", refuse)


@pytest.fixture
def real_rates() -> None:
    """Leave the process that measures the GPU's rates in its place."""


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run motorvae-doctor; return its exit code and what it said."""

    def call(*args: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return code, capsys.readouterr().err

    return call


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """The driver's answer on a machine that has a GPU; nothing behind it is there."""
    if isinstance(find_gpu(), Gpu):
        pytest.skip("this machine has a GPU, on which these rows would run")
    monkeypatch.setattr(motorvae.benchmarks.doctor, "find_gpu", lambda: ORIN)
    return ORIN


def facts_of(result: Result) -> GpuFacts:
    assert result.gpu is not None
    return result.gpu


def measured_in(result: Result) -> list[Case]:
    return [case for case in result.cases if case.status == "measured"]


@pytest.fixture
def result(small_bundle: Path, with_gpu: Gpu, tmp_path: Path) -> Result:
    """The result of a machine where no row ran."""
    output = tmp_path / "nothing.json"
    assert main(["gpu", "--model", str(small_bundle), "--output", str(output)]) == 1
    found = load_result(output)
    assert facts_of(found).model_dump().items() >= dataclasses.asdict(with_gpu).items()
    return found


@pytest.fixture
def opened(small_bundle: Path) -> tuple[Bundle, Reference]:
    bundle = load_bundle(small_bundle)
    return bundle, reference_from_bundle(bundle)


def test_without_a_gpu_the_command_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "motorvae.benchmarks.doctor", "gpu"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # hides a GPU that may be there
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("motorvae-doctor: no GPU to examine: ")
    assert done.stderr.endswith(
        "; run motorvae-doctor gpu on the machine that has one, or motorvae-bench to measure this "
        "processor\n"
    )
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--output", "result.txt"), "--output result.txt: name a file that ends in .json"),
        (("--frames", 0), "--frames 0: take 1 or more"),
        (("--output", "/proc/none/x.json"), "cannot write /proc/none/x.json"),
        (("--energy", "--gpu-energy"), "--energy has the sensors of --gpu-energy, too: leave out"),
        (("--model", "nowhere"), "no bundle at nowhere: run motorvae-train and then"),
    ],
)
def test_what_is_wrong_is_one_line(
    doctor: Callable[..., tuple[int, str]],
    args: tuple[object, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = doctor("gpu", *args)
    assert code == 1
    assert said.startswith(f"motorvae-doctor: {message}")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_help_names_all_that_can_be_examined(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "[screen|cameras|gpu]" in said
    assert "Without a name it is screen" in said


def test_every_row_that_did_not_run_has_its_reason(result: Result) -> None:
    assert len(result.cases) == 22
    assert facts_of(result).engines == ()
    assert {row.status for row in result.cases} == {"unproven"}
    said = {
        row.how.removesuffix(", CUDA graph: off"): row.not_measured or "" for row in result.cases
    }
    assert said["ONNX Runtime CUDA, fp16, encoder"].startswith("provider 'cuda' is not in")
    assert "has no encoder" in said["ONNX Runtime CUDA, int8, encoder luma"]
    recorded = said["TensorRT, fp16, encoder, CUDA graph: copies and kernels"]
    assert recorded.startswith("TensorRT needs the")
    assert said["TensorRT-RTX, fp32, encoder, CUDA graph: left to the engine"].endswith(
        "does not list compute capability 8.7 (A GPU of a test)"
    )
    in_torch = said["torch CUDA, fp16, encoder, CUDA graph: kernels"]
    assert in_torch.startswith("no --checkpoint was given")
    schedule = result.settings.schedule
    assert (facts_of(result).name, schedule.samples, schedule.warmup) == (ORIN.name, 1000, WARMUP)


@pytest.mark.usefixtures("with_gpu")
def test_an_earlier_result_is_kept_and_the_bundle_stays_as_it_was(
    doctor: Callable[..., tuple[int, str]], small_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "doctor-gpu.json"
    output.write_text("earlier", encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in small_bundle.rglob("*")}
    code, said = doctor("gpu", "--model", small_bundle, "--output", output, "--frames", 3)
    assert code == 1
    assert f"the earlier {output} is kept as {tmp_path / 'doctor-gpu.1.json'}" in said
    assert (tmp_path / "doctor-gpu.1.json").read_text(encoding="utf-8") == "earlier"
    assert load_result(output).settings.schedule.samples == 3
    assert {path: path.stat().st_mtime_ns for path in small_bundle.rglob("*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "doctor-gpu.1.json",
        "doctor-gpu.json",
    ]


def on_the_processor(bundle: Bundle, key: GraphKey, _request: EngineRequest) -> Backend:
    return open_engine(bundle, key)


@pytest.mark.usefixtures("with_gpu")
def test_one_measured_row_is_enough(
    doctor: Callable[..., tuple[int, str]],
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(motorvae.benchmarks.examine_gpu, "open_engine", on_the_processor)
    output = tmp_path / "doctor-gpu.json"
    code, said = doctor("gpu", "--model", small_bundle, "--output", output, "--frames", 30)
    assert code == 0
    found = load_result(output)
    for row in measured_in(found):
        assert {stage: len(series.samples) for stage, series in row.stages.items()} == {"wall": 30}
    gated = {
        (row.precision, row.variant): [r.output for r in row.gate] for row in measured_in(found)
    }
    both = ["mu", "log_var"]
    # The small model's float32 luma form is left out by the export, as it is no faster.
    assert gated == {
        ("fp32", "encoder"): [*both, "reconstruction"],
        ("fp32", "encoder mu"): ["mu"],
        ("fp16", "encoder"): both,
        ("fp16", "encoder luma"): [*both, "reconstruction"],
        ("fp16", "encoder mu"): ["mu"],
    }
    assert f"result in {output}: 5 of 22 cases measured; share that file as it is" in said


@pytest.mark.usefixtures("with_gpu", "real_rates")
def test_only_what_was_named_is_measured_and_a_missing_roofline_has_its_reason(
    doctor: Callable[..., tuple[int, str]],
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(motorvae.benchmarks.examine_gpu, "open_engine", on_the_processor)
    output = tmp_path / "doctor-gpu.json"
    args = ("--model", small_bundle, "--output", output, "--frames", 3)
    code, _ = doctor("gpu", *args, "--only", "onnx")
    assert code == 0
    found = load_result(output)
    assert {case.engine for case in found.cases} == {"ONNX Runtime CUDA"}
    assert found.command == "motorvae-doctor gpu --frames 3 --only onnx"
    (warning,) = found.warnings
    assert warning.startswith("no roofline: the GPU's rates were not measured: torch ")
    assert (found.matrix, found.read_memory) == ({}, None)
    code, _ = doctor("gpu", *args, "--only", "torch", "tensorrt-rtx")
    assert code == 1
    assert {case.engine for case in load_result(output).cases} == {"torch CUDA", "TensorRT-RTX"}


def rates_of(device: str) -> GpuRates:
    rate = Rate(work=10**9, series=samples_of((10**6,) * 5))
    return GpuRates(
        device=device,
        torch="2",
        matrix={"fp32": rate, "fp16": rate},
        copy_memory=rate,
        read_memory=rate,
        read_again=rate,
    )


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize("brought", [False, True])
def test_measured_rates_put_each_case_under_its_roofline(
    brought: bool,
    doctor: Callable[..., tuple[int, str]],
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates, args = rates_of(ORIN.name), ["--frames", 3, "--only", "onnx"]
    monkeypatch.setattr(motorvae.benchmarks.examine_gpu, "open_engine", on_the_processor)
    if brought:  # and measured by nobody here: that would be refused
        save_document(tmp_path / "rates.json", rates)
        args += ["--rates", tmp_path / "rates.json"]
    else:
        monkeypatch.setattr(motorvae.benchmarks.examine_gpu, "rates_of_gpu", lambda _spec: rates)
    output = tmp_path / "doctor-gpu.json"
    code, said = doctor("gpu", "--model", small_bundle, "--output", output, *args)
    assert code == 0, said
    found = load_result(output)
    assert found.warnings == ()
    assert found.read_memory == rates.read_memory
    assert set(found.matrix) == {"fp32", "fp16"}
    assert all(case.roofline for case in measured_in(found))


@pytest.mark.usefixtures("with_gpu")
def test_rates_of_another_gpu_make_no_roofline_and_no_rates_are_refused(
    doctor: Callable[..., tuple[int, str]],
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(motorvae.benchmarks.examine_gpu, "open_engine", on_the_processor)
    file, output = tmp_path / "rates.json", tmp_path / "doctor-gpu.json"
    save_document(file, rates_of("another GPU"))
    args = ("--model", small_bundle, "--output", output, "--frames", 3, "--only", "onnx")
    assert doctor("gpu", *args, "--rates", file)[0] == 0
    found = load_result(output)
    assert found.warnings == (
        f"no roofline: the rates are of another GPU, and this is {ORIN.name}",
    )
    assert found.read_memory is None
    output.unlink()
    file.write_text("{}", encoding="utf-8")
    code, said = doctor("gpu", *args, "--rates", file)
    assert (code, said.count("\n")) == (1, 1)
    assert "rates.json has schema_version=None, and this motorVAE reads 1: leave out" in said
    assert "--rates, or measure the rates again with this version" in said
    assert not output.exists()


@pytest.mark.usefixtures("with_gpu")
def test_without_a_sensor_that_covers_a_gpu_the_engines_are_only_timed(
    doctor: Callable[..., tuple[int, str]],
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(motorvae.benchmarks.examine_gpu, "open_engine", on_the_processor)
    nothing = Found([], [Absent("NVML", "no NVIDIA driver")])
    monkeypatch.setattr(motorvae.benchmarks.sensors.find, "gpu_sensors", lambda: nothing)
    output = tmp_path / "doctor-gpu.json"
    args = ("--model", small_bundle, "--output", output, "--frames", 3, "--only", "onnx")
    code, said = doctor("gpu", *args, "--gpu-energy")
    assert code == 0
    assert "no energy: NVML: no NVIDIA driver" in said
    found = load_result(output)
    assert found.energy is not None
    assert (found.energy.sensors, found.energy.absent) == ((), ("NVML: no NVIDIA driver",))
    assert found.command == "motorvae-doctor gpu --frames 3 --only onnx --gpu-energy"
    page = tmp_path / "report.html"
    assert bench(["report", str(output), "--output", str(page)]) == 0
    assert "NVML: no NVIDIA driver" in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize(
    ("wrong", "drifted"),
    [(("encoder", "mu"), "fp32, encoder mu"), (("decoder", "phases"), "fp32, encoder")],
)
def test_a_leaner_form_that_is_wrong_drifts_though_the_full_one_is_right(
    wrong: tuple[str, str],
    drifted: str,
    doctor: Callable[..., tuple[int, str]],
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one_form_is_off(bundle: Bundle, key: GraphKey, request: EngineRequest) -> Backend:
        backend = on_the_processor(bundle, key, request)
        right = backend.run

        def off(batch: npt.NDArray[np.float32]) -> Arrays:
            return {name: 1.5 * values for name, values in right(batch).items()}

        if (key.precision, key.part, key.variant) == ("fp32", *wrong):
            monkeypatch.setattr(backend, "run", off)
        return backend

    monkeypatch.setattr(motorvae.benchmarks.examine_gpu, "open_engine", one_form_is_off)
    output = tmp_path / "doctor-gpu.json"
    code, said = doctor("gpu", "--model", small_bundle, "--output", output, "--frames", 24)
    assert code == 1
    rows = load_result(output).cases
    (found,) = (row for row in rows if row.status == "drifted")
    assert found.how == f"ONNX Runtime CUDA, {drifted}, CUDA graph: off"
    assert f"{found.how}: drifted: " in said
    assert sum(row.status == "measured" for row in rows) == 4


@pytest.mark.usefixtures("with_gpu")
def test_an_error_of_cuda_puts_no_host_user_or_home_into_the_result(
    doctor: Callable[..., tuple[int, str]],
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(_bundle: Bundle, key: GraphKey, _request: EngineRequest) -> Backend:
        raise BackendError(
            f"ONNX Runtime cannot open /home/ada/{key.onnx_file}: CUDNN failure 4: INTERNAL ; "
            "GPU=0 ; hostname=box7 ; file=/onnxruntime_src/cudnn.cc ; line=66"
        )

    monkeypatch.setattr(motorvae.benchmarks.examine_gpu, "open_engine", refuses)
    output = tmp_path / "doctor-gpu.json"
    code, said = doctor("gpu", "--model", small_bundle, "--output", output, "--frames", 3)
    assert code == 1
    for text in (output.read_text(encoding="utf-8"), said):
        assert "CUDNN failure 4: INTERNAL ; GPU=0 ; hostname=... ;" in text
        assert "box7" not in text
        assert "ada" not in text


@pytest.mark.usefixtures("with_gpu")
def test_what_nobody_foresaw_in_one_row_leaves_the_others_and_is_raised(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_breaks(bundle: Bundle, key: GraphKey, request: EngineRequest) -> Backend:
        if key == GraphKey("encoder"):
            raise AttributeError("no such verb")
        return on_the_processor(bundle, key, request)

    monkeypatch.setattr(motorvae.benchmarks.examine_gpu, "open_engine", first_breaks)
    output = tmp_path / "doctor-gpu.json"
    with pytest.raises(AttributeError, match="no such verb"):
        main(["gpu", "--model", str(small_bundle), "--output", str(output), "--frames", "2"])
    first, *others = load_result(output).cases
    assert (first.status, first.not_measured) == ("unproven", "AttributeError: no such verb")
    assert sum(row.status == "measured" for row in others) == 4
    assert NOT_REACHED not in {row.not_measured for row in others}


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize("breaks", [False, True])
def test_an_output_that_cannot_be_written_ends_it_and_is_no_case_s_reason(
    breaks: bool, small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[GraphKey] = []

    def first_breaks(bundle: Bundle, key: GraphKey, request: EngineRequest) -> Backend:
        opened.append(key)
        if breaks and len(opened) == 1:
            raise AttributeError("no such verb")
        return on_the_processor(bundle, key, request)

    def full(path: Path, _document: object) -> None:
        raise OutputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(motorvae.benchmarks.examine_gpu, "open_engine", first_breaks)
    monkeypatch.setattr(motorvae.benchmarks.examine_gpu, "save_document", full)
    args = ["gpu", "--model", str(small_bundle), "--output", str(tmp_path / "x.json")]
    if not breaks:
        assert main([*args, "--frames", "2"]) == 1
        assert {key.variant for key in opened} == {"full", "phases"}  # of the first case alone
        return
    with pytest.raises(AttributeError, match="no such verb") as raised:
        main([*args, "--frames", "2"])
    assert isinstance(raised.value.__cause__, OutputError)


class Ticking:
    """A GPU's clock whose laps are known."""

    def __init__(self, stages: Sequence[str]) -> None:
        self.count = 0
        self._stages = stages

    def __call__(self) -> Mapping[str, float]:
        self.count += 1
        return {stage: self.count + place / 8 for place, stage in enumerate(self._stages)}


def test_frames_go_around_the_images_and_each_is_gated_and_timed(
    opened: tuple[Bundle, Reference],
) -> None:
    bundle, reference = opened
    clock = Ticking(("device", "h2d"))
    with open_engine(bundle, GraphKey("encoder")) as backend:
        row, mu = measure(planned_cases()[0][0], backend, reference, frames=50, repeat=clock)
        again, _ = measure(planned_cases()[0][0], backend, reference, frames=50, graph_off=mu)
        other, _ = measure(planned_cases()[0][0], backend, reference, frames=50, graph_off=mu + 1)
    assert (row.status, row.not_measured, row.name) == ("measured", None, backend.name)
    assert row.stages["device"].shown == tuple(WARMUP + 1.0 + n for n in range(50))
    assert row.stages["device"].p50 == WARMUP + 25.5
    assert row.stages["h2d"].max == WARMUP + 50.125
    assert len(row.stages["wall"].samples) == 50
    assert {report.images for report in row.gate} == {24}
    assert mu.shape == (50, reference.mu.shape[1])
    np.testing.assert_array_equal(mu[24:48], mu[:24])
    assert (row.equals_graph_off, again.equals_graph_off, other.equals_graph_off) == (
        None,
        True,
        False,
    )


def test_an_engine_that_drifts_later_than_the_first_round_is_caught(
    opened: tuple[Bundle, Reference],
) -> None:
    bundle, reference = opened

    class Drifting(OneByOne):
        runs = 0

        def run(self, batch: npt.NDArray[np.float32]) -> Arrays:
            self.runs += len(batch)
            found = super().run(batch)
            return {**found, "mu": found["mu"] + (self.runs > WARMUP + 30)}

    with open_engine(bundle, GraphKey("encoder")) as backend:
        row, _ = measure(planned_cases()[0][0], Drifting(backend), reference, frames=100)
    assert row.status == "drifted"
    assert row.stages == {}
    assert "drifted: encoder fp32 mu: max error / spread over data" in (row.not_measured or "")
    assert not all(report.passed for report in row.gate)


def test_a_graph_that_was_not_recorded_is_no_graph_row(opened: tuple[Bundle, Reference]) -> None:
    bundle, reference = opened
    recorded = GpuMode(cuda_graph="copies and kernels")
    row = dataclasses.replace(
        planned_cases()[0][0], case=planned_cases()[0][0].case.model_copy(update={"mode": recorded})
    )
    with open_engine(bundle, GraphKey("encoder")) as backend:
        backend.notes = ("runs without a CUDA graph: it said so",)
        with pytest.raises(BackendError, match="runs without a CUDA graph: it said so"):
            measure(row, backend, reference, frames=2, repeat=Ticking(("device", "h2d")))


def measured(graph: CudaGraph, *, equal: bool | None = None) -> Case:
    return Case(
        group="gpu",
        engine="TensorRT",
        precision="fp16",
        variant="encoder",
        mode=GpuMode(cuda_graph=graph),
        name="TensorRT 10.16 on a GPU",
        stages={
            "wall": samples_of([250_000, 500_000, 250_000]),
            "device": samples_of([125_000, 250_000]),
        },
        gate=gate(0.01),
        equals_graph_off=equal,
    )


@pytest.fixture
def partial(result: Result) -> Result:
    """Two rows measured, one past the gate, the others not run."""
    drifted = Case(
        group="gpu",
        engine="TensorRT",
        variant="encoder",
        mode=GpuMode(),
        not_measured="verification failed: far off",
        gate=gate(0.5),
    )
    graphs = (measured("off"), measured("copies and kernels", equal=False))
    return result.model_copy(update={"cases": (*graphs, drifted, *result.cases[13:])})


def test_a_result_comes_back_as_it_was_written(partial: Result, tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    save_document(path, partial)
    assert load_result(path) == partial


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda c: c["cases"][0].update(speed=1), r"cases\.0\.speed: Extra inputs are not"),
        (lambda c: c["gpu"].update(price=1), r"gpu\.price: Extra inputs are not permitted"),
        (lambda c: c.update(schema_version=1), "has schema_version=1, and this motorVAE reads 4"),
        (
            lambda c: c["cases"][0]["stages"]["wall"].update(p50=0.1),
            r"stages\.wall=.* are not those of the samples",
        ),
        (
            lambda c: c["cases"][0]["stages"]["wall"]["samples"].append(-1),
            "a sample of -1 ns: each must be above 0",
        ),
        (lambda c: c["cases"][0].update(gate=[]), "measured only past the drift gate"),
        (lambda c: c["cases"][0].update(stages={}), "either samples or the reason"),
        (lambda c: c["cases"][3].update(not_measured=None), "either samples or the reason"),
    ],
)
def test_a_result_that_says_more_than_it_shows_is_refused(
    edit: Callable[[dict[str, Any]], object], message: str, partial: Result, tmp_path: Path
) -> None:
    path = tmp_path / "gpu.json"
    save_document(path, partial)
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(MeasurementError, match=message):
        load_result(path)


def test_the_table_shows_what_was_measured_and_names_the_rest(
    partial: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    print_gpu_cases(Console(width=100), partial)
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0] == "A GPU of a test, compute capability 8.7, driver 580.10, CUDA 13.0, 8.6 GB"
    table = [line.split() for line in lines if "wall" in line or "device" in line]
    assert [row[-6:] for row in table] == [
        ["wall", "0.250", "0.450", "0.475", "0.495", "0.500"],
        ["device", "0.188", "0.237", "0.244", "0.249", "0.250"],
    ] * 2
    assert said.count("TensorRT, fp16, encoder, CUDA graph: off") == 1
    flat = " ".join(said.split())
    assert "copies and kernels: latents are not bit for bit those without the graph" in flat
    assert "TensorRT, fp32, encoder, CUDA graph: off: verification failed: far off" in flat
    unproven = [line for line in lines if line.startswith("unproven: ")]
    assert len(unproven) == 3
    assert unproven[0].startswith("unproven: TensorRT, int8, encoder, CUDA graph: off; TensorRT,")
    assert unproven[1].startswith("unproven: TensorRT-RTX, fp32, encoder, CUDA graph: off; Tensor")


def test_torch_without_cuda_says_so(opened: tuple[Bundle, Reference], tmp_path: Path) -> None:
    import torch

    from motorvae.benchmarks.under_test.torch_models import TorchEncoder

    if torch.cuda.is_available():
        pytest.skip("this torch has a GPU")
    with pytest.raises(MeasurementError, match=r"torch .* finds no GPU: install a build of torch"):
        TorchEncoder(tmp_path, opened[0])


def test_a_result_names_no_host(result: Result, tmp_path: Path) -> None:
    import platform

    text = result.model_dump_json()
    assert str(tmp_path) not in text
    assert platform.node() not in (facts_of(result).machine or "").split()


@pytest.mark.usefixtures("with_gpu")
def test_the_result_is_one_that_motorvae_bench_reports_and_compares(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motorvae.benchmarks.examine_gpu, "open_engine", on_the_processor)
    output = tmp_path / "doctor-gpu.json"
    args = ["--model", str(small_bundle), "--output", str(output), "--frames", "24"]
    assert main(["gpu", *args]) == 0
    page = tmp_path / "report.html"
    assert bench(["report", str(output), "--output", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "GPU: every sample" in text
    assert "ONNX Runtime CUDA, fp16, encoder, CUDA graph: off" in text
    assert bench(["compare", str(output), str(output)]) == 0
