from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from motorvae.export.cli import main
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.cli import stream_main
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.sources.synthetic.vehicles import vehicle
from motorvae.training import learned
from motorvae.training.cli import main as train_main
from motorvae.training.pretrained import folder as pretrained_folder
from motorvae.training.pretrained.folder import save_model
from motorvae.training.pretrained.held_out import DRAWN

# Lightning's strategies use names that torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training run of the smallest kind, made by the real command."""
    folder = tmp_path_factory.mktemp("trained")
    sizes = ["--image-size", "32", "--channels", "4", "8", "8", "16", "16", "--latent-size", "8"]
    schedule = [
        "--epochs",
        "6",
        "2",
        "--batch-size",
        "8",
        "--learning-rate",
        "0.01",
        "--vehicles-count",
        "96",
    ]
    where = ["--output", str(folder / "runs"), "--name", "small"]
    assert train_main(["--data", "vehicles", *sizes, *schedule, *where]) == 0
    return folder / "runs" / "small"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def test_bare_commands_follow_one_another(
    run: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "runs").mkdir()
    shutil.copytree(run, here / "runs" / "small")
    (here / "runs" / "latest").symlink_to("small")
    assert main(["--fp16"]) == 0
    printed = capfd.readouterr().err
    for line in ("encoder fp32 mu", "decoder fp16", "≤ 0.05", "next: motorvae-s"):
        assert line in printed
    manifest = load_bundle(here / "bundle").manifest
    with np.load(run / "held_out.npz", allow_pickle=False) as held_out:
        assert {report.images for report in manifest.verification} == {len(held_out["images"])}
    assert manifest.verification[0].reference.startswith("torch ")
    assert stream_main(["--camera", "synthetic", "--max-frames", "2"]) == 0
    rows = [json.loads(line) for line in (here / "latents.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows if row["status"] != "lost"] == ["ok", "ok", "end"]


def test_gate_speaks_in_the_spread_of_the_training_latents(run: Path, here: Path) -> None:
    assert main(["--checkpoint", str(run)]) == 0
    with np.load(here / "bundle" / "latents.npz", allow_pickle=False) as statistics:
        spread = np.sqrt(np.diag(statistics["covariance"]))
    mu = load_bundle(here / "bundle").manifest.verification[0]
    found = {metric.name: metric.value for metric in mu.metrics}
    ratio = found["max error"] / found["max error / spread over data"]
    assert spread.min() * 0.99 <= ratio <= spread.max() * 1.01


def test_int8_of_one_engine_is_exported_from_a_checkpoint(run: Path, here: Path) -> None:
    """48 held-out images are the fewest: they calibrate, choose and judge."""
    shutil.copytree(run, here / "run")
    images = np.stack([vehicle(5, index, 32)[0] for index in range(60)])
    np.savez(here / "run" / "held_out.npz", images=images)
    code = main(["--checkpoint", "run", "--int8", "openvino", "--engine", "none"])
    manifest = load_bundle(here / "bundle").manifest
    made_for = {entry.made_for for entry in manifest.graphs if entry.precision == "int8"}
    # So young a model may fail in a part; what is there is for that engine.
    assert (code, made_for) in ((0, {"openvino"}), (1, {"openvino"}), (1, set()))
    whole = {entry.title for entry in manifest.graphs if entry.precision == "fp32"}
    assert len(whole) == 5


def test_a_model_is_exported_without_a_run_and_streams(
    run: Path, here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the one that is shipped: FP16 weights, latent statistics, and no image."""
    models = here / "shipped"
    models.mkdir()
    save_model(run, models / "vehicles", dtype="float16")
    monkeypatch.setattr(pretrained_folder, "_SHIPPED", models)
    assert main(["--pretrained", "vehicles", "--anyway"]) == 0
    said = capfd.readouterr().err
    size = sum(file.stat().st_size for file in (here / "bundle").rglob("*") if file.is_file())
    assert f"bundle of vehicles in bundle, {size / 1e6:.1f} MB\n" in said
    manifest = load_bundle(here / "bundle").manifest
    assert max(report.images for report in manifest.verification) == DRAWN
    assert manifest.weights_sha256 == sha256_of(models / "vehicles" / "model.safetensors")
    assert stream_main(["synthetic", "--max-frames", "2"]) == 0
    rows = [json.loads(line) for line in (here / "latents.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows if row["status"] != "lost"] == ["ok", "ok", "end"]
    # By its folder too, which may have images of its own.
    shutil.copy(run / "held_out.npz", models / "vehicles")
    assert main(["--pretrained", "shipped/vehicles", "--output", "other", "--anyway"]) == 0
    with np.load(run / "held_out.npz", allow_pickle=False) as held_out:
        count = len(held_out["images"])
    assert load_bundle(here / "other").manifest.verification[0].images == count


def test_a_bundle_says_which_weights_its_run_began_with(run: Path, here: Path) -> None:
    """Through the manifest, as a bundle holds neither the config nor the weights."""
    sizes = ["--vehicles-count", "48", "--batch-size", "8", "--threads", "1", "--name", "on"]
    assert train_main(["--pretrained", str(run), *sizes, "--epochs", "1", "1"]) == 0
    assert main(["runs/on", "--anyway"]) == 0
    origin = load_bundle(here / "bundle").manifest.origin
    assert origin is not None
    assert (origin.kind, origin.name) == ("pretrained", "small")
    assert origin.files == {"model.safetensors": sha256_of(run / "model.safetensors")}


def one_line(capfd: pytest.CaptureFixture[str], args: list[str]) -> str:
    capfd.readouterr()
    assert main(args) == 1
    captured = capfd.readouterr()
    assert captured.out == ""
    # A step that takes long on a busy machine is named, as this is no terminal.
    (line,) = [line for line in captured.err.splitlines(True) if not line.endswith(" ...\n")]
    assert line.startswith("motorvae-export: ")
    return line


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "no training run at runs/latest: make one with motorvae-train"),
        (["--checkpoint", "nowhere"], "no training run at nowhere"),
        (["--pretrained", "cars"], "--pretrained=cars: there is no such folder, and no such model"),
        (["--pretrained", "x", "run"], "--pretrained=x is exported instead of a run: leave out it"),
        (["--pretrained", "x", "--weights", "last"], "leave out it or --weights"),
        (["--bundle", "bundle"], "nothing to add to bundle: name a precision, such as --fp16"),
        (["--bundle", "bundle", "--fp16"], "no bundle at bundle"),
        (["--bundle", "bundle", "--int8"], "no bundle at bundle"),
        (["--int8", "onnx,tflite"], "--int8 tflite: no such engine, name some of onnx, openvino"),
        (
            ["--bundle", "b", "--int8", "--keep-float32", "auto"],
            "--keep-float32 is for FP16 graphs",
        ),
        (["--bundle", "bundle", "--fp16", "--keep-float32"], "no bundle at bundle"),
        (["--bundle", "b", "--fp16", "--output", "c"], "leave out --checkpoint and --output"),
    ],
    ids=str,
)
def test_what_is_not_there_gets_one_line(
    args: list[str], said: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert said in one_line(capfd, args)
    assert list(here.iterdir()) == []


def test_a_machine_without_room_for_temporary_files_gets_one_line(
    run: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:  # pytest makes temporary files itself
        patch.setattr(tempfile, "tempdir", None)
        patch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(here / "missing")])
        assert main([str(run)]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("motorvae-export: No usable temporary directory found in [")
    assert not any(here.iterdir())


def test_run_without_its_held_out_images_is_refused(
    run: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, here / "run")
    (here / "run" / "held_out.npz").unlink()
    line = one_line(capfd, ["--checkpoint", "run"])
    assert "cannot read run/held_out.npz" in line
    assert not (here / "bundle").exists()


def test_damaged_arrays_of_a_run_get_one_line(
    run: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("held_out.npz", "latents.npz"):
        shutil.copytree(run, here / "run", dirs_exist_ok=True)
        data = (run / name).read_bytes()
        altered = data[:200] + bytes(len(data) - 400) + data[-200:]
        for damaged in (data[: len(data) // 2], altered, b""):
            (here / "run" / name).write_bytes(damaged)
            assert f"cannot read run/{name}: " in one_line(capfd, ["--checkpoint", "run"])


def test_run_with_images_of_another_size_is_refused(
    run: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, here / "run")
    np.savez(here / "run" / "held_out.npz", images=np.zeros((3, 64, 64), np.uint8))
    line = one_line(capfd, ["--checkpoint", "run"])
    assert "'images' is uint8 (3, 64, 64), expected uint8 (3, 32, 32)" in line


def test_output_that_is_something_else_is_kept(
    run: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "bundle").mkdir()
    (here / "bundle" / "notes.txt").write_text("mine")
    line = one_line(capfd, ["--checkpoint", str(run)])
    assert "bundle exists and is not a bundle" in line
    assert (here / "bundle" / "notes.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps."""
    folder = tmp_path_factory.mktemp("untaught")
    sizes = ["--image-size", "32", "--channels", "4", "8", "8", "16", "16", "--latent-size", "8"]
    budget = ["--steps", "2", "--vehicles-count", "48", "--threads", "1"]
    where = ["--output", str(folder), "--name", "run"]
    assert train_main(["--data", "vehicles", *sizes, *budget, *where]) == 0
    return folder / "run"


def test_what_has_learned_too_little_is_refused(
    untaught: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = one_line(capfd, ["--checkpoint", str(untaught)])
    assert "has learned too little, no bundle was written: " in line
    assert "; more steps" in line or "; a smaller beta" in line
    assert line.endswith("; or export it --anyway\n")
    assert list(here.iterdir()) == []


def test_too_few_images_for_int8_leave_it_out_and_the_rest_stands(
    run: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, here / "run")
    assert main(["--checkpoint", "run", "--fp16", "--int8", "--engine", "none"]) == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.count("the INT8 graphs are left out: 9 held-out images are too few") == 1
    assert {entry.precision for entry in load_bundle(here / "bundle").manifest.graphs} == {
        "fp32",
        "fp16",
    }
    # Nor does it undo what is added beside it.
    assert main(["--checkpoint", "run", "--engine", "none"]) == 0
    assert main(["--bundle", "bundle", "--fp16", "--int8", "--engine", "none"]) == 1
    assert "held-out images are too few" in capfd.readouterr().err.splitlines()[-1]
    assert {entry.precision for entry in load_bundle(here / "bundle").manifest.graphs} == {
        "fp32",
        "fp16",
    }


def test_statistics_of_another_size_are_refused(
    run: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, here / "run")
    with np.load(run / "latents.npz") as found:
        statistics = dict(found) | {"posterior_variance_mean": np.ones(3)}
    np.savez(here / "run" / "latents.npz", **statistics)
    line = one_line(capfd, ["--checkpoint", "run"])
    assert "is float64 (3,), expected finite floats (8); train or export again" in line


def test_one_held_out_image_is_a_remark(
    run: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, here / "run")
    with np.load(run / "held_out.npz") as found:
        np.savez(here / "run" / "held_out.npz", images=found["images"][:1], names=found["names"])
    assert main(["--checkpoint", "run"]) == 0
    assert "one held-out image cannot tell" in capfd.readouterr().err
    (remark,) = load_bundle(here / "bundle").manifest.remarks
    assert "one held-out image" in remark


def test_anyway_warns_and_leaves_a_remark(
    run: Path, here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # By a stricter measure this model, which passes the drift gate, has learned too little.
    monkeypatch.setattr(learned, "LEAST_EXPLAINED", 1.1)
    assert "has learned too little" in one_line(capfd, ["--checkpoint", str(run)])
    assert main(["--checkpoint", str(run), "--anyway"]) == 0
    assert "warning: this model: learned too little: " in capfd.readouterr().err
    (remark,) = load_bundle(here / "bundle").manifest.remarks
    assert remark.startswith("learned too little: its reconstructions explain ")
    assert main(["--bundle", "bundle", "--fp16"]) == 0
    assert load_bundle(here / "bundle").manifest.remarks == (remark,)
    capfd.readouterr()
    assert stream_main(["--camera", "synthetic", "--max-frames", "2", "--output", "-"]) == 0
    assert f"warning: bundle: {remark}\n" in capfd.readouterr().err


def test_weights_of_the_last_epoch_come_with_their_own_statistics(run: Path, here: Path) -> None:
    shutil.copytree(run, here / "run")
    # Another epoch's statistics, unlike the best's in their number of images.
    with np.load(run / "latents.last.npz") as found:
        statistics = dict(found) | {"count": np.array(7.0)}
    np.savez(here / "run" / "latents.last.npz", **statistics)
    counts = {}
    for choice, weights in (("best", "model.safetensors"), ("last", "last.safetensors")):
        assert main(["--checkpoint", "run", "--weights", choice]) == 0
        manifest = load_bundle(here / "bundle").manifest
        assert manifest.weights_sha256 == sha256_of(run / weights)
        assert manifest.remarks == ()
        with np.load(here / "bundle" / "latents.npz") as found:
            counts[choice] = float(found["count"])
    assert counts["last"] == 7
    assert counts["best"] != 7


@pytest.mark.usefixtures("here")
def test_weights_and_anyway_are_about_a_checkpoint(capfd: pytest.CaptureFixture[str]) -> None:
    line = one_line(capfd, ["--bundle", "bundle", "--fp16", "--weights", "last"])
    assert "--weights and --anyway are about a checkpoint" in line


# Nothing is lost silently


def titles(folder: Path) -> set[str]:
    return {f"{e.precision} {e.made_for}" for e in load_bundle(folder).manifest.graphs}


def test_an_export_of_the_same_weights_keeps_what_a_bundle_holds(
    run: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run), "--fp16", "--engine", "none"]) == 0
    assert main([str(run), "--engine", "none"]) == 0
    assert "bundle is of the same weights, and what it holds is kept" in capfd.readouterr().err
    assert titles(here / "bundle") == {"fp32 None", "fp32 onnx", "fp16 None"}
    assert main([str(run), "--engine", "none", "--replace"]) == 0
    assert titles(here / "bundle") == {"fp32 None", "fp32 onnx"}


def test_an_export_of_other_weights_names_what_would_go(
    run: Path, here: Path, int8_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(int8_bundle, here / "bundle")
    (here / "bundle" / "engines").mkdir()
    (here / "bundle" / "engines" / "encoder.mu.fp16.tensorrt.engine").write_bytes(b"engine")
    before = titles(here / "bundle")
    said = one_line(capfd, [str(run), "--int8", "onnx", "--engine", "none"])
    assert "bundle holds fp16 engines of tensorrt, int8 graphs for openvino" in said
    assert "let them go with --replace" in said
    assert titles(here / "bundle") == before


def rewritten(bundle: Path, graph: str, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change a graph of a bundle, and write into its manifest that another motorVAE made it."""
    model = onnx.load(bundle / graph)
    change(model)
    onnx.save(model, bundle / graph)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["producer"] = "motorvae 0.0.1"
    for entry in manifest["graphs"]:
        if entry["file"] == graph:
            entry["sha256"] = sha256_of(bundle / graph)
            entry["size_bytes"] = (bundle / graph).stat().st_size
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def named_by_another_torch(model: onnx.ModelProto) -> None:
    model.producer_version = "0.0.1"
    for node in model.graph.node:
        node.name = f"call_{node.name}"
        for values in (node.input, node.output):
            values[:] = [
                f"v_{name}" if name not in {"z", "reconstruction"} else name for name in values
            ]
    for constant in model.graph.initializer:
        constant.name = f"v_{constant.name}"
    del model.graph.value_info[:]


def one_weight_changed(model: onnx.ModelProto) -> None:
    constant = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(constant).copy()
    values.flat[0] += 1
    constant.CopyFrom(onnx.numpy_helper.from_array(values, constant.name))


def test_what_another_version_wrote_of_the_same_weights_is_kept_if_its_graphs_compute_the_same(
    run: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run), "--fp16", "--engine", "none"]) == 0
    rewritten(here / "bundle", "decoder.onnx", named_by_another_torch)
    assert main([str(run), "--engine", "none"]) == 0
    assert "bundle is of the same weights, and what it holds is kept" in capfd.readouterr().err
    assert titles(here / "bundle") == {"fp32 None", "fp32 onnx", "fp16 None"}
    rewritten(here / "bundle", "decoder.onnx", one_weight_changed)
    assert main([str(run), "--engine", "none"]) == 1
    assert "bundle holds fp16 graphs, which this export would" in capfd.readouterr().err
    assert titles(here / "bundle") == {"fp32 None", "fp32 onnx", "fp16 None"}


INTERRUPTED = """
import os, signal, sys
from motorvae.export.tensorrt import build
from motorvae.export.cli import main
add_task = build.Progress.add_task
def interrupted(self, *args, **rest):
    os.kill(os.getpid(), signal.SIGINT)
    return add_task(self, *args, **rest)
build.Progress.add_task = interrupted
sys.exit(main(sys.argv[1:]))
"""


def test_an_export_again_that_is_interrupted_while_it_builds_engines_loses_nothing(
    run: Path, here: Path
) -> None:
    args = [str(run), "--fp16", "--engine", "tensorrt-rtx"]
    assert main(args) == 0
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert any(path.suffix == ".engine" for path in before)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == "motorvae-export: interrupted"
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_int8_that_cannot_be_alone_is_one_line_and_rewrites_nothing(
    run: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run), "--engine", "none"]) == 0
    before = {path: path.stat().st_mtime_ns for path in (here / "bundle").iterdir()}
    line = one_line(capfd, ["--model", "bundle", "--int8"])
    assert "the INT8 graphs are left out: 9 held-out images are too few" in line
    assert {path: path.stat().st_mtime_ns for path in (here / "bundle").iterdir()} == before
