"""INT8 engines against FP16 ones on the stand-in driver, from the build to the stream's choice.

What stands for a builder hands out engines that do their work once or many times over.
"""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from motorvae.export.tensorrt import add_engines
from motorvae.export.tensorrt.add_engines import add_engines_to_bundle
from motorvae.export.tensorrt.build import BuiltEngine, EngineBuildRequest
from motorvae.export.tensorrt.dla import DlaRequest
from motorvae.export.tensorrt.int8_speed import comparable_fp16, with_fp16_to_compare
from motorvae.runtime.bundle.graph_key import GraphKey, Precision
from motorvae.runtime.bundle.load import Bundle
from motorvae.runtime.bundle.manifest import GraphEntry
from motorvae.runtime.core.errors import BackendError, EngineError
from motorvae.runtime.engines import select
from motorvae.runtime.engines.gpu_info import Gpu
from motorvae.runtime.engines.open import EngineRequest
from motorvae.runtime.engines.select import select_engine
from motorvae.runtime.engines.tensorrt.engine_manifest import (
    BatchProfile,
    EngineManifest,
    engine_manifest_from_json,
)
from motorvae.runtime.engines.tensorrt.find import precisions_with_engine, slower_int8
from motorvae.runtime.engines.tensorrt.package import TensorRTPackage

from .engine_bundles import bundle_of, entry_of, plan_of, report_all_in
from .test_engine_gate import reference

FAST, SLOW = 2, 300


class WithoutGraphs(Bundle):
    """A bundle whose graphs nobody reads: what stands for a builder knows them by their names."""

    def content(self, entry: GraphEntry) -> bytes:
        return entry.file.encode()


@pytest.fixture
def graphs(tmp_path: Path) -> Bundle:
    """What a bundle lists: each form in FP16, and in INT8 those that take luma."""
    entries = [entry_of("encoder", "fp16", form) for form in ("full", "luma", "mu")]  # type: ignore[arg-type]
    entries += [entry_of("encoder", "int8", form) for form in ("luma", "mu")]  # type: ignore[arg-type]
    (tmp_path / "bundle").mkdir()
    made = bundle_of(tmp_path / "bundle", *entries)
    return WithoutGraphs(made.folder, made.manifest)


def built(
    bundle: Bundle,
    package: TensorRTPackage,
    gpu: Gpu,
    precision: Precision,
    times: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    **more: Any,
) -> tuple[tuple[EngineManifest, ...], str]:
    """Add a bundle's engines in a precision, which do their work so often by their titles."""
    by_file = {entry.file: entry for entry in bundle.manifest.graphs}

    def engine(onnx: bytes, request: EngineBuildRequest, **facts: Any) -> BuiltEngine:
        entry = by_file[onnx.decode()]
        plan = plan_of(entry, times=times.get(facts["title"], FAST))
        return BuiltEngine(plan, report_all_in(request.precision), ("8.9",), 0, 1.0)

    monkeypatch.setattr(add_engines, "engine_from_onnx", engine)
    said = io.StringIO()
    found = add_engines_to_bundle(
        bundle,
        EngineBuildRequest(package, gpu, precision, BatchProfile(), **more),
        Console(file=said, width=300),
        on_reports=lambda _: None,
        reference=reference(),
    )
    return found, said.getvalue()


def manifest_of(bundle: Bundle, key: GraphKey) -> EngineManifest:
    return engine_manifest_from_json(key.engine_paths(bundle.folder, "tensorrt")[1])


