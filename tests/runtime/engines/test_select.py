"""Which engine runs. The GPU facts are made up; packages, engines and engine manifests are real."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.bundle.graph_key import GraphKey, Part, Precision
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.cli import stream_main
from motorvae.runtime.core.errors import (
    BackendError,
    ConfigError,
    EngineError,
    MissingDependencyError,
    ProviderError,
    StepFailedError,
)
from motorvae.runtime.encode_cli import encode_main
from motorvae.runtime.engines import select as choice
from motorvae.runtime.engines.gpu_info import Gpu, NoGpu, find_gpu
from motorvae.runtime.engines.open import BackendName, EngineRequest
from motorvae.runtime.engines.select import SelectedEngine, select_engine
from motorvae.runtime.engines.tensorrt.find import check_engine
from motorvae.runtime.engines.tensorrt.package import import_tensorrt

ENCODER = GraphKey("encoder", "fp16")
ADA = Gpu("NVIDIA GeForce RTX 4090", "8.9", "13.0", "580.65", 24 << 30, integrated=False)
ORIN = Gpu("Orin", "8.7", "12.6", "540.4", 8 << 30, integrated=True)

ChangeManifest = Callable[[Path, Callable[[dict[str, Any]], object]], None]

without_gpu = pytest.mark.skipif(
    isinstance(find_gpu(), Gpu), reason="says what is said without a GPU, and here is one"
)


@pytest.fixture
def rtx_copy(rtx_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rtx_bundle, tmp_path / "bundle"))


def test_onnx_runtime_on_a_cpu_takes_the_decoder_that_is_made_for_it(rtx_bundle: Path) -> None:
    bundle = load_bundle(rtx_bundle)
    phases = GraphKey("decoder", variant="phases")
    own = replace(phases, target="onnx")
    chosen = select_engine(bundle, "decoder", EngineRequest(backend="onnx", provider="cpu"))
    with chosen.backend as backend:
        assert backend.run(np.zeros((1, 8), np.float32))["reconstruction"].shape[0] == 1
    assert chosen.sha256 == bundle.entry(own).sha256
    # Every other engine, and ONNX Runtime on a GPU, where nobody has timed it: the one for all.
    for target in ("openvino", "tensorrt", None):
        assert bundle.leanest(replace(phases, target=target)).key == phases
    assert bundle.leanest(own, on_cpu=False).key == phases
    assert bundle.leanest(own).key == own


def test_a_bundle_without_a_decoder_made_for_onnx_runtime_runs_the_one_for_all(
    rtx_copy: Path, change_manifest: ChangeManifest
) -> None:
    """As earlier versions wrote them."""

    def without_own(manifest: dict[str, Any]) -> None:
        manifest["graphs"] = [
            graph for graph in manifest["graphs"] if graph["file"] != "decoder.phases.onnx.onnx"
        ]

    change_manifest(rtx_copy, without_own)
    (rtx_copy / "decoder.phases.onnx.onnx").unlink()
    bundle = load_bundle(rtx_copy)
    chosen = select_engine(bundle, "decoder", EngineRequest(backend="onnx", provider="cpu"))
    chosen.backend.close()
    assert chosen.sha256 == bundle.entry(GraphKey("decoder", variant="phases")).sha256


@without_gpu
def test_auto_without_a_gpu_runs_on_the_cpu_and_says_why(rtx_bundle: Path) -> None:
    bundle = load_bundle(rtx_bundle)
    chosen = select_engine(bundle, "encoder", EngineRequest())
    with chosen.backend as backend:
        side = bundle.spec.image_size
        assert backend.run(np.zeros((1, 1, side, side), np.float32))["mu"].shape == (1, 8)
    assert chosen.precision == "fp32"
    assert "CPUExecutionProvider" in chosen.chosen
    assert re.fullmatch(r"; not on a GPU: no NVIDIA driver \(.*\)", chosen.remarks)


@without_gpu
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_engine_asked_for_by_name_without_a_gpu_is_an_error(rtx_bundle: Path, name: str) -> None:
    with pytest.raises(EngineError, match=r"no NVIDIA driver .*; run it on the machine with"):
        select_engine(load_bundle(rtx_bundle), "encoder", EngineRequest(backend=name))  # type: ignore[arg-type]


def test_onnx_by_name_needs_no_reason(rtx_bundle: Path) -> None:
    chosen = select_engine(load_bundle(rtx_bundle), "encoder", EngineRequest(backend="onnx"))
    with chosen.backend:
        assert chosen.remarks == ""


def test_provider_asks_for_onnx_runtime_and_nothing_else(rtx_bundle: Path) -> None:
    with pytest.raises(ProviderError, match="no-such"):
        select_engine(load_bundle(rtx_bundle), "encoder", EngineRequest(provider="no-such"))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"backend": "tensorrt", "provider": "cuda"}, "--provider is for ONNX Runtime"),
        ({"backend": "tensorrt-rtx", "threads": 2}, "--threads is for CPUs"),
        ({"backend": "onnx", "rebuild": True}, "--rebuild builds a TensorRT engine"),
        ({"provider": "cuda", "rebuild": True}, "--rebuild builds a TensorRT engine"),
        ({"backend": "openvino", "rebuild": True}, "--rebuild builds a TensorRT engine"),
        ({"backend": "openvino", "provider": "cpu"}, "--provider is for ONNX Runtime"),
        ({"backend": "openvino", "precision": "fp16"}, "FP16 graphs are verified for TensorRT"),
        ({"backend": "onnx", "precision": "bf16"}, "ONNX Runtime does not compute in bf16"),
        ({"provider": "cpu", "precision": "bf16"}, "ONNX Runtime does not compute in bf16"),
        ({"provider": ""}, "provider='': name one"),
        ({"backend": "tensorrt", "provider": ""}, "provider='': name one"),
        ({"backend": "tensorrt", "threads": 0}, "--threads is for CPUs"),
    ],
)
def test_contradicting_requests_are_refused(asked: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        EngineRequest(**asked)  # type: ignore[arg-type]


def test_auto_on_a_gpu_goes_through_the_order_and_quotes_each_reason(
    rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "find_gpu", lambda: ORIN)
    chosen = select_engine(load_bundle(rtx_bundle), "encoder", EngineRequest())
    with chosen.backend:
        assert "CPUExecutionProvider" in chosen.chosen
    names = [reason.partition(":")[0] for reason in chosen.passed_over]
    assert names == ["tensorrt", "tensorrt-rtx", "onnx on cuda"]
    assert "holds no TensorRT engine of its encoder" in chosen.passed_over[0]
    assert "does not list compute capability 8.7 (Orin)" in chosen.passed_over[1]


def test_auto_passes_over_a_foreign_engine_and_names_the_command_that_builds_it_here(
    rtx_copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(choice, "find_gpu", lambda: ADA)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # as a user who did not build it
    chosen = select_engine(load_bundle(rtx_copy), "encoder", EngineRequest())
    with chosen.backend:
        assert "CPUExecutionProvider" in chosen.chosen
    assert chosen.passed_over[1] == (
        "tensorrt-rtx: encoder.luma.fp16.tensorrt-rtx.engine was not built by this machine (this "
        f"machine has no key yet, and so it has built none), and its bundle is not signed: run "
        f"motorvae-export --model {rtx_copy} --engine tensorrt-rtx --fp16 here, or add --rebuild"
    )


@pytest.mark.parametrize("asked", [None, "fp16"])
def test_an_int8_engine_is_not_taken_unasked_though_it_is_the_only_one(
    asked: Precision | None, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latents of eight bits are other ones."""
    monkeypatch.setattr(choice, "find_gpu", lambda: ADA)
    for path in GraphKey("encoder", "int8", "mu").engine_paths(bundle_copy, "tensorrt-rtx"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    chosen = select_engine(load_bundle(bundle_copy), "encoder", EngineRequest(precision=asked))
    chosen.backend.close()
    assert chosen.precision == (asked or "fp32")
    assert "holds no TensorRT-RTX engine of its encoder" in chosen.passed_over[1]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_precision_that_the_gpu_way_has_not_is_sought_on_the_cpu(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    monkeypatch.setattr(choice, "find_gpu", lambda: ORIN)
    bundle = load_bundle(small_bundle)
    tried: list[str] = []

    def refuses(_selection: object, *way: str) -> SelectedEngine:
        tried.append(" ".join(way))
        raise BackendError("far enough")

    monkeypatch.setattr(choice._Selection, "graph", refuses)
    with pytest.raises(BackendError, match="far enough"):
        select_engine(bundle, "encoder", EngineRequest(precision=precision))
    assert tried[0] == "onnx cuda"
    assert len(tried) > 1
    assert tried[1] == "openvino" or precision == "int8"


def test_stream_in_openvino_of_what_was_not_verified_there_says_so(
    bundle_copy: Path, change_manifest: ChangeManifest
) -> None:
    pytest.importorskip("openvino")
    asked = EngineRequest(backend="openvino", outputs=("mu",))
    verified = select_engine(load_bundle(bundle_copy), "encoder", asked)
    verified.backend.close()
    assert "verified" not in verified.remarks

    def as_without_openvino(manifest: dict[str, Any]) -> None:
        manifest["verification"] = [
            report
            for report in manifest["verification"]
            if not report["engine"].startswith("OpenVINO")
        ]

    change_manifest(bundle_copy, as_without_openvino)
    unverified = select_engine(load_bundle(bundle_copy), "encoder", asked)
    unverified.backend.close()
    assert unverified.remarks.endswith(
        "; this graph was not verified in OpenVINO when the bundle was made"
    )


ENGINE, PASSPORT = 0, 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda pair: pair[ENGINE].unlink(), r"has no encoder\.fp16\.tensorrt-rtx\.engine"),
        (lambda pair: pair[PASSPORT].unlink(), r"has no encoder\.fp16\.tensorrt-rtx\.json"),
        (lambda pair: pair[ENGINE].write_bytes(b"short"), "has 5 bytes, and its engine manifest"),
        (lambda pair: flip(pair[ENGINE]), "was altered after it was built"),
        (lambda pair: pair[PASSPORT].write_text("{"), "is not JSON"),
        (lambda pair: take_the_decoders(pair[PASSPORT]), "describes decoder fp16 tensorrt-rtx"),
        (lambda pair: say_float32(pair[PASSPORT]), r"engine is not fp16: 0\.\d+% of weights"),
    ],
)
def test_engine_is_checked_before_it_is_loaded(
    rtx_copy: Path, change: Callable[[tuple[Path, Path]], object], says: str
) -> None:
    bundle, package = load_bundle(rtx_copy), import_tensorrt("tensorrt-rtx")
    engine_manifest, plan = check_engine(bundle, bundle.entry(ENCODER), package, ADA)
    assert engine_manifest.precision == "fp16"
    assert plan.content == ENCODER.engine_paths(rtx_copy, "tensorrt-rtx")[ENGINE].read_bytes()
    change(ENCODER.engine_paths(rtx_copy, "tensorrt-rtx"))
    with pytest.raises(EngineError, match=says) as caught:
        check_engine(bundle, bundle.entry(ENCODER), package, ADA)
    assert str(caught.value).endswith(
        f": run motorvae-export --model {rtx_copy} --engine tensorrt-rtx --fp16 here, or add "
        "--rebuild"
    )


