from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnxruntime.quantization.calibrate import TensorsData

from motorvae.export.bundle import add_to_bundle
from motorvae.export.cli import main
from motorvae.export.int8 import graphs as int8
from motorvae.export.int8.graphs import Searched
from motorvae.export.int8.search import MOST_FINALISTS
from motorvae.export.tables import search_table
from motorvae.export.verify.limits import LIMITS
from motorvae.runtime.bundle.graph_key import GraphKey, Target
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.bundle.manifest import GraphReport
from motorvae.runtime.core.errors import BackendError, BundleError, MissingDependencyError
from motorvae.runtime.engines.open import open_engine

ONNX: tuple[Target, ...] = ("onnx",)


@pytest.fixture
def fp32_copy(int8_bundle: Path, tmp_path: Path) -> Path:
    """The same model's bundle without its INT8 graphs."""
    copy = tmp_path / "bundle"
    shutil.copytree(int8_bundle, copy)
    manifest = load_bundle(copy).manifest
    kept = [entry for entry in manifest.graphs if entry.precision == "fp32"]
    for entry in manifest.graphs:
        if entry not in kept:
            (copy / entry.file).unlink()
    reports = [report for report in manifest.verification if report.precision == "fp32"]
    changed = manifest.model_copy(update={"graphs": tuple(kept), "verification": tuple(reports)})
    (copy / "manifest.json").write_text(changed.model_dump_json())
    load_bundle(copy)
    return copy


def test_bundle_has_a_set_for_each_kind_of_engine_and_says_how_it_was_calibrated(
    int8_bundle: Path,
) -> None:
    bundle = load_bundle(int8_bundle)
    entries = [entry for entry in bundle.manifest.graphs if entry.precision == "int8"]
    assert [entry.file for entry in entries] == [
        "encoder.luma.int8.onnx.onnx",
        "encoder.mu.int8.onnx.onnx",
        "decoder.phases.int8.onnx.onnx",
        "encoder.luma.int8.openvino.onnx",
        "encoder.mu.int8.openvino.onnx",
        "decoder.phases.int8.openvino.onnx",
        "encoder.luma.int8.tensorrt.onnx",
        "encoder.mu.int8.tensorrt.onnx",
        "decoder.phases.int8.tensorrt.onnx",
    ]
    for entry in entries:
        found = entry.calibration
        assert found is not None
        assert (found.origin, found.images) == ("held-out", 16)
        assert (found.chosen, found.judged) == (16, 16)
        assert 1 <= found.finalists <= MOST_FINALISTS
        assert (found.percentile is None) == (found.method == "min-max")
        reports = [r for r in bundle.manifest.verification if r.title == entry.title]
        assert reports
        assert all(report.passed and report.images == 16 for report in reports)
        if entry.made_for == "tensorrt":
            assert all("not TensorRT" in report.engine for report in reports)
            assert ("features.0" in found.excluded) or entry.graph == "decoder"


def test_mu_alone_is_the_mu_of_the_encoder_that_gives_both(int8_bundle: Path) -> None:
    bundle = load_bundle(int8_bundle)
    luma = np.random.default_rng(0).integers(0, 256, (3, 1, 32, 32), np.uint8)
    found = []
    for variant in ("luma", "mu"):
        entry = bundle.entry(GraphKey("encoder", "int8", variant, "onnx"))
        with open_engine(bundle, entry.key) as backend:
            found.append(backend.run(luma)["mu"])
    np.testing.assert_array_equal(found[0], found[1])


def test_search_reads_back_as_a_table_and_keeps_what_it_shows(
    fp32_copy: Path,
) -> None:
    kept: list[Searched] = []

    def keep(_reports: Sequence[GraphReport], searched: Sequence[Searched]) -> None:
        kept.extend(searched)

    steps: list[str] = []
    add_to_bundle(
        load_bundle(fp32_copy), ["int8"], targets=ONNX, on_reports=keep, on_step=steps.append
    )
    (encoder, decoder) = kept
    assert all(trial.passed for trial in (encoder.trials[-1], decoder.trials[-1]))
    entry = load_bundle(fp32_copy).entry(GraphKey("encoder", "int8", "luma", "onnx"))
    assert entry.calibration is not None
    assert entry.calibration.percentile == encoder.trials[-1].method.percentile
    screened = [t.share for t in encoder.trials if t.judges == "some" and not t.excluded]
    cells = [*search_table(kept).columns[1].cells]
    assert cells[: len(screened)] == [f"{share:.0%}" for share in screened]
    assert entry.calibration.equalised
    assert {trial.method.equalised for trial in decoder.trials} == {False, True}
    assert cells[-6:-4] == [encoder.trials[-1].method.ends, "yes"]
    assert cells[-2:] == [f"{encoder.trials[-1].share:.0%}", "kept"]
    assert "ranges inside the encoder: image 16 of 16" in steps
    asked = {(): "all needed", ("features.3: 32 of 64",): "features.3\n32 of 64"}
    for channels, cell in asked.items():
        (names, of_encoder, of_decoder) = (
            [*column.cells]
            for column in search_table([replace(encoder, channels=channels), decoder]).columns
        )
        row = names.index("channels")
        assert (of_encoder[row], of_decoder[row]) == (cell, "")
    assert "channels" not in search_table(kept).columns[0].cells


