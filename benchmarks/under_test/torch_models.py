"""A bundle's model in torch, and torch's FP16 encoder on the GPU as one CUDA graph."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.bundle.load import Bundle
from ...runtime.core.atomic_files import sha256_of
from ...runtime.core.errors import BackendError, MeasurementError, next_command
from ...runtime.engines.base import Arrays, Backend, Batch, tensors_of
from ...training.checkpoint import WEIGHTS_NAME, model_from_checkpoint
from ...training.model import MotorVAE

_RUNS_BEFORE_CAPTURE = 3
"""cuDNN and cuBLAS choose kernels and take workspace in the first runs, as torch's notes say."""


def model_of_bundle(bundle: Bundle, checkpoint: Path) -> MotorVAE:
    """Load the training run that a bundle was exported from; it may have no other weights."""
    model, _ = model_from_checkpoint(checkpoint)
    weights = checkpoint / WEIGHTS_NAME if checkpoint.is_dir() else checkpoint
    found, announced = sha256_of(weights), bundle.manifest.weights_sha256
    if found != announced:
        raise MeasurementError(
            f"{bundle.folder} was exported from other weights ({announced[:12]}...) than "
            f"{weights} holds ({found[:12]}...): run "
            f"{next_command('motorvae-export', checkpoint, '--output', bundle.folder)}, or name "
            "the run that the bundle came from with --checkpoint"
        )
    return model


class TorchEncoder(Backend):
    """An encoder in half precision whose kernels are one CUDA graph, for one image at a time.

    Like motorVAE's FP16 graphs it takes and gives float32; the casts are inside. Images and
    latents cross through page-locked memory, outside the graph. `bundle` must have been exported
    from `checkpoint`.
    """

    def __init__(self, checkpoint: Path, bundle: Bundle) -> None:
        if not torch.cuda.is_available():
            raise MeasurementError(
                f"torch {torch.__version__} finds no GPU: install a build of torch for CUDA "
                f"{torch.version.cuda or 'of this driver'}"
            )
        model, spec = model_of_bundle(bundle, checkpoint), bundle.spec
        key = GraphKey("encoder")
        inputs, outputs = tensors_of(key.inputs(spec)), tensors_of(key.outputs(spec))
        name = f"torch {torch.__version__} on {torch.cuda.get_device_name(0)}"
        super().__init__(name, str(checkpoint), inputs, outputs)
        self.notes = ("cuDNN chose its kernels by trying them",)
        self._shape = (1, *spec.input_shape)
        with self._as_backend_error():
            self._record(model.encoder.half().eval().cuda(), spec.latent_size)

    def _run(self, batch: Batch) -> Arrays:
        """Run images one at a time."""
        parts = []
        with self._as_backend_error():
            for image in batch:
                self._image_host.numpy()[0] = image
                self._start()
                self._stream.synchronize()
                parts.append(self._latents_host.numpy().copy())
        found = np.stack(parts)
        return {"mu": found[:, 0], "log_var": found[:, 1]}

    def repeat_timed(self) -> Mapping[str, float]:
        """Do the last run again between events; see `TensorRTBackend.repeat_timed`."""
        with self._as_backend_error():
            self._start(timed=True)
            self._stream.synchronize()
            start, copied, computed, end = self._events
            return {
                "device": start.elapsed_time(end),
                "h2d": start.elapsed_time(copied),
                "compute": copied.elapsed_time(computed),
                "d2h": computed.elapsed_time(end),
            }

    def _release(self) -> None:
        """Release nothing before the process ends: torch keeps its memory for itself."""

    def _record(self, encoder: torch.nn.Module, latent_size: int) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._events = [
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(4)
        ]
        self._image_host = torch.zeros(self._shape, pin_memory=True)
        self._latents_host = torch.zeros((2, latent_size), pin_memory=True)
        self._image = torch.zeros(self._shape, device="cuda")
        self._latents = torch.zeros((2, latent_size), device="cuda")

        def compute() -> None:
            mu, log_var = encoder(self._image.half())
            self._latents.copy_(torch.cat((mu, log_var)))

        torch.cuda.synchronize()
        # The fastest kernels that torch finds, as the engine builders look for theirs.
        with torch.inference_mode(), torch.backends.cudnn.flags(benchmark=True):
            with torch.cuda.stream(self._stream):
                for _ in range(_RUNS_BEFORE_CAPTURE):
                    compute()
            self._stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                compute()
        torch.cuda.synchronize()

    def _start(self, *, timed: bool = False) -> None:
        start, copied, computed, end = self._events if timed else (None,) * 4
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            _note(start)
            self._image.copy_(self._image_host, non_blocking=True)
            _note(copied)
            self._graph.replay()
            _note(computed)
            self._latents_host.copy_(self._latents, non_blocking=True)
            _note(end)

    @contextlib.contextmanager
    def _as_backend_error(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # the root of what CUDA, cuDNN and cuBLAS raise in torch
            said = " ".join(str(error).split())[:200]
            raise BackendError(f"{self.name} failed: {said}") from error


def _note(event: torch.cuda.Event | None) -> None:
    if event is not None:
        event.record()
