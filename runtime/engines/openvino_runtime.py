"""OpenVINOBackend: a graph on the CPU in OpenVINO, in the precision asked for, or not at all."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Its import would write an id for Google Analytics below the home folder; without this package it
# takes its own stand-in, which does nothing.
if "openvino_telemetry" not in sys.modules:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino as ov

from ..bundle.graph_key import Precision, Tensor
from ..core.errors import BackendError
from ..core.lifecycle import Closing
from .base import Arrays, Batch, check_batch
from .cpu_threads import checked_threads

_LEAST_SHARE = 0.5
"""Of the layers with weights: a few may stay in float32, the label needs most of them."""
_WEIGHTED = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
_FORMATS = {
    "fp32": {"f32"},
    "fp16": {"f16", "f32"},  # a processor without FP16 arithmetic computes such a graph in float32
    "bf16": {"bf16"},
    "int8": {"i8", "u8"},
}
_HINTS = {"bf16": "bf16"}  # else OpenVINO would round float32 to bf16 unasked where AMX has it


class OpenVINOBackend(Closing):
    """One ONNX graph in OpenVINO on the CPU. One thread at a time: it has one request.

    Args:
        path: The ONNX file.
        precision: What it is to be computed in; bf16 is an arithmetic of the processor, for which
            the float32 file is taken.
        threads: Threads of one run; by default what `default_threads` says.

    Raises:
        ConfigError: `threads` is out of range.
        BackendError: OpenVINO refused the file, or this processor does not compute it in that
            precision.
    """

    def __init__(
        self, path: Path, *, precision: Precision = "fp32", threads: int | None = None
    ) -> None:
        self.threads: int | None = checked_threads(threads)
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": _HINTS.get(precision, "f32"),
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            model = _core().read_model(path)
            compiled = _core().compile_model(model, "CPU", settings)
            request = compiled.create_infer_request()
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO cannot open {path}: {_first_line(error)}; export the bundle again, or "
                "use --backend onnx"
            ) from error
        if len(compiled.inputs) != 1:
            raise BackendError(
                f"{path} has {len(compiled.inputs)} inputs, and an encoder or decoder has 1: "
                "export the bundle again"
            )
        _check_arithmetic(compiled, precision, path)
        self.name = f"OpenVINO {ov.__version__.partition('-')[0]} CPU"
        self.notes: tuple[str, ...] = ()
        self._path = path
        self._compiled: ov.CompiledModel | None = compiled
        self._request = request
        (face,) = compiled.inputs
        self.input_dtype: np.dtype[Any] = np.dtype(face.get_element_type().to_dtype())
        self.outputs = tuple(output.get_any_name() for output in compiled.outputs)
        self._expected = tuple(_shape(face)[1:])

    def check_tensors(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Hold the graph's own tensors against those announced; see `Backend.check_tensors`."""
        compiled = self._open()
        for asked, got in ((inputs, compiled.inputs), (outputs, compiled.outputs)):
            announced = [(t.name, t.dtype, (-1, *t.shape[1:])) for t in asked]
            found = [
                (t.get_any_name(), np.dtype(t.get_element_type().to_dtype()).name, _shape(t))
                for t in got
            ]
            if announced != found:
                raise BackendError(
                    f"{self._path} has {found}, and the manifest announces {announced}: "
                    "export the bundle again"
                )

    def run(self, batch: Batch) -> Arrays:
        """Run the graph once; see `Backend.run`."""
        self._open()
        check_batch(batch, self.input_dtype, self._expected, self._path.name)
        data = np.require(batch, requirements=("C", "W"))  # it shares no memory that is read-only
        try:
            # The tensor shares the array's memory, and both live until the run is over.
            self._request.set_input_tensor(ov.Tensor(data, shared_memory=True))
            self._request.infer()
        except RuntimeError as error:
            raise BackendError(
                f"{self.name} failed on {self._path}: {_first_line(error)}; use --backend onnx, or "
                "export the bundle again"
            ) from error
        return {
            name: self._request.get_output_tensor(place).data.copy()
            for place, name in enumerate(self.outputs)
        }

    def close(self) -> None:
        """Release the compiled graph."""
        self._compiled = None
        self._request = None

    def _open(self) -> ov.CompiledModel:
        if self._compiled is None:
            raise BackendError(f"{self._path.name} was closed: open it again")
        return self._compiled


@functools.cache
def _core() -> ov.Core:
    """Return the one core of this process, which stays.

    Its plug-in gives the thread that loads it a stack for signal handlers, and takes the memory
    away when the last core goes, in whatever thread that happens: the next Ctrl-C then crashes.
    """
    return ov.Core()


def _check_arithmetic(compiled: ov.CompiledModel, precision: Precision, path: Path) -> None:
    """Read back in what the layers with weights are computed.

    Raises:
        BackendError: Most of them in something else.
    """
    counts = Counter(
        facts["runtimePrecision"].value
        for layer in compiled.get_runtime_model().get_ordered_ops()
        for facts in (layer.get_rt_info(),)
        if facts["layerType"].value in _WEIGHTED
    )
    right = sum(count for kind, count in counts.items() if kind in _FORMATS[precision])
    if not counts or right < _LEAST_SHARE * sum(counts.values()):
        told = ", ".join(f"{count} in {kind}" for kind, count in counts.most_common())
        raise BackendError(
            f"OpenVINO does not compute {path.name} in {precision} on this processor (layers with "
            f"weights: {told or 'none found'}): use another --precision, or --backend onnx"
        )


def _shape(face: Any) -> tuple[int, ...]:
    """Return a shape in which a free axis is -1."""
    return tuple(-1 if size.is_dynamic else size.get_length() for size in face.get_partial_shape())


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    # The first lines say where in its own source the error was raised.
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (telling or lines or [type(error).__name__])[0].strip()