def test_same_bundle_gives_the_same_int8_bytes(fp32_copy: Path, int8_bundle: Path) -> None:
    add_to_bundle(load_bundle(fp32_copy), ["int8"], targets=ONNX, on_reports=lambda *_: None)
    again = [*fp32_copy.glob("*.int8.*")]
    assert len(again) == 3
    for path in again:
        assert path.read_bytes() == (int8_bundle / path.name).read_bytes()


def spoil_spread(folder: Path) -> None:
    """Let latents vary so little over the data that any error of INT8 is many spreads."""
    with np.load(folder / "latents.npz") as content:
        arrays = dict(content)
    arrays["covariance"] = 1e-6 * arrays["covariance"]
    arrays["mu_deviation"] = 1e-3 * arrays["mu_deviation"]
    arrays["posterior_variance_mean"] = 1e-6 * arrays["posterior_variance_mean"]
    np.savez(folder / "latents.npz", **arrays)


def test_encoder_that_cannot_pass_leaves_out_its_set_and_the_bundle_stands(
    fp32_copy: Path,
) -> None:
    bundle = load_bundle(fp32_copy)
    before = bundle.manifest.graphs
    (fp32_copy / "candidate.onnx").unlink(missing_ok=True)
    statistics = (fp32_copy / "latents.npz").read_bytes()
    spoil_spread(fp32_copy)
    shown: list[GraphReport] = []
    searched: list[Searched] = []
    (left_out,) = add_to_bundle(
        bundle,
        ["int8"],
        targets=ONNX,
        on_reports=lambda reports, trials: (shown.extend(reports), searched.extend(trials)),
    )
    assert left_out.key == GraphKey("encoder", "int8", "luma", "onnx")
    assert "the INT8 graphs for onnx are left out: encoder int8 luma for onnx mu: max error" in (
        left_out.sentence
    )
    assert shown == [*left_out.failed]
    assert [one.passed for one in searched] == [False]  # its decoder is of no use
    assert [*search_table(searched).columns[1].cells][-1] == "LEFT OUT"
    again = load_bundle(fp32_copy)
    assert again.manifest.graphs == before
    assert not [*fp32_copy.glob("*.int8.*"), *fp32_copy.glob("candidate*")]
    assert (fp32_copy / "latents.npz").read_bytes() != statistics