def take_the_decoders(engine_manifest: Path) -> None:
    shutil.copy(engine_manifest.with_name("decoder.fp16.tensorrt-rtx.json"), engine_manifest)


def say_float32(engine_manifest: Path) -> None:
    text = engine_manifest.read_text(encoding="utf-8")
    text = text.replace('"fp32":', '"fp8":').replace('"fp16":', '"fp32":')
    engine_manifest.write_text(text, encoding="utf-8")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_engine_of_another_gpu_is_one_sentence_with_the_way_out(rtx_copy: Path) -> None:
    bundle, package = load_bundle(rtx_copy), import_tensorrt("tensorrt-rtx")
    with pytest.raises(EngineError) as caught:
        check_engine(bundle, bundle.entry(ENCODER), package, ORIN)
    assert str(caught.value) == (
        f"engine built for TensorRT-RTX {package.version} on compute capability "
        f"{', '.join(package.portable_capabilities())}; this machine has {package.version} on 8.7: "
        f"run motorvae-export --model {rtx_copy} --engine tensorrt-rtx --fp16 here, or add "
        "--rebuild"
    )


def test_engine_of_an_earlier_export_is_refused(rtx_copy: Path) -> None:
    """The graph in the bundle is another one than the engine was built from."""
    bundle, package = load_bundle(rtx_copy), import_tensorrt("tensorrt-rtx")
    for suffix in ("engine", "json"):
        shutil.copy(
            rtx_copy / "engines" / f"encoder.fp16.tensorrt-rtx.{suffix}",
            rtx_copy / "engines" / f"encoder.fp32.tensorrt-rtx.{suffix}",
        )
    path = rtx_copy / "engines" / "encoder.fp32.tensorrt-rtx.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"precision": "fp16"', '"precision": "fp32"'), encoding="utf-8")
    with pytest.raises(EngineError, match="engine built from another encoder"):
        check_engine(bundle, bundle.entry(GraphKey("encoder")), package, ADA)


