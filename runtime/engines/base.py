"""Backend: one opened graph on one engine, with the few methods that every engine has."""

from __future__ import annotations

import abc
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..bundle.graph_key import Tensor
from ..core.errors import BackendError
from ..core.lifecycle import Closing

Arrays = Mapping[str, npt.NDArray[np.float32]]
Batch = npt.NDArray[np.float32] | npt.NDArray[np.uint8] | npt.NDArray[np.float16]
CpuRunner = Literal["onnx", "openvino"]
Tensors = dict[str, tuple[str, tuple[Any, ...]]]
"""Name of a graph's input or output to its dtype and shape, the free axis of images first."""


def tensors_of(announced: Sequence[Tensor]) -> Tensors:
    """Return what a manifest or a graph's key announces, in the form of an engine's tensors."""
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in announced}


class Backend(Closing):
    """One opened graph on one engine. Close it, or use it in a `with` block.

    Any thread may run and close it. It runs for one of them at a time, as an engine writes every
    result into the same memory, from which it is copied for the caller.
    """

    misfit: type[BackendError] = BackendError
    again = "export the bundle again"

    def __init__(
        self, name: str, file: str, inputs: Tensors, outputs: Tensors, *, threads: int | None = None
    ) -> None:
        if len(inputs) != 1:
            raise BackendError(
                f"{file} has {len(inputs)} inputs, and an encoder or decoder has 1: {self.again}"
            )
        ((self._input_name, (dtype, shape)),) = inputs.items()
        self.name = name  # engine, version and device, for reports
        # What a user should know of how it runs, a clause each; more can come while it runs.
        self.notes: tuple[str, ...] = ()
        # What the graph takes: float32, or uint8 where it scales 8-bit luma itself; float16 may be
        # that of a user's graph.
        taken = dtype if dtype in {"uint8", "float16"} else "float32"
        self.input_dtype: np.dtype[Any] = np.dtype(taken)
        self.outputs = tuple(outputs)
        self.threads = threads  # of one run on the CPU; None where it does not run there
        self._file, self.image_shape = file, shape[1:]
        self._tensors = inputs, outputs
        self._lock = threading.RLock()
        self._is_open = True

    def run(self, batch: Batch) -> Arrays:
        """Run the graph once on its one input, (N, ...) of `input_dtype`, of any order in memory.

        Returns output name to (N, ...) float32; no later call writes into these arrays. A
        BackendError where shape or dtype are not the graph's, it was closed, or the engine failed.
        """
        with self._lock:
            self._check_open()
            wanted = self.input_dtype, self.image_shape
            given = batch.dtype, batch.shape[1:]
            if (given != wanted and not self._has_free_axes_for(batch)) or not len(batch):
                image = ", ".join(map(str, self.image_shape))
                raise BackendError(
                    f"{self._file} takes {self.input_dtype} (N, {image}), and was given "
                    f"{batch.dtype} {batch.shape}: prepare images with motorVAE's own "
                    "frame-to-input function"
                )
            return self._run(batch)

    @property
    def tensors(self) -> tuple[Tensors, Tensors]:
        """Inputs and outputs as the graph itself has them."""
        return self._tensors

    def check_tensors(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Raise `misfit` where a name, shape or dtype of the graph is not the announced one."""
        self._check_open()
        for asked, found in zip((inputs, outputs), self._tensors, strict=True):
            announced = tensors_of(asked)
            if announced != found:
                raise self.misfit(
                    f"{self._file} has {found}, and the manifest announces {announced}: "
                    f"{self.again}"
                )

    def close(self) -> None:
        """Release the engine, after a run of another thread; calling it again does nothing."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._release()

    @abc.abstractmethod
    def _run(self, batch: Batch) -> Arrays:
        """Run a batch whose shape and dtype were checked, and copy what came out."""

    @abc.abstractmethod
    def _release(self) -> None:
        """Release the engine."""

    def _has_free_axes_for(self, batch: Batch) -> bool:
        """Whether a batch differs from what the graph announces in free axes alone."""
        axes, sizes = self.image_shape, batch.shape[1:]
        return (
            batch.dtype == self.input_dtype
            and len(axes) == len(sizes)
            and all(
                axis in {size, None} or isinstance(axis, str)
                for axis, size in zip(axes, sizes, strict=True)
            )
        )

    def _check_open(self) -> None:
        if not self._is_open:
            raise BackendError(f"{self._file} was closed: open it again")
