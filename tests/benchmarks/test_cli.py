from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from motorvae.benchmarks.measure.result import load_result
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.hardware import cpu_has_bf16

Bench = Callable[..., tuple[int, str]]

SIZES = ("--image-size", 32, "--channels", 4, 8, 8, 16, 16, "--latent-size", 8)
UNTRAINED = ("--untrained", "--quick", "--threads", 1, *SIZES)


def test_an_untrained_run_leaves_a_result_and_its_picture(
    bench: Bench, small_spec: ModelSpec, tmp_path: Path
) -> None:
    output = tmp_path / "bench.json"
    output.write_text("earlier", encoding="utf-8")
    training = ("--training", "--training-batch", 4, "--training-steps", 2)
    only = ("--only", "encoder", "decoder", "path", "gpu", "--batches", 1, 4)
    code, said = bench(*UNTRAINED, "--skip-compile", *only, *training, "--output", output)
    assert code == 0, said

    found = load_result(output)
    assert found.model == small_spec
    assert (found.settings.untrained, found.settings.quick) == (True, True)
    assert set(found.environment.threads.values()) == {1}
    assert {"torch", "onnxruntime", "numpy", "av"} <= set(found.environment.versions)
    measured = [case for case in found.cases if case.not_measured is None]
    places = dict.fromkeys((case.group, case.batch, case.frame) for case in measured)
    assert list(places) == [
        ("encoder", 1, None),
        ("encoder", 4, None),
        ("decoder", 1, None),
        ("decoder", 4, None),
        ("path", 1, (640, 480)),
        ("path", 1, (1280, 720)),
        ("path", 1, (1920, 1080)),
        ("training", 4, None),
    ]
    for case in measured:
        count = 2 if case.group == "training" else 20 // case.batch
        assert {len(series.samples) for series in case.stages.values()} == {count}
        is_graph = case.group in {"encoder", "decoder"} and case.precision in found.matrix
        assert (case.roofline is not None) == is_graph
    assert len([case for case in measured if case.group == "training"]) == 1 + cpu_has_bf16()
    left_out = [case for case in found.cases if case.engine == "torch.compile"]
    assert {case.not_measured for case in left_out} == {"left out by --skip-compile or --quick"}

    assert " 4 not; " in said
    assert "QUICK: too few samples to quote" in said
    assert cv2.imread(str(output.with_suffix(".png"))) is not None
    assert (tmp_path / "bench.1.json").read_text(encoding="utf-8") == "earlier"
    assert f"next: motorvae-bench compare {tmp_path}/bench.1.json {output}" in said
    left = sorted(file.name for file in tmp_path.iterdir())
    assert left == ["bench.1.json", "bench.json", "bench.png"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--samples", 119), "--samples 119: take 120 or more, or --quick"),
        (("--quick", "--samples", 0), "--samples 0: take 1 or more"),
        (("--output", ""), "--output .: name a file that ends in .json"),
        (("--output", "bench.txt"), "--output bench.txt: name a file that ends in .json"),
        (("--batches", 1, 0), "--batches (1, 0): take 1 or more"),
        (("--threads", 0), "--threads 0: take 1 or more"),
        (("--training-steps", 0), "--training-steps 0: take 1 or more"),
        (("--training-batch", 0), "--training-batch 0: take 1 or more"),
        (("--seed", -1), "--seed -1: take 0 to 4294967295"),
        (("--latent-size", 8), "add --untrained, or leave them out"),
        (("--untrained", "--model", "bundle"), "leave out --model and --checkpoint"),
        (("--untrained", "--image-size", 100), "not a multiple of 16: take 96 or 112"),
        (("--model", "nowhere"), "no bundle at nowhere: run motorvae-train"),
        (("--model", "nowhere"), "or measure random weights with --untrained"),
        (("--output", "/proc/none/bench.json"), "cannot write /proc/none/bench.json"),
    ],
)
def test_a_wrong_option_is_one_line(
    bench: Bench,
    args: tuple[object, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = bench(*args)
    assert code == 1
    assert said.startswith("motorvae-bench: ")
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def run(small_spec: ModelSpec, tmp_path: Path) -> Path:
    """A finished training run, as far as the benchmark looks."""
    from motorvae.runtime.core.documents import save_document
    from motorvae.training.checkpoint import DataSummary, RunConfig, save_weights
    from motorvae.training.model import MotorVAE
    from motorvae.training.options import TrainOptions

    folder = tmp_path / "run"
    folder.mkdir()
    config = RunConfig(
        started="2026-11-23T12:00:00+00:00",
        model=small_spec,
        options=TrainOptions(),
        data=DataSummary(kind="vehicles", source="vehicles", train=1, held_out=1, skipped=0),
        precision="32-true",
        versions={},
    )
    save_document(folder / "config.json", config)
    save_weights(folder, MotorVAE(small_spec).state_dict())
    return folder


def test_a_bundle_of_other_weights_is_refused(
    bench: Bench, small_bundle: Path, run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "bench.json"
    code, said = bench("--model", small_bundle, "--checkpoint", run, "--output", output)
    assert code == 1
    assert f"{small_bundle} was exported from other weights (abababababab...)" in said
    assert str(run / "model.safetensors") in said
    assert sha256_of(run / "model.safetensors")[:12] in said
    assert not output.exists()


def test_a_bundle_that_only_claims_the_weights_is_refused(
    bench: Bench,
    bundle_copy: Path,
    change_manifest: Callable[[Path, Callable[[dict[str, Any]], object]], None],
    run: Path,
    tmp_path: Path,
) -> None:
    digest = sha256_of(run / "model.safetensors")
    change_manifest(bundle_copy, lambda manifest: manifest.update(weights_sha256=digest))
    output = tmp_path / "bench.json"
    code, said = bench(
        *("--model", bundle_copy, "--checkpoint", run / "model.safetensors"),
        *("--quick", "--threads", 1, "--skip-compile", "--output", output),
    )
    assert code == 1
    assert "ONNX Runtime, mu and log_var and torch eager disagree on mu" in said
    assert not output.exists()


def test_a_missing_run_is_named(bench: Bench, small_bundle: Path, tmp_path: Path) -> None:
    code, said = bench("--model", small_bundle, "--checkpoint", tmp_path / "none")
    assert code == 1
    assert f"no training run at {tmp_path / 'none'}" in said


def without_torch(*args: str) -> subprocess.CompletedProcess[str]:
    source = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {"torch", "matplotlib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from motorvae.benchmarks.cli import main
sys.exit(main(sys.argv[1:]))
"""
    return subprocess.run(
        [sys.executable, "-c", source, *args],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help_needs_no_torch() -> None:
    done = without_torch("--help")
    assert done.returncode == 0, done.stderr
    assert re.search(r"run\b.*compare\b.*report\b", done.stdout, re.DOTALL)
    done = without_torch("run", "--help")
    assert done.returncode == 0, done.stderr
    assert "--untrained" in done.stdout


def test_a_missing_package_is_named_with_the_command_that_brings_it(tmp_path: Path) -> None:
    done = without_torch("--untrained", "--output", str(tmp_path / "bench.json"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "benchmarking needs the package" in done.stderr
    assert "pip install 'motorvae[train,export,bench,cpu]'" in done.stderr


def test_options_that_other_commands_have_are_answered_by_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from motorvae.benchmarks.cli import main as bench_main
    from motorvae.benchmarks.doctor import main as doctor_main

    for main in (bench_main, doctor_main):
        assert main(["--bundle", "b"]) == 2
        assert "the bundle is --model in every command" in capsys.readouterr().err
        assert main(["--device=0"]) == 2
        assert "Unrecognized" not in capsys.readouterr().err
