"""describe: what a graph file says of itself, and nothing of when or where it was made."""

from __future__ import annotations

import importlib.metadata

import onnx_ir as ir

from ..runtime.core.spec import ModelSpec
from .forms import Form


def describe(model: ir.Model, form: Form, *, spec: ModelSpec, weights: str) -> None:
    """Write into the graph what it is, such that bytes repeat.

    Args:
        model: Changed in place.
        form: Which form of which graph.
        spec: Sizes of the model.
        weights: SHA-256 of the weights, in hexadecimal digits.
    """
    model.producer_name = "motorvae"
    model.producer_version = importlib.metadata.version("motorvae")
    model.doc_string = f"{form.title} of a motorVAE"
    model.metadata_props.update(
        {
            "motorvae.graph": form.graph,
            "motorvae.precision": form.precision,
            "motorvae.variant": form.variant,
            "motorvae.model": spec.model_dump_json(),
            "motorvae.weights_sha256": weights,
        }
    )
    if form.made_for:
        model.metadata_props["motorvae.made_for"] = form.made_for
