"""What is on disk keeps its bytes: manifests of bundles and engines, and the names of graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.bundle.manifest import Manifest
from motorvae.runtime.engines.tensorrt.engine_manifest import EngineManifest

GOLDEN = Path(__file__).with_name("golden")
FILES = {
    "encoder fp32": "encoder.onnx",
    "encoder fp32 mu": "encoder.mu.onnx",
    "decoder fp32": "decoder.onnx",
    "decoder fp32 phases": "decoder.phases.onnx",
    "decoder fp32 phases for onnx": "decoder.phases.onnx.onnx",
    "encoder fp16": "encoder.fp16.onnx",
    "encoder fp16 luma": "encoder.luma.fp16.onnx",
    "encoder fp16 mu": "encoder.mu.fp16.onnx",
    "decoder fp16": "decoder.fp16.onnx",
}
"""What the small bundle holds, in its order."""


@pytest.mark.parametrize(
    ("name", "kind"), [("manifest", Manifest), ("engine_manifest", EngineManifest)]
)
def test_a_document_is_written_byte_for_byte_as_it_was_read(
    name: str, kind: type[Manifest | EngineManifest]
) -> None:
    text = (GOLDEN / f"{name}.json").read_text(encoding="utf-8")
    assert kind.model_validate_json(text).model_dump_json(indent=2) + "\n" == text


@pytest.mark.parametrize("version", [5, 6])
def test_a_manifest_of_a_version_before_is_read_as_what_it_meant(version: int) -> None:
    earlier, now = (
        Manifest.model_validate_json((GOLDEN / name).read_text(encoding="utf-8"))
        for name in (f"manifest.{version}.json", "manifest.json")
    )
    assert earlier.schema_version == version
    assert earlier.model_copy(update={"schema_version": 7}) == now


def test_an_engine_manifest_of_the_version_before_is_read_as_what_it_meant() -> None:
    earlier, now = (
        EngineManifest.model_validate_json((GOLDEN / name).read_text(encoding="utf-8"))
        for name in ("engine_manifest.4.json", "engine_manifest.json")
    )
    assert earlier.model_copy(update={"schema_version": 5}) == now


def shape_of(content: Any) -> Any:
    """The keys of a document in their order, lists by their first item."""
    if isinstance(content, dict):
        return {key: shape_of(value) for key, value in content.items()}
    return [shape_of(content[0])] if isinstance(content, list) and content else None


def test_the_export_writes_the_keys_of_the_golden_manifest(small_bundle: Path) -> None:
    written, golden = (
        shape_of(json.loads(path.read_text(encoding="utf-8")))
        for path in (small_bundle / "manifest.json", GOLDEN / "manifest.json")
    )
    assert list(written) == list(golden)
    for part in ("model", "preprocessing", "graphs", "files", "verification"):
        assert json.dumps(written[part]) == json.dumps(golden[part])


def test_the_export_writes_the_keys_of_the_golden_engine_manifest(rtx_bundle: Path) -> None:
    written, golden = (
        json.loads(path.read_text(encoding="utf-8"))
        for path in (
            rtx_bundle / "engines" / "encoder.mu.fp16.tensorrt-rtx.json",
            GOLDEN / "engine_manifest.json",
        )
    )
    assert list(written) == list(golden)


def test_graphs_have_the_file_names_they_always_had(small_bundle: Path) -> None:
    graphs = load_bundle(small_bundle).manifest.graphs
    assert {entry.title: entry.file for entry in graphs} == FILES
    assert [entry.title for entry in graphs] == list(FILES)
