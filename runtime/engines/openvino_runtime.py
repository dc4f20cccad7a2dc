"""OpenVINOBackend: a graph on the CPU in OpenVINO, in the precision asked for, or not at all."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

# Its import would write an id for Google Analytics below the home folder; without this package it
# takes its own stand-in, which does nothing.
if "openvino_telemetry" not in sys.modules:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino as ov

from ..bundle.graph_key import BATCH, Precision
from ..core.errors import BackendError
from .base import Arrays, Backend, Batch, Tensors
from .cpu_threads import checked_threads

_LEAST_SHARE = 0.5  # of the layers with weights: a few may stay in float32
_WEIGHTED = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
_FORMATS = {
    "fp32": {"f32"},
    "fp16": {"f16", "f32"},  # a processor without FP16 arithmetic computes such a graph in float32
    "bf16": {"bf16"},
    "int8": {"i8", "u8"},
}


class OpenVINOBackend(Backend):
    """One ONNX graph in OpenVINO on the CPU, with one request.

    In bf16 the processor computes the float32 file. A BackendError where OpenVINO refuses the
    file, or does not compute it in the precision asked for here.
    """

    library = f"OpenVINO {ov.__version__.partition('-')[0]}"

    def __init__(
        self,
        path: Path,
        content: bytes | None = None,
        *,
        precision: Precision = "fp32",
        threads: int | None = None,
        external_data: bool = False,
    ) -> None:
        threads = checked_threads(threads)
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            # Without it OpenVINO would round float32 to bf16 unasked where AMX has it.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            # Two models of one thread would be pinned to the same core of a process.
            "ENABLE_CPU_PINNING": threads > 1,
        }
        try:
            data = path.read_bytes() if content is None else content
            model = _core().read_model(str(path) if external_data else data)
            compiled = _core().compile_model(model, "CPU", settings)
            self._request: Any = compiled.create_infer_request()
        except (OSError, RuntimeError) as error:
            raise BackendError(
                _first_line(error),
                context=f"OpenVINO cannot open {path}",
                fix="export the bundle again, or use --backend onnx",
            ) from error
        inputs, outputs = _tensors(compiled.inputs), _tensors(compiled.outputs)
        super().__init__(f"{self.library} CPU", str(path), inputs, outputs, threads=threads)
        _check_arithmetic(compiled, precision, path)

    def _run(self, batch: Batch) -> Arrays:
        data = np.require(batch, requirements=("C", "W"))  # it shares no memory that is read-only
        request = self._request
        try:
            # The tensor shares the array's memory, and both live until the run is over.
            request.set_input_tensor(ov.Tensor(data, shared_memory=True))
            request.infer()
        except RuntimeError as error:
            raise BackendError(
                _first_line(error),
                context=f"{self.name} failed on {self._file}",
                fix="use --backend onnx, or export the bundle again",
            ) from error
        return {
            name: request.get_output_tensor(index).data.astype(np.float32)  # which copies
            for index, name in enumerate(self.outputs)
        }

    def _release(self) -> None:
        self._request = None


@functools.cache
def _core() -> ov.Core:
    """Return the one core of this process, which stays.

    Its plug-in gives the thread that loads it a stack for signal handlers, and takes the memory
    away when the last core goes, in whatever thread that happens: the next Ctrl-C then crashes.
    """
    return ov.Core()


def _check_arithmetic(compiled: ov.CompiledModel, precision: Precision, path: Path) -> None:
    """Refuse a graph most of whose layers with weights are computed in something else."""
    counts = Counter(
        facts["runtimePrecision"].value
        for layer in compiled.get_runtime_model().get_ordered_ops()
        for facts in (layer.get_rt_info(),)
        if facts["layerType"].value in _WEIGHTED
    )
    right = sum(count for kind, count in counts.items() if kind in _FORMATS[precision])
    if not counts or right < _LEAST_SHARE * sum(counts.values()):
        found = ", ".join(f"{count} in {kind}" for kind, count in counts.most_common())
        raise BackendError(
            f"OpenVINO does not compute {path.name} in {precision} on this processor (layers with "
            f"weights: {found or 'none found'}): use another --precision, or --backend onnx"
        )


def _tensors(ports: Iterable[Any]) -> Tensors:
    return {
        port.get_any_name(): (
            np.dtype(port.get_element_type().to_dtype()).name,
            tuple(
                BATCH if size.is_dynamic else size.get_length() for size in port.get_partial_shape()
            ),
        )
        for port in ports
    }


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    # The first lines say where in its own source the error was raised.
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (telling or lines or [type(error).__name__])[0].strip()
