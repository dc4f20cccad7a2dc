"""describe: what a graph file says of itself, and nothing of when or where it was made."""

from __future__ import annotations

import importlib.metadata

import onnx_ir as ir

from ..runtime.bundle.graph_key import GraphKey
from ..runtime.core.spec import ModelSpec


def describe(model: ir.Model, key: GraphKey, *, spec: ModelSpec, weights: str) -> None:
    """Write into the graph what it is, such that bytes repeat.

    Args:
        model: Changed in place.
        key: Which graph it is.
        spec: Sizes of the model.
        weights: SHA-256 of the weights, in hexadecimal digits.
    """
    model.producer_name = "motorvae"
    model.producer_version = importlib.metadata.version("motorvae")
    model.doc_string = f"{key.title} of a motorVAE"
    model.metadata_props.update(
        {
            "motorvae.graph": key.part,
            "motorvae.precision": key.precision,
            "motorvae.variant": key.variant,
            "motorvae.model": spec.model_dump_json(),
            "motorvae.weights_sha256": weights,
        }
    )
    if key.target:
        model.metadata_props["motorvae.made_for"] = key.target
