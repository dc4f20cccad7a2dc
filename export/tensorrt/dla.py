"""Engines for the deep learning accelerator (DLA) of a Jetson Orin.

By NVIDIA's documentation (TensorRT 11.4.1, "Working with DLA", "Strongly Typed Networks for DLA",
"DLA Supported Layers and Restrictions", "GPU Fallback Mode"): TensorRT 11.4.1 is the first release
that takes strongly typed networks to DLA, on Jetson AGX Orin with JetPack 7.2.2 or later; 10.3 to
10.7 had DLA with precision flags, which a strongly typed network excludes, and 10.8 to 11.4.0 had
none on a Jetson. DLA computes in FP16 and INT8 only and takes one batch size. With GPU fallback
the builder moves what DLA cannot run to the GPU without an error; so what that is gets named here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...runtime.core.errors import EngineError, shortened
from ...runtime.engines.tensorrt.build_record import DlaPlacement
from ...runtime.engines.tensorrt.package import EngineLog, TensorRTPackage

if TYPE_CHECKING:
    import tensorrt

OLDEST_FOR_DLA = (11, 4, 1)
FOR_DLA = "ADJUST_FOR_DLA"
"""The flag by which a parser makes layers that DLA can run; TensorRT 10.3 has none."""

_MOVED = tuple(
    map(
        re.compile,
        (
            r"Layer '(?P<name>.+?)' \((?P<kind>\w+)\): Unsupported on DLA\. Switching",
            r"Switching to GPU for layer (?P<name>.+)",
            r"Switching (?P<name>(?!this layer).+?) device type to GPU",
            r"layer (?P<name>.+?) is not supported on DLA, falling back to GPU",
        ),
    )
)
"""What builders say of a layer that they move to the GPU by themselves, as recorded in
github.com/NVIDIA-AI-IOT/jetson_dla_tutorial/issues/3, marcoslucianops/DeepStream-Yolo/issues/27 and
onnx/tensorflow-onnx/issues/1632."""


@dataclass(frozen=True, slots=True)
class DlaRequest:
    """That an engine is to run on a DLA core."""

    core: int
    fallback: bool = False  # whether what it cannot run may run on the GPU


def dla_objection(package: TensorRTPackage, cores: int, core: int) -> str | None:
    """Return in a clause why engines for a DLA core cannot be built here, or None.

    `cores` is how many TensorRT sees on this machine.
    """
    if package.is_rtx:
        return f"{package.title} has no DLA"
    # Development builds have a fourth part; what is no number is a release of none of these.
    parts = package.version.split(".")[:3]
    numbers = tuple(int(part) for part in parts if part.isdigit())
    if numbers < OLDEST_FOR_DLA:
        oldest = ".".join(map(str, OLDEST_FOR_DLA))
        return (
            f"{package.title} takes no strongly typed network to DLA, and those of motorVAE are "
            f"all strongly typed: TensorRT {oldest} with JetPack 7.2.2 on an Orin is the first"
        )
    if not cores:
        return f"{package.title} sees no DLA core on this machine"
    if core >= cores:
        return f"this machine has {cores} DLA cores, numbered from 0, and no core {core}"
    return None


def check_dla(package: TensorRTPackage, request: DlaRequest) -> None:
    """Raise an EngineError where there is no such core, before anything is built."""
    cores = 0
    if not package.is_rtx:
        log = EngineLog(package.trt)
        cores = int(package.trt.Builder(log.logger).num_DLA_cores)
    if objection := dla_objection(package, cores, request.core):
        raise EngineError(f"{objection}; leave out --use-dla-core")


def place_on_dla(
    package: TensorRTPackage,
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    request: DlaRequest,
    *,
    name: str,
) -> DlaPlacement:
    """Put a network on a DLA core, and what the core cannot run on the GPU, if that is allowed.

    The network's input must have its one batch size already: layers with a free axis run on no
    DLA. `name` is the file of the graph, for messages.

    Raises:
        EngineError: There is no such core, it can run nothing of the network, or not all of it
            and the GPU is not allowed.
    """
    trt = package.trt
    if objection := dla_objection(package, int(builder.num_DLA_cores), request.core):
        raise EngineError(f"{objection}; leave out --use-dla-core")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = request.core
    if config.DLA_core != request.core:
        raise EngineError(
            f"{package.title} was asked for DLA core {request.core} and took {config.DLA_core}: "
            "name another core, or leave out --use-dla-core"
        )
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    # Constants are folded into the layers that read them.
    layers = [layer for layer in layers if layer.type != trt.LayerType.CONSTANT]
    left_over = [layer for layer in layers if not config.can_run_on_DLA(layer)]
    placement = DlaPlacement(
        core=request.core,
        layers=len(layers),
        on_gpu=tuple(f"{layer.name} ({str(layer.type).rpartition('.')[2]})" for layer in left_over),
    )
    check_placement(placement, request, name=name)
    if left_over:
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        for layer in left_over:
            config.set_device_type(layer, trt.DeviceType.GPU)
    return placement


def check_placement(placement: DlaPlacement, request: DlaRequest, *, name: str) -> None:
    """Raise an EngineError where nothing runs on DLA, or something does not and may not."""
    if len(placement.on_gpu) == placement.layers:
        raise EngineError(
            f"DLA core {placement.core} can run none of the {placement.layers} layers of {name}: "
            "leave out --use-dla-core"
        )
    if placement.on_gpu and not request.fallback:
        raise EngineError(
            f"DLA core {placement.core} cannot run {len(placement.on_gpu)} of the "
            f"{placement.layers} layers of {name}: {shortened(placement.on_gpu)}; let the GPU run "
            "them with --allow-gpu-fallback, or leave out --use-dla-core"
        )


def moved_by_builder(placement: DlaPlacement, warnings: Sequence[str]) -> DlaPlacement:
    """Return a placement with what the builder moved to the GPU by itself, by what it said.

    A core has room for so many layers; which of those that it could run do not fit is known only
    once they are compiled.
    """
    moved: dict[str, str] = {}
    for warning in warnings:
        found = next((match for pattern in _MOVED if (match := pattern.search(warning))), None)
        if found is None or not placement.runs(found["name"]):
            continue
        kind = found.groupdict().get("kind") or "moved by the builder"
        if kind != "CONSTANT":
            moved.setdefault(found["name"], f"{found['name']} ({kind})")
    on_gpu = (*placement.on_gpu, *moved.values())
    return placement.model_copy(update={"on_gpu": on_gpu[: placement.layers]})
