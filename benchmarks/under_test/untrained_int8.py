"""INT8 encoders of random weights: timed, so that a gain that is lost is seen, and not verified."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...export.graph_folder import GraphFolder
from ...export.transforms.io_variants import luma_from_quantised, mu_from_encoder
from ...export.transforms.node_names import name_nodes
from ...export.transforms.qdq import Activations, Method, int8_from_fp32
from ...runtime.bundle.graph_key import GraphKey, Target
from ...runtime.bundle.load import load_bundle
from ...runtime.bundle.manifest import MANIFEST, GraphEntry
from ...runtime.core.documents import save_document
from ...runtime.pixels.convert import input_from_pixels

_TARGETS: tuple[Target, ...] = ("onnx", "openvino")
_IMAGES = 4


def add_int8_encoders(folder: Path, luma: npt.NDArray[np.uint8]) -> None:
    """Add to a bundle an INT8 encoder for each engine of the CPU; its ranges are those of `luma`.

    Ranges end at the least and largest values of a few images, (N, S, S) uint8. The arithmetic is
    that of a searched graph and the latents are worse, which random weights leave without meaning.
    """
    bundle = load_bundle(folder)
    files = GraphFolder(folder, bundle.spec, bundle.manifest.weights_sha256)
    source = files.load(GraphKey("encoder"))
    name_nodes(source)
    images = luma[:_IMAGES]
    ranges = Activations(source, input_from_pixels(images)).ranges(Method())
    entries: list[GraphEntry] = []
    for runner in _TARGETS:
        key = GraphKey("encoder", "int8", "luma", runner)
        model = int8_from_fp32(source.clone(), ranges, runner)
        luma_from_quantised(model)
        for one in (key, replace(key, variant="mu")):
            if one.variant == "mu":
                mu_from_encoder(model)
            files.save(one, model)
            entries.append(files.entry(one, model))
    graphs = (*bundle.manifest.graphs, *entries)
    save_document(folder / MANIFEST, bundle.manifest.model_copy(update={"graphs": graphs}))
