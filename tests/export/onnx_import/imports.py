"""Files of others as the graphs of a bundle, checked as whoever opens the bundle will."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from motorvae.export.onnx_import.normal_form import normal_decoder, normal_encoder
from motorvae.export.onnx_import.read import UserGraph, decoder_from_file, encoder_from_file
from motorvae.runtime.bundle.graph_check import check_graph
from motorvae.runtime.bundle.graph_key import GraphKey, Part
from motorvae.runtime.bundle.manifest import GraphEntry
from motorvae.runtime.core.spec import ModelSpec


def spec_of(encoder: UserGraph, **more: Any) -> ModelSpec:
    """Return the spec of a model whose encoder this is."""
    latent, (channels, height, width) = encoder.facts.latent_shape, encoder.facts.image_shape
    sizes: dict[str, Any] = {
        "image_size": (height, width),
        "color": "grey" if channels == 1 else "rgb",
        "channels": None,
        "latent_size": math.prod(latent),
        "latent_shape": latent if len(latent) > 1 else (),
        "has_log_var": encoder.facts.has_log_var,
    }
    return ModelSpec(**sizes | more)


def checked(model: ir.Model, part: Part, spec: ModelSpec) -> onnx.ModelProto:
    """Return a graph that the runtime would open."""
    key = GraphKey(part)
    proto = ir.to_proto(model)
    data = proto.SerializeToString()
    entry = GraphEntry(
        **key.fields,
        file=key.onnx_file,
        sha256="0" * 64,
        size_bytes=len(data),
        opset=model.opset_imports[""],
        inputs=key.inputs(spec),
        outputs=key.outputs(spec),
    )
    check_graph(data, entry, spec)
    return proto


def imported_encoder(path: Path, **more: Any) -> tuple[onnx.ModelProto, UserGraph, ModelSpec]:
    """Read, prove and check an encoder; names of the spec go to it, others to the reader."""
    own = {name: more.pop(name) for name in [*more] if name in ModelSpec.model_fields}
    user = encoder_from_file(path, **more)
    spec = spec_of(user, **own)
    return checked(normal_encoder(user, spec), "encoder", spec), user, spec


def imported_decoder(path: Path, spec: ModelSpec, **more: Any) -> onnx.ModelProto:
    """Read, prove and check a decoder."""
    user = decoder_from_file(
        path,
        latent_shape=spec.latent_shape or (spec.latent_size,),
        image_shape=spec.input_shape,
    )
    return checked(normal_decoder(user, spec, **more), "decoder", spec)


def graph_file(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    *,
    shape: Sequence[int | str],
    outputs: Sequence[str] = ("mu",),
    opset: int = 20,
    constants: dict[str, Any] | None = None,
    dtype: int = TensorProto.FLOAT,
) -> Path:
    """Write a graph whose input is `x`."""
    graph = helper.make_graph(
        [*nodes],
        "g",
        [helper.make_tensor_value_info("x", dtype, [*shape])],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        [
            onnx.numpy_helper.from_array(np.asarray(array), name)
            for name, array in (constants or {}).items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def operators(proto: onnx.ModelProto) -> set[str]:
    """Return what a graph is made of."""
    return {node.op_type for node in proto.graph.node}
