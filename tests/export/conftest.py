from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
import torch
from torch import nn

from motorvae.export.bundle import write_bundle
from motorvae.export.onnx_export import onnx_from_model
from motorvae.export.verify.reference import Reference, Spread
from motorvae.export.verify.torch_reference import reference_from_model
from motorvae.runtime.bundle.graph_key import PARTS, Part
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.convert import input_from_pixels
from motorvae.training.model import MotorVAE

SPEC = ModelSpec(image_size=32, channels=(4, 8, 8, 16, 16), latent_size=8)

WriteBundle = Callable[..., None]


def coarse_images(spec: ModelSpec, count: int = 24) -> npt.NDArray[np.uint8]:
    """Pictures of four flat blocks, which even untrained weights tell apart."""
    shape = (count, *spec.picture_shape[:-2], 2, 2)
    blocks = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
    return blocks.repeat(spec.height // 2, axis=-2).repeat(spec.width // 2, axis=-1)


def model_with_statistics(spec: ModelSpec, seed: int = 0) -> MotorVAE:
    """An untrained model whose batch norms hold the statistics of real activations."""
    torch.manual_seed(seed)
    model = MotorVAE(spec)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.2, 0.2)
    with torch.no_grad():
        model.train()(torch.from_numpy(input_from_pixels(coarse_images(spec))))
    return model.eval()


@pytest.fixture(scope="session")
def model() -> MotorVAE:
    return model_with_statistics(SPEC)


@pytest.fixture(scope="session")
def reference(model: MotorVAE) -> Reference:
    images = coarse_images(SPEC)
    ones = np.ones(SPEC.latent_size)
    first = reference_from_model(model, images, Spread(mu=ones, log_var=ones))
    mu, log_var = (values.astype(np.float64).std(axis=0) for values in (first.mu, first.log_var))
    return replace(first, spread=Spread(mu=mu, log_var=log_var))


@pytest.fixture(scope="session")
def graphs(model: MotorVAE) -> dict[Part, bytes]:
    """Both float32 graphs, serialised, since a bundle writer changes the ones it is given."""
    return {
        graph: ir.to_proto(onnx_from_model(model, SPEC, graph)).SerializeToString()
        for graph in PARTS
    }


@pytest.fixture
def write(graphs: dict[Part, bytes], reference: Reference, tmp_path: Path) -> WriteBundle:
    """`write_bundle` with everything filled in; keyword arguments replace parts."""
    statistics = tmp_path / "run-latents.npz"
    np.savez(
        statistics,
        covariance=np.diag(reference.spread.mu**2),
        log_var_deviation=reference.spread.log_var,
    )

    def call(output: Path, **changes: object) -> None:
        arguments: dict[str, object] = {
            "graphs": {name: _loaded(data) for name, data in graphs.items()},
            "spec": SPEC,
            "weights_sha256": "ab" * 32,
            "statistics": statistics,
            "reference": reference,
            "precisions": ("fp16",),
            "on_reports": lambda *_: None,
        }
        write_bundle(output, **(arguments | changes))  # type: ignore[arg-type]

    return call


def _loaded(data: bytes) -> ir.Model:
    import onnx

    return ir.from_proto(onnx.load_from_string(data))