def test_an_int8_engine_that_is_slower_is_not_kept_and_never_runs(
    graphs: Bundle, package: TensorRTPackage, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(graphs, package, gpu, "fp16", {}, monkeypatch)
    slow = {"encoder int8 mu": SLOW, "encoder int8 luma": SLOW}
    found, said = built(graphs, package, gpu, "int8", slow, monkeypatch)
    assert found == ()
    assert precisions_with_engine(graphs, "encoder", "tensorrt") == ("fp16",)
    for title in slow:
        assert f"{title}: int8 is not faster than fp16 on this GPU: " in said
    assert said.count(", so its engine was not kept") == 2
    (speed,) = manifest_of(graphs, GraphKey("encoder", "fp16", "mu")).int8_speed
    assert (speed.int8, speed.fp16, speed.is_slower) == ("mu", "mu", True)
    assert speed.times is not None
    assert speed.times.medians[0] > speed.times.medians[1]
    for backend in ("auto", "tensorrt"):
        request = EngineRequest(backend, precision="int8", outputs=("mu",))  # type: ignore[arg-type]
        chosen = select_engine(graphs, "encoder", request)
        chosen.backend.close()
        assert chosen.precision == "fp16"
        assert "not int8, which was asked for, as int8 is not faster than fp16" in chosen.remarks


def test_where_the_fp16_engine_does_not_open_nobody_says_that_int8_was_passed_over(
    graphs: Bundle, package: TensorRTPackage, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another runner may do INT8 then, which was asked for."""
    built(graphs, package, gpu, "fp16", {}, monkeypatch)
    built(graphs, package, gpu, "int8", {"encoder int8 mu": SLOW}, monkeypatch)
    assert slower_int8(graphs, "encoder", package, gpu, ("mu",)) is not None
    damaged = GraphKey("encoder", "fp16", "mu").engine_paths(graphs.folder, "tensorrt")[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    told: list[str] = []

    def other_runner(selection: Any, *_: str) -> None:
        told[:] = selection.passed_over
        raise BackendError("far enough")

    monkeypatch.setattr(select._Selection, "graph", other_runner)
    with pytest.raises(BackendError, match="far enough"):
        select_engine(graphs, "encoder", EngineRequest(precision="int8", outputs=("mu",)))
    assert any("encoder.mu.fp16.tensorrt.engine has" in reason for reason in told)
    assert not [reason for reason in told if "which was asked for" in reason]


def test_an_int8_engine_that_is_faster_is_kept_with_both_times(
    graphs: Bundle, package: TensorRTPackage, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {f"encoder fp16{form}": SLOW for form in ("", " luma", " mu")}
    built(graphs, package, gpu, "fp16", slow, monkeypatch)
    found, said = built(graphs, package, gpu, "int8", {}, monkeypatch)
    assert [one.key.title for one in found] == ["encoder int8 luma", "encoder int8 mu"]
    assert "not kept" not in said
    for one in found:
        (speed,) = one.int8_speed
        assert not speed.is_slower
        assert speed.times is not None
        assert speed in manifest_of(graphs, GraphKey("encoder", "fp16", one.variant)).int8_speed
    request = EngineRequest("tensorrt", precision="int8", outputs=("mu",))
    chosen = select_engine(graphs, "encoder", request)
    chosen.backend.close()
    assert (chosen.precision, chosen.remarks) == ("int8", "")


def test_fp16_engines_that_somebody_asked_for_are_compared_with_or_left_as_they_are(
    graphs: Bundle, package: TensorRTPackage, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = EngineBuildRequest(package, gpu, "int8", BatchProfile())
    both, alone = ("fp16", "int8"), ("int8",)
    assert with_fp16_to_compare(graphs, alone, request) == both  # there is none
    built(graphs, package, gpu, "fp16", {}, monkeypatch)
    assert with_fp16_to_compare(graphs, alone, request) == alone
    others = (
        replace(request, profile=BatchProfile(min=2, opt=2, max=2)),
        replace(request, dla=DlaRequest(0, fallback=True)),
    )
    for other in others:
        assert with_fp16_to_compare(graphs, alone, other) == alone
        with pytest.raises(EngineError, match="other batches or another core, and stays"):
            comparable_fp16(graphs, graphs.entry(GraphKey("encoder", "fp16", "mu")), other)
    newer = replace(request, package=replace(package, version="10.99.0"))
    assert with_fp16_to_compare(graphs, alone, newer) == both  # nobody here can run them


def test_an_earlier_engine_that_is_slower_now_goes(
    graphs: Bundle, package: TensorRTPackage, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {f"encoder fp16{form}": SLOW for form in ("", " luma", " mu")}
    built(graphs, package, gpu, "fp16", slow, monkeypatch)
    built(graphs, package, gpu, "int8", {}, monkeypatch)
    built(graphs, package, gpu, "fp16", {}, monkeypatch)
    only_mu = {"encoder int8 mu": SLOW, "encoder int8 luma": SLOW}
    built(graphs, package, gpu, "int8", only_mu, monkeypatch)
    assert not [path for path in (graphs.folder / "engines").iterdir() if "int8" in path.name]


def test_without_an_fp16_engine_it_is_kept_and_says_that_nobody_knows(
    graphs: Bundle, package: TensorRTPackage, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, said = built(graphs, package, gpu, "int8", {}, monkeypatch)
    assert len(found) == 2
    assert said.count("whether int8 is faster than fp16 was not measured: ") == 2
    assert "faster than fp16 on this GPU" not in said
    request = EngineRequest("tensorrt", precision="int8", outputs=("mu",))
    chosen = select_engine(graphs, "encoder", request)
    chosen.backend.close()
    assert chosen.precision == "int8"
    assert "; whether int8 is faster than fp16 was not measured: " in chosen.remarks


def test_a_doctor_keeps_the_slower_one_to_show_it(
    graphs: Bundle, package: TensorRTPackage, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(graphs, package, gpu, "fp16", {}, monkeypatch)
    slow = {"encoder int8 mu": SLOW, "encoder int8 luma": SLOW}
    found, _ = built(graphs, package, gpu, "int8", slow, monkeypatch, keep_slower=True)
    assert [one.int8_speed[0].is_slower for one in found] == [True, True]


def test_what_another_gpu_measured_says_nothing_of_this_one(
    graphs: Bundle, package: TensorRTPackage, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(graphs, package, gpu, "fp16", {}, monkeypatch)
    built(graphs, package, gpu, "int8", {"encoder int8 mu": SLOW}, monkeypatch)
    assert slower_int8(graphs, "encoder", package, gpu, ("mu",)) is not None
    others = (
        (package, replace(gpu, name="another of the same kind")),
        (package, replace(gpu, compute_capability="9.0")),
        (replace(package, version="10.99.0"), gpu),
    )
    for other_package, other in others:
        assert slower_int8(graphs, "encoder", other_package, other, ("mu",)) is None


def test_what_was_measured_of_another_int8_graph_says_nothing_of_this_one(
    graphs: Bundle, package: TensorRTPackage, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibrated anew, its layers may be others; the FP16 engine and its manifest stay."""
    built(graphs, package, gpu, "fp16", {}, monkeypatch)
    built(graphs, package, gpu, "int8", {"encoder int8 mu": SLOW}, monkeypatch)
    assert slower_int8(graphs, "encoder", package, gpu, ("mu",)) is not None
    mu = GraphKey("encoder", "int8", "mu", "tensorrt")
    entries = [
        one.model_copy(update={"sha256": "cd" * 32}) if one.key == mu else one
        for one in graphs.manifest.graphs
    ]
    anew = bundle_of(graphs.folder, *entries)
    assert slower_int8(anew, "encoder", package, gpu, ("mu",)) is None


def test_engines_of_earlier_versions_run_as_before(forms: Bundle, package: TensorRTPackage) -> None:
    """Their engine manifests are of schema 4 and say nothing of INT8's speed."""
    assert package
    path = forms.folder / "engines" / "encoder.mu.int8.tensorrt.json"
    content = json.loads(path.read_text())
    assert content["schema_version"] == 4
    request = EngineRequest("tensorrt", precision="int8", outputs=("mu",))
    chosen = select_engine(forms, "encoder", request)
    chosen.backend.close()
    assert (chosen.precision, chosen.remarks) == ("int8", "")
