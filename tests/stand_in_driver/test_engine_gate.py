"""Engines of a bundle on the stand-in driver: checked before they load, and held to the gate."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from motorvae.export.engine_bundle import EngineOrder, _verified
from motorvae.export.engines import BuiltEngine
from motorvae.export.verify import Reference, Spread
from motorvae.runtime.bundle import Bundle, FileEntry, GraphReport, Metric, tensors_of
from motorvae.runtime.choice import Wish, choose_backend
from motorvae.runtime.driver import Gpu, find_gpu
from motorvae.runtime.engines import check_engine, engine_paths, open_plan
from motorvae.runtime.errors import EngineError, VerificationError
from motorvae.runtime.flavours import Flavour
from motorvae.runtime.passport import (
    BatchProfile,
    EngineVerification,
    Passport,
    PrecisionReceipt,
    this_platform,
)
from motorvae.runtime.spec import ModelSpec

if TYPE_CHECKING:
    from .conftest import StandIn

SPEC = ModelSpec(image_size=32, channels=(4, 8, 8, 16, 16), latent_size=8)
GRAPHS = {
    "encoder": {"image": [1, 32, 32], "mu": [8], "log_var": [8]},
    "decoder": {"z": [8], "reconstruction": [1, 2, 4]},
}
SOURCES = {"weights_from": "engine inspector", "outputs_from": "engine inspector"}
SHA = "ab" * 32
VERSION = "10.3.0"


class SmallBundle:
    """The part of a bundle that engines ask for: no ONNX graph is needed to run one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entry(self, graph: Any, _precision: str) -> Any:
        inputs, outputs = tensors_of(graph, SPEC)
        return SimpleNamespace(sha256=SHA, inputs=inputs, outputs=outputs)


@pytest.fixture
def gpu() -> Gpu:
    found = find_gpu()
    assert isinstance(found, Gpu)
    return found


@pytest.fixture
def flavour(host_tensorrt: Any, monkeypatch: pytest.MonkeyPatch) -> Flavour:
    """TensorRT 10.3 as far as anybody can tell, also for `import tensorrt`."""
    import sys

    host_tensorrt.module.__version__ = VERSION
    monkeypatch.setitem(sys.modules, "tensorrt", host_tensorrt.module)
    return Flavour("tensorrt", host_tensorrt.module, VERSION)


@pytest.fixture
def bundle(tmp_path: Path, gpu: Gpu) -> Any:
    for graph, tensors in GRAPHS.items():
        engine, passport = engine_paths(tmp_path, graph, "fp16", "tensorrt")  # type: ignore[arg-type]
        engine.parent.mkdir(exist_ok=True)
        engine.write_text(json.dumps({"tensors": tensors, "profile": [1, 1, 8]}))
        text = passport_of(graph, engine, gpu).model_dump_json()
        passport.write_text(text, encoding="utf-8")
    return SmallBundle(tmp_path)


def report_of(graph: str) -> GraphReport:
    metric = Metric(name="max error", value=0.0, limit=1.0)
    return GraphReport(
        graph=graph,  # type: ignore[arg-type]
        precision="fp16",
        output="all",
        engine="TensorRT",
        reference="a test",
        images=1,
        metrics=(metric,),
    )


def passport_of(graph: str, engine: Path, gpu: Gpu) -> Passport:
    return Passport(
        schema_version=1,
        producer="a test",
        created="2026-11-24T00:00:00+00:00",
        graph=graph,  # type: ignore[arg-type]
        precision="fp16",
        flavour="tensorrt",
        version=VERSION,
        compute_capabilities=(gpu.compute_capability,),
        gpu=gpu.name,
        driver=gpu.driver,
        cuda=gpu.cuda,
        platform=this_platform(),
        onnx_sha256=SHA,
        engine=FileEntry(
            file=engine.name,
            sha256=hashlib.sha256(engine.read_bytes()).hexdigest(),
            size_bytes=engine.stat().st_size,
        ),
        profile=BatchProfile(),
        workspace_bytes=0,
        receipt=PrecisionReceipt(
            weights={"fp16": 1},
            weights_from="engine inspector",
            outputs={"fp16": 1},
            outputs_from="engine inspector",
        ),
        verification=EngineVerification(verified=True, reports=(report_of(graph),)),
        build_seconds=1.0,
    )


