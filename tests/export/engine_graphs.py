"""Graphs for engine tests in the forms that a bundle holds them, made from a small bundle's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from motorvae.export.transforms.io_variants import (
    luma_from_float,
    luma_from_quantised,
    mu_from_encoder,
)
from motorvae.export.transforms.phases import phases_from_decoder
from motorvae.export.transforms.qdq import Activations, Method, int8_from_fp32, layers_of
from motorvae.runtime.bundle.graph_key import GraphKey, Part, Precision, Variant
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.pixels.convert import input_from_pixels


def write_form(
    bundle: Path,
    folder: Path,
    graph: Part,
    precision: Precision,
    variant: Variant = "full",
    *,
    float_layers: int = 0,
) -> Path:
    """Write one form of a bundle's graph, INT8 as TensorRT takes it.

    Args:
        bundle: Whose whole graphs it is derived from.
        folder: Where to.
        graph: Which half.
        precision: Which arithmetic.
        variant: Which form.
        float_layers: How many layers of an INT8 graph stay float32, from the first on.
    """
    name = f"{graph}.fp16.onnx" if precision == "fp16" else f"{graph}.onnx"
    model = ir.load(bundle / name)
    if variant == "phases":
        phases_from_decoder(model, "tensorrt")
    if precision == "int8":
        held = np.load(bundle / "verification.npz")
        given = held["mu"] if graph == "decoder" else input_from_pixels(held["images"][:, None])
        ranges = Activations(model, given).ranges(Method())
        excluded = [*layers_of(model)][:float_layers]
        model = int8_from_fp32(model, ranges, "tensorrt", excluded=excluded)
    if variant in {"luma", "mu"}:
        (luma_from_quantised if precision == "int8" else luma_from_float)(model)
    if variant == "mu":
        mu_from_encoder(model)
    path = folder / f"{graph}.{variant}.{precision}.made.onnx"
    ir.save(model, path)
    return path


def add_form(bundle: Path, graph: Part, precision: Precision, variant: Variant) -> str:
    """Add one form to a bundle and its manifest, in the place of one that it has; its sha256."""
    spec = load_bundle(bundle).spec
    path = write_form(bundle, bundle, graph, precision, variant)
    manifest = bundle / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    key = GraphKey(graph, precision, variant, "tensorrt" if precision == "int8" else None)
    form = {"graph": graph, "precision": precision, "variant": variant}
    entry: dict[str, Any] = {
        **form,
        "file": path.name,
        "sha256": sha256_of(path),
        "size_bytes": path.stat().st_size,
        "made_for": key.target,
        "opset": 20,
        "inputs": [tensor.model_dump() for tensor in key.inputs(spec)],
        "outputs": [tensor.model_dump() for tensor in key.outputs(spec)],
    }
    kept = [other for other in content["graphs"] if not form.items() <= other.items()]
    listed = {other["file"] for other in (*kept, entry)}
    for other in content["graphs"]:
        if other["file"] not in listed:
            (bundle / other["file"]).unlink(missing_ok=True)
    content["graphs"] = [*kept, entry]
    manifest.write_text(json.dumps(content), encoding="utf-8")
    return str(entry["sha256"])
