"""One run of a graph that is not in a bundle, in ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from ...runtime.core.errors import GraphError
from ...runtime.engines.import_onnxruntime import ort
from .emit import Array

_FATAL = 4  # severity of what is logged; errors are raised, too


class Session:
    """A graph, opened in ONNX Runtime; GraphError where it does not open or run."""

    def __init__(self, graph: Path | onnx.ModelProto) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL
        self._name = str(graph) if isinstance(graph, Path) else "the graph"
        content = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
        try:
            self._session = ort.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no root of their own
            raise self._refusal("opened", error) from error

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs of these names."""
        try:
            found = self._session.run([*outputs], dict(inputs))
        except Exception as error:
            raise self._refusal("run", error) from error
        return dict(zip(outputs, found, strict=True))

    def _refusal(self, done: str, error: Exception) -> GraphError:
        first = str(error).strip().partition("\n")[0][:300]
        return GraphError(
            first,
            context=f"{self._name} cannot be {done} by ONNX Runtime",
            fix="try it in ONNX Runtime alone, and export it again",
        )


def run_once(
    proto: onnx.ModelProto, inputs: Mapping[str, Array], outputs: Sequence[str]
) -> dict[str, Array]:
    """Open a graph, run it, and close it."""
    return Session(proto).run(inputs, outputs)
