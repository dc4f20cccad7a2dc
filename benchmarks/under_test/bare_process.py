"""The least that any tool must do before its first latent: Python, numpy, the engine, the graph."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from ...runtime.bundle.graph_key import Target
from ...runtime.core.errors import MeasurementError
from ...runtime.core.system.children import python_code
from ...runtime.engines.cpu_threads import default_threads

_MOST_S = 60
_INPUT = """
shape = [1] + [int(size) for size in shape[1:]]
data = np.zeros(shape, np.uint8 if is_luma else np.float32)
"""
_BARE: dict[Target, str] = {
    "onnx": """
import sys, numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
with open(sys.argv[1], "rb") as file:
    session = ort.InferenceSession(file.read(), options, providers=["CPUExecutionProvider"])
taken, = session.get_inputs()
shape, is_luma = taken.shape, "uint8" in taken.type
"""
    + _INPUT
    + """
session.run(None, {taken.name: data})
print("done", flush=True)
""",
    "openvino": """
import sys
sys.modules["openvino_telemetry"] = None
import numpy as np, openvino as ov
core = ov.Core()
with open(sys.argv[1], "rb") as file:
    model = core.read_model(file.read())
settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": int(sys.argv[2])}
settings["INFERENCE_PRECISION_HINT"] = sys.argv[3]
compiled = core.compile_model(model, "CPU", settings)
taken, = compiled.inputs
shape = [0] + [size.get_length() for size in list(taken.get_partial_shape())[1:]]
is_luma = "uint8" in str(taken.get_element_type())
"""
    + _INPUT
    + """
compiled.create_infer_request().infer([data])
print("done", flush=True)
""",
}
"""Scripts that import nothing of ours: they open one graph as the engine's own pages show, and run
it once (onnxruntime.ai/docs/api/python, docs.openvino.ai/2025/openvino-workflow)."""


def bare_ns(runner: Target, graph: Path, precision: str) -> int:
    """Return nanoseconds from the start of such a process to its first latent."""
    hint = "bf16" if precision == "bf16" else "f32"
    words = (str(graph), str(default_threads()), hint)
    return _ns_to_line(python_code(_BARE[runner], *words))


def empty_python_ns() -> int:
    """Return nanoseconds from the start of a Python to its first line."""
    return _ns_to_line(python_code("print(flush=True)"))


def _ns_to_line(command: list[str]) -> int:
    began_ns = time.perf_counter_ns()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        line = process.stdout.readline() if process.stdout else b""
        taken_ns = time.perf_counter_ns() - began_ns
        try:
            _, said = process.communicate(timeout=_MOST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    if not line:
        last = said.decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
        raise MeasurementError(f"a bare script of the engine ended and said {last[0]!r}")
    return taken_ns
