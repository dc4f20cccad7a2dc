from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from motorvae.export.bundle import check_replaceable
from motorvae.export.cli import main
from motorvae.export.engine_bundle import (
    EngineOrder,
    NoBuilder,
    add_engines_to_bundle,
    find_builder,
    profile_from_text,
)
from motorvae.runtime.bundle import load_bundle
from motorvae.runtime.driver import Gpu, NoGpu
from motorvae.runtime.engines import engine_paths
from motorvae.runtime.errors import (
    ConfigError,
    EngineError,
    MissingDependencyError,
    OutputError,
)
from motorvae.runtime.files import sha256_of
from motorvae.runtime.flavours import open_flavour
from motorvae.runtime.passport import BatchProfile, passport_from_json, this_platform

BLOCKED = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
from motorvae.export.cli import main
sys.exit(main(sys.argv[2:]))
"""


def export_without(packages: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run motorvae-export in a process that has none of these packages."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, packages, *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"COLUMNS": "100"},
    )


def content_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_passport_holds_what_was_built(rtx_bundle: Path, graph: str) -> None:
    engine, path = engine_paths(rtx_bundle, graph, "fp16", "tensorrt-rtx")  # type: ignore[arg-type]
    passport = passport_from_json(path)
    flavour = open_flavour("tensorrt-rtx")
    assert (passport.graph, passport.precision) == (graph, "fp16")
    assert (passport.flavour, passport.version) == ("tensorrt-rtx", flavour.version)
    assert passport.compute_capabilities == flavour.portable_capabilities()
    assert (passport.gpu, passport.driver, passport.cuda) == (None, None, None)
    assert passport.platform == this_platform()
    assert passport.onnx_sha256 == sha256_of(rtx_bundle / f"{graph}.fp16.onnx")
    assert passport.engine.sha256 == sha256_of(engine)
    assert passport.engine.size_bytes == engine.stat().st_size
    assert passport.profile == BatchProfile(min=1, opt=1, max=8)
    assert min(passport.receipt.shares("fp16")) > 0.95
    assert not passport.verification.verified
    assert (
        passport.verification.reason
        == f"it was built without a GPU ({this_platform()}) and never run"
    )
    assert passport.build_seconds > 0


def test_bundle_with_engines_is_still_a_bundle(rtx_bundle: Path, small_bundle: Path) -> None:
    assert load_bundle(rtx_bundle).manifest == load_bundle(small_bundle).manifest
    files = content_of(rtx_bundle)
    assert content_of(small_bundle).items() <= files.items()
    assert sorted(path.name for path in (rtx_bundle / "engines").iterdir()) == [
        "decoder.fp16.tensorrt-rtx.engine",
        "decoder.fp16.tensorrt-rtx.json",
        "encoder.fp16.tensorrt-rtx.engine",
        "encoder.fp16.tensorrt-rtx.json",
    ]


def test_command_builds_engines_from_a_bundle_with_neither_torch_nor_onnx(
    bundle_copy: Path,
) -> None:
    done = export_without(
        "torch,onnx,onnx_ir,onnxscript,onnxruntime,lightning",
        *("--bundle", str(bundle_copy), "--fp16", "--batch", "1,2,4"),
    )
    assert done.returncode == 0, done.stderr
    for words in ("encoder fp16", "decoder fp16", "100.00% fp16", "not run", "not verified: "):
        assert words in done.stderr
    passport = passport_from_json(engine_paths(bundle_copy, "encoder", "fp16", "tensorrt-rtx")[1])
    assert passport.profile == BatchProfile(min=1, opt=2, max=4)


def test_float32_engines_are_built_where_an_engine_is_named(bundle_copy: Path) -> None:
    assert main(["--bundle", str(bundle_copy), "--engine", "tensorrt-rtx"]) == 0
    _, path = engine_paths(bundle_copy, "decoder", "fp32", "tensorrt-rtx")
    assert passport_from_json(path).receipt.shares("fp32")[0] > 0.95


def test_no_builder_is_one_line_with_the_command_for_the_target(bundle_copy: Path) -> None:
    before = content_of(bundle_copy)
    done = export_without("tensorrt,tensorrt_rtx", "--bundle", str(bundle_copy), "--fp16")
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if line.startswith("no engine was built")]
    assert said == [
        "no engine was built: the package tensorrt is not installed and the package tensorrt-rtx "
        "is not installed; on the machine that will run it: "
        f"motorvae-export --bundle {bundle_copy} --fp16"
    ]
    assert content_of(bundle_copy) == before


def test_engine_none_builds_none_and_says_nothing_of_it(
    bundle_copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--bundle", str(bundle_copy), "--fp16", "--engine", "none"]) == 0
    assert "no engine" not in capfd.readouterr().err
    assert not (bundle_copy / "engines").exists()


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_engine_asked_for_by_name_that_cannot_be_built_fails(
    bundle_copy: Path, flavour: str
) -> None:
    before = content_of(bundle_copy)
    done = export_without(
        flavour.replace("-", "_"), "--bundle", str(bundle_copy), "--fp16", "--engine", flavour
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("motorvae-export: TensorRT")
    assert f"pip install 'motorvae[{flavour}]'" in line
    assert content_of(bundle_copy) == before


def test_nothing_is_exported_for_a_builder_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert main(["--fp16", "--engine", "tensorrt"]) == 1
    assert list(tmp_path.iterdir()) == []


def test_engine_that_is_not_what_its_label_says_leaves_the_bundle_alone(
    bundle_copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A float32 graph stands where the FP16 one is announced: only the engine itself can tell."""
    half = bundle_copy / "encoder.fp16.onnx"
    shutil.copyfile(bundle_copy / "encoder.onnx", half)
    manifest = bundle_copy / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    for entry in content["graphs"]:
        if entry["file"] == half.name:
            entry |= {"sha256": sha256_of(half), "size_bytes": half.stat().st_size}
    manifest.write_text(json.dumps(content), encoding="utf-8")
    before = content_of(bundle_copy.parent)
    assert main(["--bundle", str(bundle_copy), "--fp16", "--engine", "tensorrt-rtx"]) == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert "the engine of encoder.fp16.onnx is not fp16: 0.00% of weights" in line
    assert content_of(bundle_copy.parent) == before


