from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.core.errors import EngineError
from motorvae.runtime.engines.gpu_info import Gpu
from motorvae.runtime.engines.tensorrt.engine_manifest import (
    BatchProfile,
    EngineManifest,
    PrecisionReport,
    engine_manifest_from_json,
    this_platform,
)
from motorvae.runtime.engines.tensorrt.package import TensorRTPackage

ENCODER = GraphKey("encoder", "fp16")
ORIN = Gpu("Orin", "8.7", "12.6", "540.4", 8 << 30, integrated=True)
ADA = Gpu("NVIDIA GeForce RTX 4090", "8.9", "13.0", "580.65", 24 << 30, integrated=False)


def tensorrt(version: str) -> TensorRTPackage:
    return TensorRTPackage("tensorrt", None, version)


@pytest.fixture
def engine_manifest(rtx_bundle: Path) -> EngineManifest:
    """As if TensorRT 10.3 had built it on an Orin."""
    real = engine_manifest_from_json(
        GraphKey("encoder", "fp16").engine_paths(rtx_bundle, "tensorrt-rtx")[1]
    )
    return real.model_copy(
        update={
            "package": "tensorrt",
            "version": "10.3.0",
            "compute_capabilities": ("8.7",),
            "gpu": ORIN.name,
        }
    )


def test_engine_fits_where_it_was_built(engine_manifest: EngineManifest) -> None:
    assert engine_manifest.mismatch(tensorrt("10.3.0"), ORIN, engine_manifest.onnx_sha256) is None


@pytest.mark.parametrize(
    ("version", "gpu", "has"),
    [
        ("10.16.1", ADA, "10.16.1 on 8.9"),
        ("10.3.0", ADA, "10.3.0 on 8.9"),
        ("10.16.1", ORIN, "10.16.1 on 8.7"),
    ],
)
def test_mismatch_is_one_sentence(
    engine_manifest: EngineManifest, version: str, gpu: Gpu, has: str
) -> None:
    assert engine_manifest.mismatch(tensorrt(version), gpu, engine_manifest.onnx_sha256) == (
        f"engine built for TensorRT 10.3.0 on compute capability 8.7; this machine has {has}"
    )


def test_other_processor_is_named(engine_manifest: EngineManifest) -> None:
    foreign = engine_manifest.model_copy(update={"platform": "linux-riscv64"})
    said = foreign.mismatch(tensorrt("10.3.0"), ORIN, engine_manifest.onnx_sha256) or ""
    assert "(linux-riscv64)" in said
    assert said.endswith(f"({this_platform()})")


def test_other_graph_comes_first(engine_manifest: EngineManifest) -> None:
    said = engine_manifest.mismatch(tensorrt("10.16.1"), ADA, "0" * 64) or ""
    assert said.startswith("engine built from another encoder (sha256 ")


def test_portable_engine_fits_each_of_its_gpus(rtx_bundle: Path) -> None:
    real = engine_manifest_from_json(
        GraphKey("encoder", "fp16").engine_paths(rtx_bundle, "tensorrt-rtx")[1]
    )
    here = TensorRTPackage("tensorrt-rtx", None, real.version)
    assert real.mismatch(here, ADA, real.onnx_sha256) is None
    turing = replace(ADA, compute_capability="7.5")
    assert "this machine has" in (real.mismatch(here, turing, real.onnx_sha256) or "")
    assert "TensorRT-RTX" in (real.mismatch(here, turing, real.onnx_sha256) or "")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not JSON"),
        ("[]", "schema_version=None"),
        ('{"schema_version": 1}', "schema_version=1, and this motorVAE reads 5"),
        ('{"schema_version": 3}', "producer"),
    ],
)
def test_broken_engine_manifest_is_one_clear_line(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "encoder.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(EngineError, match=says):
        engine_manifest_from_json(path)


def test_missing_engine_manifest_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot read .*: No such file"):
        engine_manifest_from_json(tmp_path / "encoder.json")


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"package": "openvino"},
        {"variant": "small"},
        {"onnx_sha256": "short"},
        {"build_seconds": -1},
    ],
)
def test_engine_manifest_that_does_not_fit_its_schema_is_refused(
    rtx_bundle: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    source = GraphKey("encoder", "fp16").engine_paths(rtx_bundle, "tensorrt-rtx")[1]
    content = json.loads(source.read_text(encoding="utf-8")) | change
    path = tmp_path / "encoder.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(EngineError, match=next(iter(change))):
        engine_manifest_from_json(path)


def test_profile_must_rise() -> None:
    with pytest.raises(ValidationError, match="do not rise"):
        BatchProfile(min=2, opt=1, max=8)


def test_receipt_shares_are_by_number_of_values() -> None:
    precision_report = PrecisionReport(
        weights={"fp16": 3, "fp32": 1},
        weights_from="engine file",
        outputs={},
        outputs_from="typed network",
        multiplications={"int8": 7, "fp32": 1},
        multiplications_from="engine file",
        asked={"int8": 8},
    )
    assert precision_report.shares("fp16") == (0.75, 0.0)
    assert precision_report.shares("fp32") == (0.25, 0.0)
    assert precision_report.sentence("fp16") == (
        "75.00% of weights (engine file) and 0.00% of layer outputs (typed network) are fp16"
    )
    assert precision_report.sentence("int8") == "87.50% of multiplications (engine file) are int8"
    assert (
        precision_report.problem_with("int8")
        == f"{precision_report.sentence('int8')}, and the label needs 95%"
    )
