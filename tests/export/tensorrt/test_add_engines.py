from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from motorvae.export.bundle import check_replaceable
from motorvae.export.cli import main
from motorvae.export.tensorrt.add_engines import (
    add_engines_to_bundle,
    find_builder,
    profile_from_text,
)
from motorvae.export.tensorrt.build import EngineBuildRequest
from motorvae.runtime.bundle.graph_key import GraphKey, Variant
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.bundle.manifest import FileEntry
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.core.errors import (
    BundleError,
    ConfigError,
    EngineError,
    MissingDependencyError,
    OutputError,
)
from motorvae.runtime.engines.gpu_info import Gpu, NoGpu
from motorvae.runtime.engines.tensorrt.engine_manifest import (
    BatchProfile,
    engine_manifest_from_json,
    this_platform,
)
from motorvae.runtime.engines.tensorrt.find import (
    graphs_with_engine,
    precisions_with_engine,
)
from motorvae.runtime.engines.tensorrt.package import import_tensorrt

from ..engine_graphs import add_form

ChangeManifest = Callable[[Path, Callable[[dict[str, Any]], object]], None]

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
def test_engine_manifest_holds_what_was_built(rtx_bundle: Path, graph: str) -> None:
    engine, path = GraphKey(graph, "fp16").engine_paths(rtx_bundle, "tensorrt-rtx")  # type: ignore[arg-type]
    engine_manifest = engine_manifest_from_json(path)
    package = import_tensorrt("tensorrt-rtx")
    assert (engine_manifest.graph, engine_manifest.precision, engine_manifest.variant) == (
        graph,
        "fp16",
        "full",
    )
    assert (engine_manifest.package, engine_manifest.version) == ("tensorrt-rtx", package.version)
    assert engine_manifest.compute_capabilities == package.portable_capabilities()
    assert (engine_manifest.gpu, engine_manifest.driver, engine_manifest.cuda) == (None, None, None)
    assert engine_manifest.platform == this_platform()
    assert engine_manifest.onnx_sha256 == sha256_of(rtx_bundle / f"{graph}.fp16.onnx")
    assert engine_manifest.engine.sha256 == sha256_of(engine)
    assert engine_manifest.engine.size_bytes == engine.stat().st_size
    assert engine_manifest.profile == BatchProfile(min=1, opt=1, max=8)
    assert min(engine_manifest.precision_report.shares("fp16")) > 0.95
    assert not engine_manifest.verification.verified
    assert (
        engine_manifest.verification.reason
        == f"it was built without a GPU ({this_platform()}) and never run"
    )
    assert engine_manifest.build_seconds > 0


def test_bundle_with_engines_is_still_a_bundle(rtx_bundle: Path, small_bundle: Path) -> None:
    assert load_bundle(rtx_bundle).manifest == load_bundle(small_bundle).manifest
    files = content_of(rtx_bundle)
    assert content_of(small_bundle).items() <= files.items()
    stems = (
        "decoder.fp16.tensorrt-rtx",
        "encoder.fp16.tensorrt-rtx",
        "encoder.luma.fp16.tensorrt-rtx",
        "encoder.mu.fp16.tensorrt-rtx",
    )
    assert sorted(path.name for path in (rtx_bundle / "engines").iterdir()) == [
        f"{stem}.{suffix}" for stem in stems for suffix in ("engine", "json")
    ]


@pytest.mark.parametrize("variant", ["full", "luma", "mu"])
def test_each_form_has_an_engine_of_its_own_graph(rtx_bundle: Path, variant: Variant) -> None:
    entry = load_bundle(rtx_bundle).entry(GraphKey("encoder", "fp16", variant))
    engine, path = GraphKey("encoder", "fp16", variant).engine_paths(rtx_bundle, "tensorrt-rtx")
    engine_manifest = engine_manifest_from_json(path)
    assert (engine_manifest.variant, engine_manifest.onnx_sha256) == (variant, entry.sha256)
    assert engine_manifest.engine.file == engine.name
    plan = engine.read_bytes()
    assert (b"log_var" in plan) == (variant != "mu")
    assert (b"type=uint8" in plan) == (variant != "full")


def int8_order() -> EngineBuildRequest:
    return EngineBuildRequest(
        import_tensorrt("tensorrt-rtx"), NoGpu("none"), "int8", BatchProfile()
    )


def test_int8_engines_are_built_of_every_form_that_is_made_for_them(bundle_copy: Path) -> None:
    for variant in ("luma", "mu"):
        add_form(bundle_copy, "encoder", "int8", variant)  # type: ignore[arg-type]
    add_form(bundle_copy, "decoder", "int8", "phases")
    bundle = load_bundle(bundle_copy)
    engine_manifests = add_engines_to_bundle(
        bundle, int8_order(), Console(quiet=True), on_reports=lambda _: None
    )
    assert [engine_manifest.key.title for engine_manifest in engine_manifests] == [
        "encoder int8 luma",
        "encoder int8 mu",
        "decoder int8 phases",
    ]
    assert precisions_with_engine(bundle, "encoder", "tensorrt-rtx") == ("int8",)
    engines = graphs_with_engine(bundle, GraphKey("encoder", "int8"), "tensorrt-rtx")
    assert [entry.variant for entry in engines] == ["mu", "luma"]
    assert check_replaceable(bundle_copy) == {
        "fp16 graphs",
        "int8 graphs for tensorrt",
        "int8 engines of tensorrt-rtx",
    }


class Swapped(Bundle):
    """A bundle whose graphs are swapped as soon as they have been checked."""

    def _checked(self, entry: FileEntry) -> bytes:
        content = super()._checked(entry)
        (self.folder / entry.file).write_bytes(b"another graph")
        return content