@pytest.mark.parametrize("backend", ["auto", "tensorrt-rtx"])
def test_an_engine_that_does_not_fit_is_built_again_by_whoever_can(
    rtx_copy: Path, monkeypatch: pytest.MonkeyPatch, backend: BackendName
) -> None:
    """The damage is undone by hand, and the engine then gets as far as the driver."""
    engine, _ = ENCODER.engine_paths(rtx_copy, "tensorrt-rtx")
    for path in rtx_copy.glob("engines/encoder.*.engine"):
        path.with_suffix(".whole").write_bytes(path.read_bytes())
        path.write_bytes(b"damaged")
    asked: list[tuple[str, EngineRequest]] = []

    def rebuild(_bundle: Bundle, part: Part, request: EngineRequest) -> Bundle:
        asked.append((part, request))
        raise StepFailedError("far enough")

    monkeypatch.setattr(choice, "find_gpu", lambda: ADA)
    request = EngineRequest(backend=backend, rebuild=True)
    with pytest.raises(StepFailedError, match="far enough"):
        select_engine(load_bundle(rtx_copy), "encoder", request, rebuild)
    named = replace(request, backend="tensorrt-rtx", precision="fp16")
    assert asked == [("encoder", named)]
    assert engine.read_bytes() == b"damaged"


