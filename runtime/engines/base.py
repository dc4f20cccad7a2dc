"""Backend: the few methods that every inference engine has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from ..bundle.graph_key import Tensor
from ..core.errors import BackendError

Arrays = Mapping[str, npt.NDArray[np.float32]]


Batch = npt.NDArray[np.float32] | npt.NDArray[np.uint8]


CpuRunner = Literal["onnx", "openvino"]


class Backend(Protocol):
    """One opened graph on one engine. Close it, or use it in a `with` block.

    Attributes:
        name: Engine, version and device, for reports.
        notes: What a user should know of how it runs, a clause each; more can come while it runs.
        input_dtype: What the graph takes: float32, or uint8 where it scales 8-bit luma itself.
        outputs: Names of what it gives.
        threads: How many one run takes on the CPU; None where it does not run there.
    """

    name: str
    notes: tuple[str, ...]
    input_dtype: np.dtype[Any]
    outputs: tuple[str, ...]
    threads: int | None

    def run(self, batch: Batch) -> Arrays:
        """Run the graph once. One thread at a time: the engine's own buffers are used again.

        Args:
            batch: The graph's one input, (N, ...) of `input_dtype`, C-contiguous.

        Returns:
            Output name to (N, ...) float32. The arrays belong to the caller: no later call
            writes into them.

        Raises:
            BackendError: The shape or dtype is not the graph's, or the engine failed.
        """
        ...

    def check_tensors(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Hold the graph's own inputs and outputs against those announced.

        Raises:
            BackendError: A name, shape or dtype differs; both sides are quoted.
        """
        ...

    def close(self) -> None:
        """Release the engine; calling it again does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def check_batch(
    batch: Batch,
    dtype: np.dtype[Any],
    image: tuple[int, ...],
    name: str,
) -> None:
    """Hold an input against what a graph takes.

    Args:
        batch: What was given.
        dtype: What the graph takes.
        image: Its shape without the batch.
        name: The graph's file, for the message.

    Raises:
        BackendError: Shape or dtype is another.
    """
    if batch.dtype != dtype or batch.shape[1:] != image or not len(batch):
        raise BackendError(
            f"{name} takes {dtype} (N, {', '.join(map(str, image))}), and was given {batch.dtype} "
            f"{batch.shape}: prepare images with motorVAE's own frame-to-input function"
        )