def test_engines_are_built_of_what_was_checked(bundle_copy: Path) -> None:
    add_form(bundle_copy, "encoder", "int8", "mu")
    bundle = load_bundle(bundle_copy)
    swapped = Swapped(bundle.folder, bundle.manifest, {one.file for one in bundle.manifest.graphs})
    built = add_engines_to_bundle(
        swapped, int8_order(), Console(quiet=True), on_reports=lambda _: None
    )
    assert [one.key.title for one in built] == ["encoder int8 mu"]
    assert (bundle_copy / "encoder.mu.int8.made.onnx").read_bytes() == b"another graph"


def test_one_form_that_earns_no_label_leaves_no_engine_of_the_others(bundle_copy: Path) -> None:
    """The decoder with transposed convolutions, which TensorRT-RTX computes in float32."""
    add_form(bundle_copy, "encoder", "int8", "mu")
    add_form(bundle_copy, "decoder", "int8", "full")
    before = content_of(bundle_copy)
    with pytest.raises(EngineError, match=r"decoder\.full\.int8\.made\.onnx is not int8"):
        add_engines_to_bundle(
            load_bundle(bundle_copy), int8_order(), Console(quiet=True), on_reports=lambda _: None
        )
    assert content_of(bundle_copy) == before


def test_graphs_that_are_made_for_other_engines_are_not_built(
    bundle_copy: Path, change_manifest: ChangeManifest
) -> None:
    add_form(bundle_copy, "encoder", "int8", "mu")
    change_manifest(bundle_copy, lambda content: content["graphs"][-1].update(made_for="onnx"))
    with pytest.raises(BundleError, match="has no encoder int8 for tensorrt"):
        add_engines_to_bundle(
            load_bundle(bundle_copy), int8_order(), Console(quiet=True), on_reports=lambda _: None
        )
    add_form(bundle_copy, "encoder", "int8", "luma")
    engine_manifests = add_engines_to_bundle(
        load_bundle(bundle_copy), int8_order(), Console(quiet=True), on_reports=lambda _: None
    )
    assert [engine_manifest.key.title for engine_manifest in engine_manifests] == [
        "encoder int8 luma"
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
    engine_manifest = engine_manifest_from_json(
        GraphKey("encoder", "fp16").engine_paths(bundle_copy, "tensorrt-rtx")[1]
    )
    assert engine_manifest.profile == BatchProfile(min=1, opt=2, max=4)


def test_float32_engines_are_built_where_an_engine_is_named(bundle_copy: Path) -> None:
    assert main(["--bundle", str(bundle_copy), "--engine", "tensorrt-rtx"]) == 0
    _, path = GraphKey("decoder", "fp32").engine_paths(bundle_copy, "tensorrt-rtx")
    assert engine_manifest_from_json(path).precision_report.shares("fp32")[0] > 0.95


def test_no_builder_is_one_line_with_the_command_for_the_target(bundle_copy: Path) -> None:
    before = content_of(bundle_copy)
    done = export_without("tensorrt,tensorrt_rtx", "--bundle", str(bundle_copy), "--fp16")
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if line.startswith("no engine was built")]
    assert said == [
        "no engine was built: neither tensorrt nor tensorrt-rtx is installed; on the machine that "
        "will run it: "
        f"motorvae-export --model {bundle_copy} --fp16"
    ]
    assert content_of(bundle_copy) == before


def test_engine_none_builds_none_and_says_nothing_of_it(
    bundle_copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--bundle", str(bundle_copy), "--fp16", "--engine", "none"]) == 0
    assert "no engine" not in capfd.readouterr().err
    assert not (bundle_copy / "engines").exists()


@pytest.mark.parametrize("package", ["tensorrt", "tensorrt-rtx"])
def test_engine_asked_for_by_name_that_cannot_be_built_fails(
    bundle_copy: Path, package: str
) -> None:
    before = content_of(bundle_copy)
    done = export_without(
        package.replace("-", "_"), "--bundle", str(bundle_copy), "--fp16", "--engine", package
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("motorvae-export: TensorRT")
    assert f"pip install 'motorvae[{package}]'" in line
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
    assert f"--workspace-mib={text} is out of range: take 1 to" in capfd.readouterr().err


def test_engines_of_the_other_precision_stay(rtx_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(rtx_bundle, tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    before = content_of(bundle.folder)
    order = EngineBuildRequest(
        import_tensorrt("tensorrt-rtx"), NoGpu("none"), "fp32", BatchProfile()
    )
    add_engines_to_bundle(bundle, order, Console(quiet=True), on_reports=lambda _: None)
    after = content_of(bundle.folder)
    assert before.items() <= after.items()
    fp32 = [entry for entry in bundle.manifest.graphs if entry.precision == "fp32"]
    added = [entry for entry in fp32 if entry.made_for is None]  # one is for ONNX Runtime
    assert len(after) == len(before) + 2 * len(added)


def test_tensorrt_rtx_is_passed_over_for_a_gpu_that_it_does_not_list() -> None:
    rtx = import_tensorrt("tensorrt-rtx")
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
        assert not isinstance(builder, str)
        assert builder.name == "tensorrt-rtx"
    with pytest.raises((EngineError, MissingDependencyError)):
        find_builder("tensorrt" if isinstance(gpu, NoGpu) else "no such")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "1", "1,2", "0,1,2", "4,2,8", "1,1,x", "1,2,3,4", "1,1,9999"])
def test_batch_sizes_that_do_not_rise_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="give fewest,best,most"):
        profile_from_text(text)


def test_profile_reads_three_numbers() -> None:
    assert profile_from_text("1, 4,32") == BatchProfile(min=1, opt=4, max=32)
