"""The model under test: one set of weights, as a torch model and as ONNX graphs."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import safetensors.torch
import torch

from ..export.graphs import onnx_from_model
from ..runtime.bundle import GraphName, load_bundle
from ..runtime.errors import MeasurementError
from ..runtime.files import sha256_of
from ..runtime.frames import input_from_image
from ..runtime.spec import ModelSpec
from ..runtime.vehicles import vehicle
from ..training.checkpoint import WEIGHTS_NAME, model_from_checkpoint
from ..training.model import MotorVAE


@dataclass(frozen=True)
class Subject:
    """What is benchmarked.

    Attributes:
        model: In evaluation mode, float32, on the CPU.
        spec: Its sizes.
        graphs: The float32 ONNX file of each half, made from the same weights.
        weights_sha256: Identity of the weights.
        untrained: Whether the weights are random.
    """

    model: MotorVAE
    spec: ModelSpec
    graphs: dict[GraphName, Path]
    weights_sha256: str
    untrained: bool


def subject_from_files(bundle_folder: Path, checkpoint: Path) -> Subject:
    """Load a bundle and the checkpoint that it was exported from.

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
            f"{weights} holds ({found[:12]}...): run motorvae-export --checkpoint {checkpoint} "
            f"--output {bundle_folder}, or name the run that the bundle came from"
        )
    return Subject(
        model=model,
        spec=bundle.spec,
        graphs={
            "encoder": bundle.path(bundle.entry("encoder", "fp32")),
            "decoder": bundle.path(bundle.entry("decoder", "fp32")),
        },
        weights_sha256=found,
        untrained=False,
    )


@contextlib.contextmanager
def untrained_subject(spec: ModelSpec, seed: int) -> Iterator[Subject]:
    """Make a model with random weights and export it into a folder that goes with the block."""
    model = random_model(spec, seed)
    names: tuple[GraphName, ...] = ("encoder", "decoder")
    with tempfile.TemporaryDirectory(prefix="motorvae-bench-") as folder:
        graphs = {name: Path(folder) / f"{name}.onnx" for name in names}
        for name, path in graphs.items():
            ir.save(onnx_from_model(model, spec, name), path)
        weights = safetensors.torch.save(model.state_dict())
        yield Subject(model, spec, graphs, hashlib.sha256(weights).hexdigest(), untrained=True)


def random_model(spec: ModelSpec, seed: int) -> MotorVAE:
    """Return a model with weights drawn from a seed, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MotorVAE(spec).eval()


def images_for(spec: ModelSpec, count: int, seed: int) -> npt.NDArray[np.float32]:
    """Return vehicles as model inputs, (count, 1, S, S) float32."""
    images = np.empty((count, 1, spec.image_size, spec.image_size), np.float32)
    for index in range(count):
        luma, _ = vehicle(seed, index, spec.image_size)
        input_from_image(luma, spec, images[index, 0])
    return images


def array_sha256(values: npt.NDArray[np.generic]) -> str:
    """Return the SHA-256 of an array's bytes as 64 hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