@pytest.mark.parametrize("name", ["notes.txt", "encoder.fp16.tensorrt.engine.bak"])
def test_what_no_motorvae_wrote_is_not_lost(
    rtx_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    bundle = Path(shutil.copytree(rtx_bundle, tmp_path / "bundle"))
    (bundle / "engines" / name).write_text("mine", encoding="utf-8")
    before = content_of(bundle)
    assert main(["--bundle", str(bundle), "--fp16", "--engine", "tensorrt-rtx"]) == 1
    assert f"holds engines/{name}, which no motorVAE wrote" in capfd.readouterr().err
    with pytest.raises(OutputError, match=f"engines/{name} beside the bundle"):
        check_replaceable(bundle)
    assert content_of(bundle) == before


def test_engines_that_is_a_file_is_not_lost(bundle_copy: Path) -> None:
    (bundle_copy / "engines").write_text("mine", encoding="utf-8")
    assert main(["--bundle", str(bundle_copy), "--fp16", "--engine", "tensorrt-rtx"]) == 1
    assert (bundle_copy / "engines").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("text", ["0", "-1", "17592186044416"])
def test_workspace_beyond_reason_is_one_line(
    bundle_copy: Path, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    assert main(["--bundle", str(bundle_copy), "--fp16", "--workspace-mib", text]) == 1
    assert f"workspace_mib={text} is out of range: take 1 to" in capfd.readouterr().err


def test_engines_of_the_other_precision_stay(rtx_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(rtx_bundle, tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    before = content_of(bundle.folder)
    order = EngineOrder(open_flavour("tensorrt-rtx"), NoGpu("none"), "fp32", BatchProfile())
    add_engines_to_bundle(bundle, order, Console(quiet=True), on_reports=lambda _: None)
    after = content_of(bundle.folder)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 4


def test_tensorrt_rtx_is_passed_over_for_a_gpu_that_it_does_not_list() -> None:
    rtx = open_flavour("tensorrt-rtx")
    hopper = Gpu("NVIDIA H100", "9.0", "13.0", None, 80 << 30, integrated=False)
    assert rtx.objection_to(hopper) == (
        f"TensorRT-RTX {rtx.version} does not list compute capability 9.0 (NVIDIA H100)"
    )
    ada = Gpu("NVIDIA RTX 4090", "8.9", "13.0", None, 24 << 30, integrated=False)
    assert rtx.objection_to(ada) is None
    assert rtx.objection_to(NoGpu("no driver")) == "no driver"


def test_auto_takes_what_the_machine_has() -> None:
    builder, gpu = find_builder("auto")
    if isinstance(gpu, NoGpu):
        assert not isinstance(builder, NoBuilder)
        assert builder.name == "tensorrt-rtx"
    with pytest.raises((EngineError, MissingDependencyError)):
        find_builder("tensorrt" if isinstance(gpu, NoGpu) else "no such")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "1", "1,2", "0,1,2", "4,2,8", "1,1,x", "1,2,3,4", "1,1,9999"])
def test_batch_sizes_that_do_not_rise_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="give fewest,best,most"):
        profile_from_text(text)


def test_profile_reads_three_numbers() -> None:
    assert profile_from_text("1, 4,32") == BatchProfile(min=1, opt=4, max=32)
