"""Build routes, INT8 against FP16, and DLA on real hardware: nothing else proves them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from motorvae.export.tensorrt.add_engines import add_engines_to_bundle
from motorvae.export.tensorrt.build import EngineBuildRequest
from motorvae.export.tensorrt.dla import DlaRequest, check_dla
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.core.errors import BackendError, EngineError, MissingDependencyError
from motorvae.runtime.engines.gpu_info import Gpu, NoGpu, find_gpu
from motorvae.runtime.engines.open import EngineRequest, open_cuda
from motorvae.runtime.engines.select import select_engine
from motorvae.runtime.engines.tensorrt.engine_manifest import (
    BatchProfile,
    EngineManifest,
    engine_manifest_from_json,
)
from motorvae.runtime.engines.tensorrt.package import TensorRTPackage, import_tensorrt

from ..export.engine_graphs import add_form
from .test_engines_gpu import told_by_onnx_runtime

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    found = find_gpu()
    if isinstance(found, NoGpu):
        pytest.skip(f"needs an NVIDIA GPU, and there is {found.reason}")
    return found


@pytest.fixture(scope="module")
def package(gpu: Gpu) -> TensorRTPackage:
    """TensorRT, and a device layer that runs its engines."""
    assert gpu
    try:
        found = import_tensorrt("tensorrt")
        with open_cuda():
            return found
    except (BackendError, MissingDependencyError) as error:
        pytest.skip(str(error))


@pytest.fixture
def bundle(gpu: Gpu, small_bundle: Path, tmp_path: Path) -> Bundle:
    assert gpu
    shutil.copytree(small_bundle, tmp_path / "bundle")
    for variant in ("luma", "mu"):
        add_form(tmp_path / "bundle", "encoder", "int8", variant)  # type: ignore[arg-type]
    return load_bundle(tmp_path / "bundle")


def added(bundle: Bundle, request: EngineBuildRequest) -> tuple[EngineManifest, ...]:
    """Build engines, each held against its own graph in ONNX Runtime, as so small a model needs."""
    with np.load(bundle.folder / "verification.npz") as held:
        images = held["images"]
    told = told_by_onnx_runtime(bundle, request.precision, images)
    return add_engines_to_bundle(
        bundle, request, Console(quiet=True), on_reports=lambda _: None, reference=told
    )


def test_routes_compete_and_one_is_kept(bundle: Bundle, package: TensorRTPackage, gpu: Gpu) -> None:
    request = EngineBuildRequest(package, gpu, "fp16", BatchProfile(), tune_minutes=1)
    for manifest in added(bundle, request):
        verdicts = [route.verdict for route in manifest.routes]
        assert manifest.routes[0].name == "default"
        assert verdicts.count("kept") == 1
        assert len(verdicts) > 3
        assert "failed" not in verdicts[:4], manifest.routes  # our own are for every release
        assert all(route.times for route in manifest.routes[1:4] if route.verdict != "drifted")
        assert manifest.verification.verified


def test_int8_stays_where_it_is_faster(bundle: Bundle, package: TensorRTPackage, gpu: Gpu) -> None:
    added(bundle, EngineBuildRequest(package, gpu, "fp16", BatchProfile()))
    kept = added(bundle, EngineBuildRequest(package, gpu, "int8", BatchProfile()))
    path = GraphKey("encoder", "fp16", "mu").engine_paths(bundle.folder, "tensorrt")[1]
    (speed,) = engine_manifest_from_json(path).int8_speed
    assert speed.times is not None
    assert ("mu" in {one.variant for one in kept}) == (not speed.is_slower)
    request = EngineRequest("tensorrt", precision="int8", outputs=("mu",))
    chosen = select_engine(bundle, "encoder", request)
    chosen.backend.close()
    assert chosen.precision == ("fp16" if speed.is_slower else "int8")


def test_an_engine_runs_on_dla(bundle: Bundle, package: TensorRTPackage, gpu: Gpu) -> None:
    dla, one = DlaRequest(0, fallback=True), BatchProfile(min=1, opt=1, max=1)
    try:
        check_dla(package, dla)
    except EngineError as error:
        pytest.skip(str(error))
    manifests = added(bundle, EngineBuildRequest(package, gpu, "fp16", one, dla=dla))
    placed = [manifest.precision_report.dla for manifest in manifests]
    assert all(where is not None and where.core == 0 for where in placed)
    chosen = select_engine(bundle, "encoder", EngineRequest("tensorrt", outputs=("mu",)))
    chosen.backend.close()
    assert "layers on DLA core 0" in chosen.remarks
