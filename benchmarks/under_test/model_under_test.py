"""The model under test: one set of weights, as a torch model and as a bundle."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import safetensors.torch
import torch
from torch import nn

from ...export.bundle import write_bundle
from ...export.onnx_export import onnx_from_model
from ...export.verify.reference import Reference, Spread, spread_from_statistics
from ...export.verify.torch_reference import reference_from_model
from ...runtime.bundle.graph_key import Part
from ...runtime.bundle.load import Bundle, load_bundle
from ...runtime.bundle.manifest import STATISTICS, VERIFICATION_IMAGES
from ...runtime.core.atomic_files import sha256_of
from ...runtime.core.documents import arrays_from_npz
from ...runtime.core.errors import BundleError, MeasurementError, next_command
from ...runtime.core.spec import ModelSpec
from ...training.checkpoint import WEIGHTS_NAME, model_from_checkpoint
from ...training.dataset import DataSet
from ...training.latent_statistics import latent_statistics
from ...training.model import MotorVAE
from .gate import DriftGate
from .scenes import vehicles

_RANDOM_IMAGES = 32
"""Vehicles that random weights are verified on."""


@dataclass(frozen=True)
class ModelUnderTest:
    """What is benchmarked."""

    model: MotorVAE  # In evaluation mode, float32, on the CPU
    bundle: Bundle  # Exported from the same weights
    reference: Reference  # The bundle's verification images, and what torch gives for them
    weights_sha256: str  # Identity of the weights
    untrained: bool  # Whether the weights are random

    @property
    def spec(self) -> ModelSpec:
        """The model's sizes."""
        return self.bundle.spec

    @functools.cached_property
    def gate(self) -> DriftGate:
        """Holds engines to the limits, each of them once."""
        return DriftGate(self.reference, self.bundle.manifest)

    def half(self, part: Part) -> nn.Module:
        """Return the encoder or the decoder in torch."""
        return self.model.encoder if part == "encoder" else self.model.decoder


def model_from_files(
    bundle_folder: Path, checkpoint: Path, *, images: int | None = None
) -> ModelUnderTest:
    """Load a bundle and the run that it was exported from, with all or some verification images.

    Raises:
        MeasurementError: One of them is not there, or their weights differ.
        BundleError: The bundle is damaged.
        CheckpointError: The checkpoint is damaged.
    """
    for what, path in (("bundle", bundle_folder), ("training run", checkpoint)):
        if not path.exists():
            raise MeasurementError(
                f"no {what} at {path}: run motorvae-train and then motorvae-export, name both "
                "with --model and --checkpoint, or measure random weights with --untrained"
            )
    bundle = load_bundle(bundle_folder)
    model, _ = model_from_checkpoint(checkpoint)
    weights = checkpoint / WEIGHTS_NAME if checkpoint.is_dir() else checkpoint
    found, announced = sha256_of(weights), bundle.manifest.weights_sha256
    if found != announced:
        raise MeasurementError(
            f"{bundle_folder} was exported from other weights ({announced[:12]}...) than "
            f"{weights} holds ({found[:12]}...): run "
            f"{next_command('motorvae-export', checkpoint, '--output', bundle_folder)}, or name "
            "the run that the bundle came from"
        )
    path = bundle_folder / VERIFICATION_IMAGES
    luma = arrays_from_npz(path, ("images",), error=BundleError, again="export the bundle again")
    spread = spread_from_statistics(bundle_folder / STATISTICS, error=BundleError)
    reference = reference_from_model(model, luma["images"][:images], spread)
    return ModelUnderTest(model, bundle, reference, found, untrained=False)


@contextlib.contextmanager
def untrained_model(spec: ModelSpec, seed: int) -> Iterator[ModelUnderTest]:
    """Make a model with random weights and export it into a folder that goes with the block."""
    model = random_model(spec, seed)
    luma = vehicles(seed, _RANDOM_IMAGES, spec)
    rows = np.arange(len(luma))
    data = DataSet(luma, [str(row) for row in rows], train=rows, held_out=rows, skipped=0)
    ones = np.ones(spec.latent_size)
    first = reference_from_model(model, luma, Spread(mu=ones, log_var=ones))
    mu, log_var = (values.astype(np.float64).std(axis=0) for values in (first.mu, first.log_var))
    reference = replace(first, spread=Spread(mu=mu, log_var=log_var))
    digest = hashlib.sha256(safetensors.torch.save(model.state_dict())).hexdigest()
    with tempfile.TemporaryDirectory(prefix="motorvae-bench-") as folder:
        statistics = Path(folder) / "latents.npz"
        np.savez(statistics, **latent_statistics(model, data))  # type: ignore[arg-type]
        write_bundle(
            Path(folder) / "bundle",
            graphs={graph: onnx_from_model(model, spec, graph) for graph in get_args(Part)},
            spec=spec,
            weights_sha256=digest,
            statistics=statistics,
            reference=reference,
            on_reports=lambda _reports, _searched: None,
        )
        yield ModelUnderTest(model, load_bundle(Path(folder) / "bundle"), reference, digest, True)


def random_model(spec: ModelSpec, seed: int) -> MotorVAE:
    """Return a model with weights drawn from a seed, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MotorVAE(spec).eval()
