"""Engines of a bundle on the stand-in driver: which one runs, checked before it loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.bundle.graph_key import GraphKey, Precision, Variant
from motorvae.runtime.bundle.load import Bundle
from motorvae.runtime.core.errors import EngineError
from motorvae.runtime.engines.gpu_info import Gpu
from motorvae.runtime.engines.open import EngineRequest, open_engine
from motorvae.runtime.engines.select import select_engine
from motorvae.runtime.engines.tensorrt.find import (
    check_engine,
    precisions_with_engine,
)
from motorvae.runtime.engines.tensorrt.package import TensorRTPackage

from .engine_bundles import (
    bundle_of,
    engine_manifest_of,
    entry_of,
    put_engine,
    report_all_in,
    write_tagged,
)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize(
    ("outputs", "present", "expected"),
    [
        (("mu",), ("full", "luma", "mu"), "mu"),
        (("mu",), ("full", "luma"), "luma"),
        (("mu", "log_var"), ("full", "luma", "mu"), "luma"),
        ((), ("full", "luma", "mu"), "luma"),
        ((), ("full", "mu"), "full"),
        (("log_var",), ("mu",), None),
    ],
)
@pytest.mark.usefixtures("package")
def test_the_leanest_engine_that_gives_what_is_asked_runs(
    tmp_path: Path,
    gpu: Gpu,
    host_tensorrt: Any,
    precision: Precision,
    outputs: tuple[str, ...],
    present: tuple[Variant, ...],
    expected: Variant | None,
) -> None:
    entries = {form: entry_of("encoder", precision, form) for form in ("mu", "full", "luma")}  # type: ignore[arg-type]
    made = bundle_of(tmp_path, *entries.values())
    for form in present:
        put_engine(made, entries[form], gpu)
    request = EngineRequest(backend="tensorrt", precision=precision, outputs=outputs)
    if expected is None:
        says = rf"has no encoder\.{precision}\.tensorrt\.engine, nor one like it that gives log_var"
        with pytest.raises(EngineError, match=says):
            select_engine(made, "encoder", request)
        assert host_tensorrt.engines == []
        return
    with select_engine(made, "encoder", request).backend as backend:
        assert backend.input_dtype == np.dtype(entries[expected].inputs[0].dtype)
        assert backend.outputs == tuple(tensor.name for tensor in entries[expected].outputs)


def mu_of(precision: Precision) -> EngineRequest:
    return EngineRequest("tensorrt", precision=precision, outputs=("mu",))


@pytest.mark.usefixtures("package")
def test_an_engine_of_another_form_under_its_name_is_refused(
    forms: Bundle, host_tensorrt: Any
) -> None:
    """Of the same precision and the same weights: only the engine manifest's variant tells."""
    ours, others = (
        GraphKey("encoder", "fp16", form).engine_paths(forms.folder, "tensorrt")
        for form in ("mu", "luma")  # type: ignore[arg-type]
    )
    for path, other in zip(ours, others, strict=True):
        path.write_bytes(other.read_bytes())
    with pytest.raises(EngineError, match=r"mu\.fp16\.tensorrt\.json describes encoder fp16 luma"):
        select_engine(
            forms, "encoder", EngineRequest("tensorrt", precision="fp16", outputs=("mu",))
        )
    assert host_tensorrt.engines == []


@pytest.mark.usefixtures("package")
def test_an_engine_is_held_against_the_graph_of_its_own_form(
    forms: Bundle, host_tensorrt: Any
) -> None:
    luma = forms.entry(GraphKey("encoder", "fp16", "luma"))
    change_engine_manifest(forms, "encoder.mu.fp16.tensorrt", onnx_sha256=luma.sha256)
    with pytest.raises(EngineError, match="engine built from another encoder"):
        select_engine(
            forms, "encoder", EngineRequest("tensorrt", precision="fp16", outputs=("mu",))
        )
    assert host_tensorrt.engines == []


@pytest.mark.usefixtures("package")
def test_int8_runs_where_it_is_asked_for_and_fp16_where_nothing_is(forms: Bundle) -> None:
    assert precisions_with_engine(forms, "encoder", "tensorrt") == ("fp16", "int8")
    for request, expected in ((EngineRequest(precision="int8"), "int8"), (EngineRequest(), "fp16")):
        chosen = select_engine(forms, "encoder", request)
        chosen.backend.close()
        assert chosen.precision == expected


@pytest.mark.usefixtures("package")
def test_int8_is_not_taken_unasked_though_it_is_the_only_engine(
    forms: Bundle, host_tensorrt: Any
) -> None:
    for path in (forms.folder / "engines").glob("*.fp16.*"):
        path.unlink()
    assert precisions_with_engine(forms, "encoder", "tensorrt") == ("int8",)
    with pytest.raises(EngineError):
        select_engine(forms, "encoder", EngineRequest("tensorrt", outputs=("mu",)))
    assert host_tensorrt.engines == []