def test_nothing_here_builds_engines(rtx_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="nothing here builds engines"):
        select_engine(load_bundle(rtx_bundle), "encoder", EngineRequest(rebuild=True))


@without_gpu
def test_good_engine_gets_as_far_as_the_driver(
    rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything before the driver holds; the driver itself is what is missing here."""
    monkeypatch.setattr(choice, "find_gpu", lambda: ADA)
    with pytest.raises((BackendError, MissingDependencyError)) as caught:
        select_engine(load_bundle(rtx_bundle), "encoder", EngineRequest(backend="tensorrt-rtx"))
    assert not isinstance(caught.value, EngineError)


@without_gpu
def test_first_line_of_both_commands_says_what_runs_and_why(
    rtx_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gpu = find_gpu()
    assert isinstance(gpu, NoGpu)
    rows = str(tmp_path / "latents.jsonl")
    args = ["--camera", "synthetic", "--max-frames", "1", "--model", str(rtx_bundle)]
    assert stream_main([*args, "--output", rows]) == 0
    first = capfd.readouterr().err.splitlines()[0]
    assert first.startswith("synthetic -> fp32 mu only ONNX Runtime ")
    assert f" -> {rows}; not on a GPU: {gpu.reason}; " in first
    image = tmp_path / "image.png"
    import cv2

    cv2.imwrite(str(image), np.zeros((32, 32), np.uint8))
    latents = str(tmp_path / "latents.npz")
    assert encode_main([str(image), "--model", str(rtx_bundle), "--output", latents]) == 0
    assert f"not on a GPU: {gpu.reason}" in capfd.readouterr().err
