"""The model's encoder and decoder as ONNX graphs that are byte-identical for the same weights."""

from __future__ import annotations

import logging
import warnings

import onnx_ir as ir
import torch

from ..runtime.bundle.graph_key import BATCH, GraphKey, Part
from ..runtime.core.spec import ModelSpec
from ..training.model import MotorVAE
from .onnx_form import OPSET


def onnx_from_model(model: MotorVAE, spec: ModelSpec, part: Part) -> ir.Model:
    """Export one half of a model that is in evaluation mode.

    Batch norm is folded into the convolutions, the batch axis is free, and nothing random is
    inside. What the exporter notes about this machine (source paths, its own rewrites) is removed.
    """
    half = model.encoder if part == "encoder" else model.decoder
    key = GraphKey(part)
    inputs, outputs = key.inputs(spec), key.outputs(spec)
    # Two of everything: a batch of one would be taken for a constant.
    sample = torch.zeros([2 if size == BATCH else int(size) for size in inputs[0].shape])
    logger = logging.getLogger("torch.onnx")  # warns of packages that we do not use
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch's own use of its deprecated pytree names; nothing a user can act on.
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
            program = torch.onnx.export(
                half,
                (sample,),
                dynamo=True,
                input_names=[tensor.name for tensor in inputs],
                output_names=[tensor.name for tensor in outputs],
                dynamic_shapes=({0: torch.export.Dim(BATCH, min=1)},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    if program is None:
        raise AssertionError("torch.onnx.export with dynamo=True returns a program")
    exported, graph = program.model, program.model.graph
    for node in graph:
        node.doc_string = None
    values = (*graph.inputs, *graph.initializers.values(), *(v for n in graph for v in n.outputs))
    for one in (exported, graph, *graph, *values):
        one.metadata_props.clear()
    graph.name = f"motorvae_{part}"
    return exported
