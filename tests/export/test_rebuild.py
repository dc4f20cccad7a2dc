"""Engines built again by the real export, in a process of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from motorvae.export.rebuild import rebuild_engines
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.errors import ConfigError, StepFailedError
from motorvae.runtime.engines.gpu_info import Gpu
from motorvae.runtime.engines.open import EngineRequest
from motorvae.runtime.engines.tensorrt.build_record import RouteSettings, TriedRoute
from motorvae.runtime.engines.tensorrt.engine_manifest import engine_manifest_from_json
from motorvae.runtime.engines.tensorrt.find import check_engine
from motorvae.runtime.engines.tensorrt.package import import_tensorrt

ENCODER = GraphKey("encoder", "fp16")
REQUEST = EngineRequest(backend="tensorrt-rtx", precision="fp16")
ADA = Gpu("NVIDIA GeForce RTX 4090", "8.9", "13.0", "580.65", 24 << 30, integrated=False)


@pytest.fixture
def rtx_copy(rtx_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rtx_bundle, tmp_path / "bundle"))


def test_rebuild_runs_the_real_export(rtx_copy: Path) -> None:
    """A process builds it: the engine manifest is new, and the old one's damage is gone."""
    _, engine_manifest = ENCODER.engine_paths(rtx_copy, "tensorrt-rtx")
    engine_manifest.write_text("{", encoding="utf-8")
    bundle = rebuild_engines(load_bundle(rtx_copy), "encoder", REQUEST)
    package = import_tensorrt("tensorrt-rtx")
    rebuilt, _ = check_engine(bundle, bundle.entry(ENCODER), package, ADA)
    assert rebuilt.version == package.version


def test_rebuild_keeps_the_batch_sizes(rtx_copy: Path) -> None:
    _, engine_manifest = ENCODER.engine_paths(rtx_copy, "tensorrt-rtx")
    for path in engine_manifest.parent.glob("encoder.*.json"):
        text = path.read_text(encoding="utf-8").replace('"max": 8', '"max": 32')
        path.write_text(text, encoding="utf-8")
    rebuild_engines(load_bundle(rtx_copy), "encoder", REQUEST)
    assert engine_manifest_from_json(engine_manifest).profile.text == "1,1,32"


def test_rebuild_does_not_tune_and_says_so_where_the_old_engine_was(
    rtx_copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A stream waits for it, and many builds take long."""
    tried = TriedRoute(name="default", settings=RouteSettings(), verdict="kept").model_dump()
    for path in (rtx_copy / "engines").glob("encoder.*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"routes": [tried]}))
    rebuild_engines(load_bundle(rtx_copy), "encoder", REQUEST)
    said = " ".join(capfd.readouterr().err.split())
    assert said.endswith(
        f"the old engine was tuned, the new one is not; to tune it: motorvae-export --model "
        f"{rtx_copy} --engine tensorrt-rtx --fp16 --batch 1,1,8 --tune"
    )
    rebuild_engines(load_bundle(rtx_copy), "encoder", REQUEST)
    assert "to tune it" not in capfd.readouterr().err


def test_failed_rebuild_is_not_passed_over(rtx_copy: Path) -> None:
    (rtx_copy / "engines" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(StepFailedError, match="failed with exit code 1"):
        rebuild_engines(load_bundle(rtx_copy), "encoder", REQUEST)


def test_without_a_package_there_is_nothing_to_build(rtx_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="backend=auto builds no engine: name tensorrt"):
        rebuild_engines(load_bundle(rtx_bundle), "encoder", EngineRequest())