def reference() -> Reference:
    """What the stand-in's engines answer: the first values of the image, and the latent itself."""
    images = np.random.default_rng(3).integers(0, 256, (20, 32, 32), np.uint8)
    values = images.reshape(20, -1).astype(np.float32) / np.float32(255)
    return Reference(
        name="the images themselves",
        images=images,
        mu=values[:, :8].copy(),
        log_var=values[:, 8:16].copy(),
        reconstruction=values[:, :8].reshape(20, 1, 2, 4).copy(),
        spread=Spread(mu=np.ones(8), log_var=np.ones(8)),
    )


def order_of(flavour: Flavour, gpu: Gpu) -> EngineOrder:
    return EngineOrder(flavour, gpu, "fp16", BatchProfile())


def built_of(bundle: Any) -> list[BuiltEngine]:
    receipt = PrecisionReceipt(
        weights={}, weights_from="engine file", outputs={}, outputs_from="engine file"
    )
    paths = (engine_paths(bundle.folder, graph, "fp16", "tensorrt")[0] for graph in GRAPHS)  # type: ignore[arg-type]
    return [BuiltEngine(path.read_bytes(), receipt, ("8.9",), 0, 1.0) for path in paths]


def test_engines_that_answer_as_the_reference_pass_the_gate(
    bundle: Any, flavour: Flavour, gpu: Gpu, stand_in: StandIn
) -> None:
    seen: list[Any] = []
    verdicts = _verified(bundle, order_of(flavour, gpu), built_of(bundle), reference(), seen.extend)
    assert [verdict.verified for verdict in verdicts] == [True, True]
    outputs = [report.output for verdict in verdicts for report in verdict.reports]
    assert outputs == ["mu", "log_var", "mu", "log_var", "reconstruction", "reconstruction"]
    # The batch that streams, and the largest.
    sizes = [report.engine.rpartition(", ")[2] for report in seen]
    assert sizes == ["batch 1", "batch 1", "batch 8", "batch 8", "batch 1", "batch 8"]
    assert all(report.engine.startswith("TensorRT 10.3.0 on ") for report in seen)
    assert {report.images for report in seen} == {20}
    assert stand_in.live() == {}


@pytest.mark.parametrize("field", ["mu", "log_var", "reconstruction"])
def test_engine_that_drifted_is_not_kept(
    bundle: Any, flavour: Flavour, gpu: Gpu, stand_in: StandIn, field: str
) -> None:
    true = reference()
    drifted = getattr(true, field).copy()
    drifted[7] += 0.2
    seen: list[Any] = []
    with pytest.raises(VerificationError, match=f"no engine was kept: .* {field}: "):
        _verified(
            bundle,
            order_of(flavour, gpu),
            built_of(bundle),
            dataclasses.replace(true, **{field: drifted}),
            seen.extend,
        )
    assert len(seen) == 6
    assert stand_in.live() == {}


def test_auto_takes_a_valid_engine_and_says_nothing_more(
    bundle: Bundle, flavour: Flavour, gpu: Gpu, host_tensorrt: Any
) -> None:
    chosen = choose_backend(bundle, "encoder", Wish())
    with chosen.backend as backend:
        image = np.linspace(0, 1, 1024, dtype=np.float32).reshape(1, 1, 32, 32)
        np.testing.assert_array_equal(backend.run(image)["mu"], image.reshape(1, -1)[:, :8])
    assert chosen.chosen.startswith(f"fp16 {flavour.title} on {gpu.name} (")
    assert chosen.remarks == ""
    assert len(host_tensorrt.engines) == 1


