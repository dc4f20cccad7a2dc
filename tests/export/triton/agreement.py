"""A model repository held against Triton's own schema, and against its ONNX files.

The schema is model_config_pb2 of the package tritonclient; what a configuration must agree with in
a graph is as the backends check it (CompareDimsSupported in onnxruntime_backend, openvino_backend
and tensorrt_backend), and of an ensemble as ensemble_utils.cc of triton-inference-server/core.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

Tensors = dict[str, tuple[str, tuple[int, ...]]]

_TYPES = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.UINT8: "TYPE_UINT8"}


def config_of(folder: Path) -> Any:
    """A model's configuration, as Triton's own schema reads it."""
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def configs_of(repository: Path) -> dict[str, Any]:
    return {path.name: config_of(path) for path in sorted(repository.iterdir()) if path.is_dir()}


def problems_of(repository: Path) -> list[str]:
    """What Triton would refuse, or run otherwise than it says."""
    configs = configs_of(repository)
    found: list[str] = []
    for folder, config in configs.items():
        if config.name != folder:
            found.append(f"{folder} is called {config.name}")
        versions = {int(path.name) for path in (repository / folder).iterdir() if path.is_dir()}
        if versions != {*config.version_policy.specific.versions}:
            found.append(f"{folder} serves {config.version_policy}, and has {sorted(versions)}")
        if config.platform == "ensemble":
            found += _of_ensemble(config, configs)
        elif config.default_model_filename.endswith(".onnx"):
            (version,) = versions
            path = repository / folder / str(version) / config.default_model_filename
            found += _of_graph(config, onnx.load(path).graph)
        found += _of_warm_up(config)
    return found


def tensors_of(configured: Any, most: int) -> Tensors:
    """Name to type and whole shape, -1 for the batch, of a configuration's inputs or outputs."""
    name_of = model_config_pb2.DataType.Name
    batch = (-1,) if most else ()
    return {one.name: (name_of(one.data_type), (*batch, *one.dims)) for one in configured}


def _tensors_of_graph(values: Any) -> Tensors:
    found = {}
    for value in values:
        kind = value.type.tensor_type
        sides = tuple(
            -1 if side.HasField("dim_param") else side.dim_value for side in kind.shape.dim
        )
        found[value.name] = (_TYPES.get(kind.elem_type, str(kind.elem_type)), sides)
    return found


def _of_graph(config: Any, graph: Any) -> Iterator[str]:
    most = config.max_batch_size
    for what, configured, values in (
        ("takes", config.input, graph.input),
        ("gives", config.output, graph.output),
    ):
        said, real = tensors_of(configured, most), _tensors_of_graph(values)
        if said != real:
            yield f"{config.name} {what} {said}, and its graph {real}"
    pads = "ENABLE_BATCH_PADDING" in config.parameters
    if config.backend == "openvino" and pads != (most > 0):  # it fixes the batch at `most`
        yield f"{config.name} pads: {pads}, and takes {most} per run"
    if config.HasField("dynamic_batching") and most < 2:
        yield f"{config.name} has nothing to batch"


def _of_warm_up(config: Any) -> Iterator[str]:
    inputs = tensors_of(config.input, 0)
    for request in config.model_warmup:
        if not 1 <= request.batch_size <= max(config.max_batch_size, 1):
            yield f"{config.name} is warmed up with {request.batch_size} at once"
        given = tensors_of(
            [one_named(name, one) for name, one in sorted(request.inputs.items())], 0
        )
        shaped = {
            name: (kind, tuple(1 if side < 0 else side for side in sides))
            for name, (kind, sides) in inputs.items()
        }
        if given != shaped:
            yield f"{config.name} is warmed up with {given}, and takes {inputs}"


def one_named(name: str, given: Any) -> Any:
    """A warm-up's input in the form of an input."""
    return model_config_pb2.ModelInput(name=name, data_type=given.data_type, dims=given.dims)


def _of_ensemble(config: Any, configs: dict[str, Any]) -> Iterator[str]:
    known = tensors_of(config.input, config.max_batch_size)
    for step in config.ensemble_scheduling.step:
        model = configs.get(step.model_name)
        if model is None or step.model_version not in model.version_policy.specific.versions:
            yield f"{config.name} runs {step.model_name} {step.model_version}, which is not there"
            continue
        if config.max_batch_size > model.max_batch_size:
            yield f"{config.name} takes more at once than {step.model_name}"
        takes = tensors_of(model.input, model.max_batch_size)
        gives = tensors_of(model.output, model.max_batch_size)
        if set(step.input_map) != set(takes):
            yield f"{config.name} gives {step.model_name} {sorted(step.input_map)}"
        for name, outside in step.input_map.items():
            if known.get(outside) != takes.get(name):
                yield f"{step.model_name} takes {takes.get(name)}, and {outside} is {known}"
        for name, outside in step.output_map.items():
            if name not in gives:
                yield f"{step.model_name} gives no {name}"
            else:
                known[outside] = gives[name]
    for name, tensor in tensors_of(config.output, config.max_batch_size).items():
        if known.get(name) != tensor:
            yield f"{config.name} gives {name} {tensor}, and its steps {known.get(name)}"
