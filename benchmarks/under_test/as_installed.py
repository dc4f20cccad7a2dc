"""Inference engines the way people open them: a file and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import cast

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.errors import MissingDependencyError, missing_dependency
from ...runtime.engines.base import Arrays, Batch

Run = Callable[[Batch], Arrays]


def plain_onnx(path: Path, threads: int | None) -> Run:
    """Open a graph in ONNX Runtime with no option set; `threads` where the user gave a number.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime as ort  # noqa: PLC0415  # the optional engine

        from ...runtime.engines import onnx_runtime as backend_onnx  # noqa: F401, PLC0415  # turns telemetry off first
    except ModuleNotFoundError as error:
        raise missing_dependency("a rival", "onnxruntime", extra="cpu") from error
    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (face,) = session.get_inputs()
    outputs = [output.name for output in session.get_outputs()]
    return lambda batch: dict(zip(outputs, session.run(None, {face.name: batch}), strict=True))


def plain_openvino(path: Path, threads: int | None) -> Run:
    """Open a graph in OpenVINO with no option set; `threads` where the user gave a number.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
    """
    ov = _openvino()
    settings = {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
    compiled = ov.Core().compile_model(str(path), "CPU", settings)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(batch: Batch) -> Arrays:
        found = compiled(batch)
        return {name: found[place] for place, name in enumerate(names)}

    return run


def openvino_precision() -> Precision:
    """Return what OpenVINO computes a float32 graph in where nobody says: it may be bf16.

    Also float32 where it is not installed.
    """
    try:
        ov = _openvino()
    except MissingDependencyError:
        return "fp32"
    rounds = ov.Core().get_property("CPU", "INFERENCE_PRECISION_HINT") == ov.Type.bf16
    return "bf16" if rounds else "fp32"


def _openvino() -> ModuleType:
    try:
        import openvino  # noqa: PLC0415  # the optional engine

        from ...runtime.engines import openvino_runtime as backend_openvino  # noqa: F401, PLC0415  # turns telemetry off first
    except ModuleNotFoundError as error:
        raise missing_dependency("a rival", "openvino", extra="openvino") from error
    return cast("ModuleType", openvino)
