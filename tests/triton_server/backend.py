"""Stands in for a backend of Triton: runs the same file, by the same library's Python package.

Triton's own ONNX Runtime and OpenVINO backends are in its containers only; NVIDIA's wheel has the
server, the scheduler, the ensembles and both protocols, and its Python backend, which a folder with
this file as `model.py` makes a backend of any name (docs/python_based_backends.md of
triton-inference-server/backend). Tensors are handed over by DLPack: that build reads the arrays of
NumPy 1 only, and those of NumPy 2 as empty.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb  # type: ignore[import-not-found]  # given by the server

DTYPES = {"TYPE_FP32": "float32", "TYPE_UINT8": "uint8"}


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args: dict[str, Any]) -> None:
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        path = folder / config["default_model_filename"]
        self._run, inputs, outputs = OPENERS[config["backend"]](path)
        batch = [-1] if config["max_batch_size"] else []
        for what, tensors in (("input", inputs), ("output", outputs)):
            said = {
                one["name"]: (DTYPES[one["data_type"]], [*batch, *one["dims"]])
                for one in config[what]
            }
            if said != tensors:
                raise ValueError(f"{config['name']}: {what} {said}, and the graph has {tensors}")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run what the scheduler gathered as one batch, as Triton's own backends do."""
        given = [
            {one.name(): np.from_dlpack(one) for one in request.inputs()} for request in requests
        ]
        batch = {name: np.concatenate([one[name] for one in given]) for name in given[0]}
        found = self._run(batch)
        responses, start = [], 0
        for request, one in zip(requests, given, strict=True):
            end = start + len(next(iter(one.values())))
            tensors = [pb.Tensor.from_dlpack(name, found[name][start:end]) for name in found]
            wanted = request.requested_output_names()
            responses.append(pb.InferenceResponse([it for it in tensors if it.name() in wanted]))
            start = end
        return responses


def by_onnxruntime(path: Path) -> tuple[Any, Any, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}

    def tensors(values: Any) -> Any:
        return {
            one.name: (
                kinds[one.type],
                [side if isinstance(side, int) else -1 for side in one.shape],
            )
            for one in values
        }

    names = [one.name for one in session.get_outputs()]
    inputs, outputs = tensors(session.get_inputs()), tensors(session.get_outputs())
    return (lambda batch: dict(zip(names, session.run(names, batch), strict=True))), inputs, outputs


def by_openvino(path: Path) -> tuple[Any, Any, Any]:
    import openvino

    model = openvino.Core().read_model(str(path))

    def tensors(ports: Any) -> Any:
        return {
            port.get_any_name(): (
                np.dtype(port.get_element_type().to_dtype()).name,
                [-1 if it.is_dynamic else it.get_length() for it in port.get_partial_shape()],
            )
            for port in ports
        }

    inputs, outputs = tensors(model.inputs), tensors(model.outputs)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    names = [port.get_any_name() for port in compiled.outputs]

    def run(batch: Any) -> Any:
        found = compiled(batch)
        return {name: np.array(found[name]) for name in names}

    return run, inputs, outputs


OPENERS = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}