def test_decoder_that_cannot_pass_leaves_its_encoder_and_the_other_engines(
    fp32_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the image's limit is out of reach: rows come from the encoder alone."""
    monkeypatch.setitem(LIMITS, "int8", replace(LIMITS["int8"], psnr_db=200.0))
    left_out = add_to_bundle(
        load_bundle(fp32_copy),
        ["int8"],
        targets=("onnx", "tensorrt"),
        on_reports=lambda *_: None,
    )
    assert [part.key.title for part in left_out] == [
        "decoder int8 phases for onnx",
        "decoder int8 phases for tensorrt",
    ]
    assert "its encoder is there: decoder int8 phases for onnx reconstruction: PSNR" in (
        left_out[0].sentence
    )
    manifest = load_bundle(fp32_copy).manifest
    assert [entry.file for entry in manifest.graphs if entry.precision == "int8"] == [
        "encoder.luma.int8.onnx.onnx",
        "encoder.mu.int8.onnx.onnx",
        "encoder.luma.int8.tensorrt.onnx",
        "encoder.mu.int8.tensorrt.onnx",
    ]
    assert not [*fp32_copy.glob("decoder*.int8.*")]
    assert all(report.passed for report in manifest.verification)
    made = [report for report in manifest.verification if report.precision == "int8"]
    assert any("cannot be estimated from so few" in note for note in made[0].notes)
    # What a stream that reconstructs is told: --int8 onnx would answer that it is there already.
    with pytest.raises(BundleError, match=r"no decoder int8 for onnx.*checkpoint again with other"):
        load_bundle(fp32_copy).leanest(GraphKey("decoder", "int8", target="onnx"))
    with pytest.raises(BundleError, match=r"motorvae-export --model .* --int8 openvino$"):
        load_bundle(fp32_copy).leanest(GraphKey("decoder", "int8", target="openvino"))


def test_one_engine_is_left_out_with_exit_code_1_and_the_rest_is_there(
    fp32_copy: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: graphs for one kind of engine have their weights' scales doubled."""
    whole = int8.int8_from_fp32

    def wrong(model: ir.Model, ranges: TensorsData, runner: Target, **rest: Any) -> ir.Model:
        made = whole(model, ranges, runner, **rest)
        if runner == "openvino":
            for value in made.graph.initializers.values():
                if str(value.name).endswith("weight_scale"):
                    value.const_value = ir.tensor(2 * value.const_value.numpy(), name=value.name)
        return made

    monkeypatch.setattr(int8, "int8_from_fp32", wrong)
    args = ["--bundle", str(fp32_copy), "--int8", "onnx,openvino", "--fp16", "--engine", "none"]
    assert main(args) == 1
    printed = capfd.readouterr().err
    last = printed.splitlines()[-1]
    assert "is there, but not all of it: the INT8 graphs for openvino are left out" in last
    assert "limit 0.25" in last
    assert "--calibration" in last
    assert "FP16 and INT8 graphs added" in printed
    manifest = load_bundle(fp32_copy).manifest
    made = {(entry.precision, entry.made_for) for entry in manifest.graphs}
    assert made == {("fp32", None), ("fp16", None), ("int8", "onnx")}
    monkeypatch.undo()
    assert main(["--bundle", str(fp32_copy), "--int8", "onnx", "openvino", "--engine", "none"]) == 0
    assert "has INT8 graphs for onnx already" in capfd.readouterr().err
    made = {(entry.precision, entry.made_for) for entry in load_bundle(fp32_copy).manifest.graphs}
    assert ("int8", "openvino") in made


def test_bf16_lists_the_float_files_where_openvino_computes_it(fp32_copy: Path) -> None:
    before = {path.name for path in fp32_copy.iterdir()}
    try:
        add_to_bundle(load_bundle(fp32_copy), ["bf16"], on_reports=lambda *_: None)
    except (MissingDependencyError, BackendError) as error:
        pytest.skip(f"no bf16 here: {error}")
    bundle = load_bundle(fp32_copy)
    assert {path.name for path in fp32_copy.iterdir()} == before
    entries = [entry for entry in bundle.manifest.graphs if entry.precision == "bf16"]
    assert [entry.file for entry in entries] == [
        "encoder.onnx",
        "encoder.mu.onnx",
        "decoder.phases.onnx",
    ]
    assert {entry.made_for for entry in entries} == {"openvino"}
    reports = [r for r in bundle.manifest.verification if r.precision == "bf16"]
    assert all(report.engine.startswith("OpenVINO") for report in reports)
    # It was computed in bf16: float32's errors are a thousand times smaller.
    errors = [m.value for m in reports[0].metrics if m.name == "RMS error / spread over data"]
    assert errors[0] > 1e-4


NO_OPENVINO = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"openvino", "torch"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
from motorvae.export.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run_without_openvino(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", NO_OPENVINO, *args],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100"},
    )


def test_without_openvino_int8_is_verified_elsewhere_and_says_so(fp32_copy: Path) -> None:
    done = run_without_openvino(
        "--bundle", "bundle", "--int8", "--engine", "none", cwd=fp32_copy.parent
    )
    assert done.returncode == 0, done.stderr
    assert "INT8 graphs added to bundle" in done.stderr
    assert "needs the package openvino, which is not installed" in done.stderr
    reports = load_bundle(fp32_copy).manifest.verification
    of_openvino = {report.engine for report in reports if report.made_for == "openvino"}
    assert of_openvino
    assert all(engine.startswith("ONNX Runtime") for engine in of_openvino)
    again = run_without_openvino(
        "--bundle", "bundle", "--int8", "--engine", "none", cwd=fp32_copy.parent
    )
    assert "bundle has INT8 graphs already" in again.stderr


def test_without_openvino_bf16_is_refused_in_one_line(fp32_copy: Path) -> None:
    before = (fp32_copy / "manifest.json").read_bytes()
    done = run_without_openvino("--bundle", "bundle", "--bf16", cwd=fp32_copy.parent)
    assert done.returncode == 1
    assert len([line for line in done.stderr.splitlines() if not line.endswith(" ...")]) == 1
    assert "pip install 'motorvae[openvino]', or leave out --bf16" in done.stderr
    assert (fp32_copy / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--int8", "--calibration", "nowhere"], "no such source: 'nowhere'"),
        (["--int8", "--calibration", "synthetic"], "synthetic is live and has no end"),
        (["--calibration", "images"], "is for INT8 graphs: add --int8"),
        (["--int8", "--calibration", "."], "no image in ."),
        (
            ["--int8", "onnx", "tflite"],
            "--int8 tflite: no such engine, name some of onnx, openvino",
        ),
    ],
    ids=str,
)
def test_calibration_that_cannot_be_gets_one_line(
    args: list[str],
    said: str,
    fp32_copy: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(fp32_copy)
    assert main(["--bundle", str(fp32_copy), "--engine", "none", *args]) == 1
    captured = capfd.readouterr()
    (line,) = [line for line in captured.err.splitlines() if not line.endswith(" ...")]
    assert said in line
