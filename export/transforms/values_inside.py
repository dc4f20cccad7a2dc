"""Every float value inside a graph while it runs, in ONNX Runtime."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ...runtime.engines.base import Arrays, Batch
from ...runtime.engines.import_onnxruntime import ort

_FATAL_ONLY = 4


class GraphWithValues:
    """A float32 graph on the CPU that gives its values inside, whatever their shapes, by name.

    A `Backend` knows its outputs' shapes beforehand, which of values inside are often not known.
    """

    name = f"ONNX Runtime {ort.__version__} CPUExecutionProvider"
    input_dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (self._input,) = (one.name for one in self._session.get_inputs())
        self._outputs = [one.name for one in self._session.get_outputs()]

    def run(self, batch: Batch, /) -> Arrays:
        """Run the graph once on its one input, (N, ...) float32."""
        values = self._session.run(self._outputs, {self._input: batch})
        return dict(zip(self._outputs, values, strict=True))


@contextlib.contextmanager
def opened_with_values(model: ir.Model, folder: Path) -> Iterator[GraphWithValues]:
    """Open a float32 graph so that a run gives every float tensor inside; keep no file of it."""
    exposed = model.clone()
    outputs = {value.name for value in exposed.graph.outputs}
    for node in exposed.graph:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT and value.name and value.name not in outputs:
                exposed.graph.outputs.append(value)
    path = folder / "exposed.onnx"
    ir.save(exposed, path)
    try:
        yield GraphWithValues(path)
    finally:
        path.unlink()
