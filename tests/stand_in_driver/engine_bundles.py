"""Bundles with engines of the stand-in: no ONNX graph is needed to run one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from motorvae.runtime.bundle.graph_key import GraphKey, Part, Precision, Variant
from motorvae.runtime.bundle.load import Bundle
from motorvae.runtime.bundle.manifest import (
    FileEntry,
    GraphEntry,
    GraphReport,
    Manifest,
    Metric,
    Preprocessing,
)
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.gpu_info import Gpu
from motorvae.runtime.engines.tensorrt.engine_manifest import (
    BatchProfile,
    EngineManifest,
    EngineVerification,
    PrecisionReport,
    this_platform,
)
from motorvae.runtime.signing.machine_key import MachineKey, own_machine_key

SPEC = ModelSpec(image_size=32, channels=(4, 8, 8, 16, 16), latent_size=8)
FORMS: tuple[tuple[Part, Variant], ...] = (
    ("encoder", "full"),
    ("encoder", "luma"),
    ("encoder", "mu"),
    ("decoder", "full"),
)
SOURCES: dict[str, Any] = {
    "weights_from": "engine inspector",
    "outputs_from": "engine inspector",
    "multiplications_from": "engine inspector",
}
VERSION = "10.3.0"


def entry_of(graph: Part, precision: Precision, variant: Variant) -> GraphEntry:
    """One graph of the bundle; what the stand-in's decoder gives is as small as what it takes."""
    key = GraphKey(graph, precision, variant, "tensorrt" if precision == "int8" else None)
    outputs = key.outputs(SPEC)
    if graph == "decoder":
        outputs = (outputs[0].model_copy(update={"shape": ("batch", 1, 2, 4)}),)
    form = f"{graph}.{variant}.{precision}"
    return GraphEntry(
        file=f"{form}.onnx",
        sha256=hashlib.sha256(form.encode()).hexdigest(),
        size_bytes=1,
        **key.fields,
        opset=20,
        inputs=key.inputs(SPEC),
        outputs=outputs,
    )


def bundle_of(folder: Path, *entries: GraphEntry) -> Bundle:
    """What a bundle says of itself: no ONNX graph is needed to run an engine."""
    manifest = Manifest(
        schema_version=4,
        producer="a test",
        created="2026-11-24T00:00:00+00:00",
        weights_sha256="ab" * 32,
        model=SPEC,
        preprocessing=Preprocessing(),
        graphs=entries,
        files=(),
        verification=(),
    )
    return Bundle(folder, manifest)


def plan_of(entry: GraphEntry, **more: int) -> bytes:
    """An engine of the stand-in with the tensors of a graph.

    Of `more`, `times` is how often it does its work, and `shift` makes its answers wrong.
    """
    tensors = (*entry.inputs, *entry.outputs)
    facts = {
        "tensors": {tensor.name: tensor.shape[1:] for tensor in tensors},
        "dtypes": {tensor.name: tensor.dtype for tensor in tensors},
        "profile": [1, 1, 8],
    }
    return json.dumps(facts | more).encode()


def put_engine(bundle: Bundle, entry: GraphEntry, gpu: Gpu) -> None:
    """Add an engine of a graph, with the engine manifest that it deserves."""
    engine, engine_manifest = entry.key.engine_paths(bundle.folder, "tensorrt")
    engine.parent.mkdir(exist_ok=True)
    engine.write_bytes(plan_of(entry))
    write_tagged(
        engine_manifest, json.loads(engine_manifest_of(entry, engine, gpu).model_dump_json())
    )


def write_tagged(path: Path, content: dict[str, Any], key: MachineKey | None = None) -> None:
    """Write an engine manifest with the tag that it deserves, by default of this machine."""
    key = key or own_machine_key()[0]
    content.pop("built_here", None)
    said = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    content["built_here"] = {"key_id": key.key_id, "tag": key.tag(said.encode())}
    path.write_text(json.dumps(content), encoding="utf-8")


def report_of(entry: GraphEntry) -> GraphReport:
    metric = Metric(name="max error", value=0.0, limit=1.0)
    return GraphReport(
        **entry.key.for_any.fields,
        output="all",
        engine="TensorRT",
        reference="a test",
        images=1,
        metrics=(metric,),
    )


def engine_manifest_of(entry: GraphEntry, engine: Path, gpu: Gpu) -> EngineManifest:
    return EngineManifest(
        schema_version=4,
        producer="a test",
        created="2026-11-24T00:00:00+00:00",
        graph=entry.graph,
        precision=entry.precision,
        variant=entry.variant,
        package="tensorrt",
        version=VERSION,
        compute_capabilities=(gpu.compute_capability,),
        gpu=gpu.name,
        driver=gpu.driver,
        cuda=gpu.cuda,
        platform=this_platform(),
        onnx_sha256=entry.sha256,
        engine=FileEntry(
            file=engine.name,
            sha256=hashlib.sha256(engine.read_bytes()).hexdigest(),
            size_bytes=engine.stat().st_size,
        ),
        profile=BatchProfile(),
        workspace_bytes=0,
        precision_report=report_all_in(entry.precision),
        verification=EngineVerification(verified=True, reports=(report_of(entry),)),
        build_seconds=1.0,
    )


def report_all_in(precision: Precision) -> PrecisionReport:
    counts = {precision: 1}
    return PrecisionReport(
        weights=counts, outputs=counts, multiplications=counts, asked=counts, **SOURCES
    )