def change_passport(bundle: Any, **changes: object) -> None:
    _, path = engine_paths(bundle.folder, "encoder", "fp16", "tensorrt")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": "10.16.1"}, r"engine built for TensorRT 10\.16\.1 .* has 10\.3\.0 on"),
        ({"compute_capabilities": ["8.7"]}, r"on compute capability 8\.7; this machine has"),
        ({"onnx_sha256": "0" * 64}, "engine built from another encoder"),
        ({"precision": "fp32"}, "describes encoder fp32 tensorrt"),
        ({"verification": {"verified": True}}, "verified without a report"),
        (
            {"receipt": {"weights": {"fp32": 1}, "outputs": {"fp16": 1}} | SOURCES},
            r"is not fp16: 0\.00% of weights",
        ),
    ],
)
@pytest.mark.usefixtures("flavour")
def test_foreign_engine_is_refused_before_it_is_loaded(
    bundle: Bundle, host_tensorrt: Any, changes: dict[str, object], says: str
) -> None:
    change_passport(bundle, **changes)
    with pytest.raises(EngineError, match=says):
        choose_backend(bundle, "encoder", Wish(backend="tensorrt"))
    assert host_tensorrt.engines == []


@pytest.mark.usefixtures("flavour")
def test_unverified_engine_says_so_in_the_first_line(bundle: Bundle) -> None:
    change_passport(bundle, verification={"verified": False, "reason": "it was never run"})
    chosen = choose_backend(bundle, "encoder", Wish(threads=2))
    with chosen.backend:
        assert chosen.remarks == (
            "; --threads is for ONNX Runtime and changes nothing here"
            "; this engine was not verified: it was never run"
        )


@pytest.mark.usefixtures("flavour")
def test_engine_verified_on_another_gpu_says_so_in_the_first_line(bundle: Bundle, gpu: Gpu) -> None:
    change_passport(bundle, gpu="Another GPU")
    chosen = choose_backend(bundle, "encoder", Wish())
    with chosen.backend:
        assert chosen.remarks == (
            f"; this engine was verified on Another GPU and not on {gpu.name}"
        )


@pytest.mark.usefixtures("flavour")
def test_float32_engine_that_fits_stands_in_for_an_fp16_one_that_does_not(
    bundle: Bundle, gpu: Gpu
) -> None:
    half = engine_paths(bundle.folder, "encoder", "fp16", "tensorrt")
    full = engine_paths(bundle.folder, "encoder", "fp32", "tensorrt")
    full[0].write_bytes(half[0].read_bytes())
    passport = passport_of("encoder", full[0], gpu).model_copy(
        update={
            "precision": "fp32",
            "receipt": PrecisionReceipt(weights={"fp32": 1}, outputs={"fp32": 1}, **SOURCES),  # type: ignore[arg-type]
        }
    )
    full[1].write_text(passport.model_dump_json(), encoding="utf-8")
    change_passport(bundle, version="10.16.1")
    chosen = choose_backend(bundle, "encoder", Wish(backend="tensorrt"))
    with chosen.backend:
        assert chosen.precision == "fp32"
    with pytest.raises(EngineError, match="engine built for TensorRT"):
        choose_backend(bundle, "encoder", Wish(backend="tensorrt", precision="fp16"))


@pytest.mark.usefixtures("flavour")
def test_engine_swapped_after_the_check_is_not_what_runs(
    bundle: Bundle, gpu: Gpu, flavour: Flavour, host_tensorrt: Any
) -> None:
    """What was hashed is what is loaded: the file is read once."""
    path, _ = engine_paths(bundle.folder, "encoder", "fp16", "tensorrt")
    _, plan = check_engine(bundle, "encoder", "fp16", flavour, gpu)
    path.write_text("another engine", encoding="utf-8")
    with open_plan(plan, path.name, flavour, gpu, SHA) as backend:
        assert backend.run(np.zeros((1, 1, 32, 32), np.float32))["mu"].shape == (1, 8)
    assert len(host_tensorrt.engines) == 1
