"""config_text: what Triton is told of one model, or of two that an ensemble runs in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.bundle.graph_key import BATCH, Tensor
from .options import Device, Platform, TritonOptions
from .text_format import Word, map_of, text_of_message

MOST_WARMED_UP = 32
"""Batch sizes; of more, powers of two."""

_TYPES = {"float32": Word("TYPE_FP32"), "uint8": Word("TYPE_UINT8")}
_KINDS: dict[Device, Word] = {
    "auto": Word("KIND_AUTO"),
    "cpu": Word("KIND_CPU"),
    "gpu": Word("KIND_GPU"),
}
MODEL_FILES: dict[Platform, str] = {
    "onnxruntime": "model.onnx",
    "openvino": "model.onnx",  # its default is model.xml
    "tensorrt": "model.plan",
}


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives, and in which batches.

    `most` is how many images one run takes that Triton may gather from requests; 0 where a run is
    one request, of any number of images, which is then an axis of its own.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    most: int

    def dims(self, tensor: Tensor) -> list[int]:
        """Return a tensor's shape as a configuration has it: without the axis that Triton fills."""
        axis, *sizes = tensor.shape
        if axis != BATCH or not all(isinstance(size, int) for size in sizes):
            raise ValueError(f"{tensor.name} {tensor.shape} has another axis free than the batch")
        return [*([] if self.most else [-1]), *(int(size) for size in sizes)]


@dataclass(frozen=True, slots=True)
class Step:
    """A model of an ensemble; `renamed` are its tensors that have another name outside."""

    model: str
    signature: Signature
    renamed: Mapping[str, str]


def config_text(
    name: str,
    signature: Signature,
    options: TritonOptions,
    *,
    parameters: Mapping[str, str],
    is_bf16: bool = False,
) -> str:
    """Return the config.pbtxt of one model.

    Fields are those of model_config.proto (triton-inference-server/common). What a backend makes of
    its parameters is in its README: onnxruntime_backend (accelerator "cuda"), openvino_backend.
    """
    platform = options.triton_platform
    device: Device = "gpu" if platform == "tensorrt" else options.triton_device
    if platform == "openvino":
        device = "cpu"  # its backend refuses others
    own = _openvino(options, is_bf16=is_bf16) if platform == "openvino" else {}
    batching = {"max_queue_delay_microseconds": options.triton_delay_us}
    return text_of_message(
        {
            "name": name,
            "backend": platform,
            "default_model_filename": MODEL_FILES[platform],
            **_interface(signature, options.triton_version),
            "instance_group": {"count": options.triton_instances, "kind": _KINDS[device]},
            "dynamic_batching": batching if signature.most > 1 else None,
            "optimization": _cuda() if platform == "onnxruntime" and device != "cpu" else None,
            "model_warmup": [*_warm_up(signature, is_cpu=device == "cpu")],
            "parameters": _parameters({**own, **parameters}),
        }
    )


def ensemble_text(
    name: str,
    signature: Signature,
    steps: Sequence[Step],
    options: TritonOptions,
    *,
    parameters: Mapping[str, str],
) -> str:
    """Return the config.pbtxt of models that run in turn, each on what an earlier one gives.

    The steps name the version that was written with them, so that no other is mixed in.
    """
    return text_of_message(
        {
            "name": name,
            "platform": "ensemble",
            **_interface(signature, options.triton_version),
            "ensemble_scheduling": {
                "step": [
                    {
                        "model_name": step.model,
                        "model_version": options.triton_version,
                        "input_map": _map_of(step.signature.inputs, step),
                        "output_map": _map_of(step.signature.outputs, step),
                    }
                    for step in steps
                ]
            },
            "parameters": _parameters(parameters),
        }
    )


def _interface(signature: Signature, version: int) -> dict[str, Any]:
    return {
        "max_batch_size": signature.most,
        "version_policy": {"specific": {"versions": [version]}},
        "input": [_tensor(one, signature) for one in signature.inputs],
        "output": [_tensor(one, signature) for one in signature.outputs],
    }


def _tensor(tensor: Tensor, signature: Signature) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "data_type": _TYPES[tensor.dtype],
        "dims": signature.dims(tensor),
    }


def _map_of(tensors: Sequence[Tensor], step: Step) -> list[dict[str, Any]]:
    return map_of({one.name: step.renamed.get(one.name, one.name) for one in tensors})


def _parameters(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return map_of({name: {"string_value": text} for name, text in values.items()})


def _cuda() -> dict[str, Any]:
    """Return what keeps CUDA from rounding float32 to TF32, which the gate did not allow either."""
    cuda = {"name": "cuda", "parameters": map_of({"use_tf32": "0"})}
    return {"execution_accelerators": {"gpu_execution_accelerator": [cuda]}}


def _openvino(options: TritonOptions, *, is_bf16: bool) -> dict[str, str]:
    """Return the parameters of the OpenVINO backend.

    It fixes a model's batch at `max_batch_size`, and refuses others or pads them to it.
    """
    several = options.triton_instances > 1
    return {
        "PERFORMANCE_HINT": "THROUGHPUT" if several else "LATENCY",
        **({"NUM_STREAMS": str(options.triton_instances)} if several else {}),
        **({"HINT_BF16": "YES"} if is_bf16 else {}),
        **({"ENABLE_BATCH_PADDING": "YES"} if options.triton_batch else {}),
    }


def _warm_up(signature: Signature, *, is_cpu: bool) -> Iterator[dict[str, Any]]:
    """Yield requests that are run before a model counts as ready.

    A GPU's libraries choose their kernels anew for each batch size; on a CPU the smallest and the
    largest show whether there is memory for them.
    """
    most = max(signature.most, 1)
    sizes = {1, most} if is_cpu else set(range(1, most + 1))
    if len(sizes) > MOST_WARMED_UP:
        sizes = {size for size in sizes if size & (size - 1) == 0} | {most}
    for size in sorted(sizes):
        yield {
            "name": f"batch of {size}",
            "batch_size": size,
            "inputs": map_of(
                {
                    one.name: {
                        "data_type": _TYPES[one.dtype],
                        "dims": [abs(side) for side in signature.dims(one)],  # of a free axis 1
                        "zero_data": True,
                    }
                    for one in signature.inputs
                }
            ),
            "count": 1,
        }