@pytest.mark.usefixtures("package")
def test_int8_engine_whose_receipt_says_otherwise_is_refused(
    forms: Bundle, host_tensorrt: Any
) -> None:
    """Its weights are INT8 in the file, and are multiplied as float32."""
    precision_report = report_all_in("int8").model_copy(
        update={"multiplications": {"fp32": 19, "int8": 1}}
    )
    change_engine_manifest(
        forms, "encoder.mu.int8.tensorrt", precision_report=precision_report.model_dump()
    )
    with pytest.raises(EngineError, match=r"is not int8: 5\.00% of multiplications"):
        select_engine(
            forms, "encoder", EngineRequest("tensorrt", precision="int8", outputs=("mu",))
        )
    assert host_tensorrt.engines == []


def test_auto_takes_a_valid_engine_and_says_nothing_more(
    bundle: Bundle, package: TensorRTPackage, gpu: Gpu, host_tensorrt: Any
) -> None:
    chosen = select_engine(bundle, "encoder", EngineRequest())
    with chosen.backend as backend:
        image = np.linspace(0, 1, 1024, dtype=np.float32).reshape(1, 1, 32, 32)
        np.testing.assert_array_equal(backend.run(image)["mu"], image.reshape(1, -1)[:, :8])
    assert chosen.chosen.startswith(f"fp16 {package.title} on {gpu.name} (")
    assert chosen.remarks == ""
    assert len(host_tensorrt.engines) == 1


def change_engine_manifest(
    bundle: Bundle, engine: str = "encoder.fp16.tensorrt", **changes: object
) -> None:
    path = bundle.folder / "engines" / f"{engine}.json"
    write_tagged(path, json.loads(path.read_text()) | changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": "10.16.1"}, r"engine built for TensorRT 10\.16\.1 .* has 10\.3\.0 on"),
        ({"compute_capabilities": ["8.7"]}, r"on compute capability 8\.7; this machine has"),
        ({"onnx_sha256": "0" * 64}, "engine built from another encoder"),
        ({"precision": "fp32"}, "describes encoder fp32 tensorrt"),
        ({"verification": {"verified": True}}, "verified without a report"),
        (
            {"precision_report": report_all_in("fp16").model_dump() | {"weights": {"fp32": 1}}},
            r"is not fp16: 0\.00% of weights",
        ),
    ],
)
@pytest.mark.usefixtures("package")
def test_foreign_engine_is_refused_before_it_is_loaded(
    bundle: Bundle, host_tensorrt: Any, changes: dict[str, object], says: str
) -> None:
    change_engine_manifest(bundle, **changes)
    with pytest.raises(EngineError, match=says):
        select_engine(bundle, "encoder", EngineRequest(backend="tensorrt"))
    assert host_tensorrt.engines == []


@pytest.mark.usefixtures("package")
def test_unverified_engine_says_so_in_the_first_line(bundle: Bundle) -> None:
    change_engine_manifest(bundle, verification={"verified": False, "reason": "it was never run"})
    chosen = select_engine(bundle, "encoder", EngineRequest(threads=2))
    with chosen.backend:
        assert chosen.remarks == (
            "; --threads is for ONNX Runtime and changes nothing here"
            "; this engine was not verified: it was never run"
        )


@pytest.mark.usefixtures("package")
def test_engine_verified_on_another_gpu_says_so_in_the_first_line(bundle: Bundle, gpu: Gpu) -> None:
    change_engine_manifest(bundle, gpu="Another GPU")
    chosen = select_engine(bundle, "encoder", EngineRequest())
    with chosen.backend:
        assert chosen.remarks == (
            f"; this engine was verified on Another GPU and not on {gpu.name}"
        )


@pytest.mark.usefixtures("package")
def test_float32_engine_that_fits_stands_in_for_an_fp16_one_that_does_not(
    bundle: Bundle, gpu: Gpu
) -> None:
    half = GraphKey("encoder", "fp16").engine_paths(bundle.folder, "tensorrt")
    full = GraphKey("encoder", "fp32").engine_paths(bundle.folder, "tensorrt")
    full[0].write_bytes(half[0].read_bytes())
    entry = entry_of("encoder", "fp32", "full")
    write_tagged(full[1], json.loads(engine_manifest_of(entry, full[0], gpu).model_dump_json()))
    bundle = bundle_of(bundle.folder, *bundle.manifest.graphs, entry)
    change_engine_manifest(bundle, version="10.16.1")
    chosen = select_engine(bundle, "encoder", EngineRequest(backend="tensorrt"))
    with chosen.backend:
        assert chosen.precision == "fp32"
    with pytest.raises(EngineError, match="engine built for TensorRT"):
        select_engine(bundle, "encoder", EngineRequest(backend="tensorrt", precision="fp16"))


@pytest.mark.usefixtures("package")
def test_engine_swapped_after_the_check_is_not_what_runs(
    bundle: Bundle, gpu: Gpu, package: TensorRTPackage, host_tensorrt: Any
) -> None:
    """What was hashed is what is loaded: the file is read once."""
    path, _ = GraphKey("encoder", "fp16").engine_paths(bundle.folder, "tensorrt")
    entry = bundle.entry(GraphKey("encoder", "fp16"))
    _, plan = check_engine(bundle, entry, package, gpu)
    path.write_text("another engine", encoding="utf-8")
    with open_engine(plan, entry.key) as backend:
        assert backend.run(np.zeros((1, 1, 32, 32), np.float32))["mu"].shape == (1, 8)
    assert len(host_tensorrt.engines) == 1
