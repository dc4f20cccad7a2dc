"""UserModel: an encoder and a decoder that were understood, and what they become."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from rich.console import Console

from ...runtime.bundle.graph_key import Part
from ...runtime.bundle.manifest import STATISTICS, Origin
from ...runtime.core.errors import BundleError
from ...runtime.core.spec import ModelSpec
from ...training.dataset import DataSet
from ...training.latent_statistics import HELD_OUT_IMAGES, latent_statistics, save_latents
from ..bundle_job import Measured, NewBundle
from ..onnx_import.normal_form import Gives, normal_decoder, normal_encoder
from ..onnx_import.read import UserGraph
from ..steps import steps_shown
from ..verify.batches import Engine
from ..verify.engine_reference import reference_from_engines
from ..verify.limits import OTHER_NETWORKS
from ..verify.reference import spread_from_statistics

PROVED_IMAGES = 4
"""So many of the user's images prove a graph equal to the original, beside random ones."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class UserModel:
    """What was imported, before it has seen an image.

    The engines are the originals, as their owner would run them: pictures (N, C, H, W) float32 in
    [0, 1] to `mu` and perhaps `log_var`, (N, D), and latents back to such pictures. They judge the
    graphs.
    """

    name: str
    spec: ModelSpec
    encoder: Engine
    decoder: Engine | None
    encoder_graph: UserGraph
    decoder_graph: UserGraph | None
    gives: Gives  # what the decoder's graph gives
    weights_sha256: str
    origin: Origin
    notes: tuple[str, ...] = field(default=())

    def encode(self, images: Floats) -> tuple[Floats, Floats | None]:
        """Return mu and log_var, (N, D) each, where there is one."""
        found = self.encoder.run(images)
        return found["mu"], found.get("log_var")

    def graphs(self, images: Floats) -> dict[Part, ir.Model]:
        """Return both graphs in the form of all, proved equal to the originals on (N, C, H, W)."""
        found: dict[Part, ir.Model] = {
            "encoder": normal_encoder(self.encoder_graph, self.spec, images)
        }
        if self.decoder_graph is not None:
            mu = np.ascontiguousarray(self.encode(images)[0], np.float32)
            found["decoder"] = normal_decoder(self.decoder_graph, self.spec, mu, gives=self.gives)
        return found


def bundle_of(model: UserModel, data: DataSet, folder: Path, console: Console) -> NewBundle:
    """Return what a model and images become; `folder` holds statistics for as long as it lasts."""
    statistics = folder / STATISTICS

    def graphs() -> Mapping[Part, ir.Model]:
        with steps_shown(console, "comparing the graphs' form with the original"):
            return model.graphs(data.batch(data.held_out[:PROVED_IMAGES]))

    def measured() -> Measured:
        save_latents(
            statistics, latent_statistics(data, model.spec, model.encode, _decoding(model))
        )
        spread = spread_from_statistics(statistics, model.spec, error=BundleError)
        held_out = data.images[data.held_out[:HELD_OUT_IMAGES]]
        reference = reference_from_engines(model.encoder, model.decoder, held_out, spread)
        reference = replace(reference, room=OTHER_NETWORKS)
        return Measured(reference, held_out, statistics)

    advice = "try other --value-range, --mean, --std, --color or --decoder-range"
    return NewBundle(
        model.name, model.spec, model.weights_sha256, graphs, measured, model.origin, advice=advice
    )


def _decoding(model: UserModel) -> Callable[[Floats], Floats] | None:
    decoder = model.decoder
    if decoder is None:
        return None
    return lambda z: decoder.run(np.ascontiguousarray(z, np.float32))["reconstruction"]


def digest_of(digests: Iterable[str]) -> str:
    """Return one SHA-256 for files: that of the only one, or of the list of all."""
    listed = list(digests)
    joined = "\n".join(listed).encode()
    return listed[0] if len(listed) == 1 else hashlib.sha256(joined).hexdigest()
