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
from motorvae.export.verify import Reference, Spread
from motorvae.runtime.bundle import Bundle, FileEntry, tensors_of
from motorvae.runtime.choice import Wish, choose_backend
from motorvae.runtime.driver import Gpu, find_gpu
from motorvae.runtime.engines import engine_paths
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
        verification=EngineVerification(verified=True),
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


def test_engines_that_answer_as_the_reference_pass_the_gate(
    bundle: Any, flavour: Flavour, gpu: Gpu, stand_in: StandIn
) -> None:
    seen: list[Any] = []
    verdicts = _verified(bundle, bundle.folder, order_of(flavour, gpu), reference(), seen.extend)
    assert [verdict.verified for verdict in verdicts] == [True, True]
    outputs = [report.output for verdict in verdicts for report in verdict.reports]
    assert outputs == ["mu", "log_var", "reconstruction"]
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
            bundle.folder,
            order_of(flavour, gpu),
            dataclasses.replace(true, **{field: drifted}),
            seen.extend,
        )
    assert len(seen) == 3
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
