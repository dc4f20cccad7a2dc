"""The precision report: which number formats a finished engine holds, read back from it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.errors import EngineError
from ...runtime.engines.tensorrt.engine_manifest import PrecisionReport, Source
from ...runtime.engines.tensorrt.package import TensorRTPackage
from .engine_text import counts_from_plan
from .number_formats import Counts, FormatCounts, add, format_in, wider

if TYPE_CHECKING:
    import tensorrt

_LEAST_TOLD = {"weights": 0.95, "outputs": 0.25, "multiplications": 0.95}
"""How much of what the network has a source must tell of to be believed: all of it, and of the
layers' outputs what is left when layers are fused."""


def precision_report_of(
    package: TensorRTPackage,
    network: tensorrt.INetworkDefinition,
    plan: bytes,
    *,
    inspected: str | None,
) -> PrecisionReport:
    """Read back an engine's number formats from the nearest source there is.

    The engine inspector is asked first, which needs a GPU. Next is the table of tensors that the
    compiler writes into an engine file. Either may tell of a part only, as the inspector does of
    fused layers, and then it is not taken for the whole. What neither tells is counted on the
    network that the builder was given, which proves nothing: of a strongly typed network, too, a
    compiler was seen to turn one float32 convolution between two casts into FP16, and the INT8
    weights of transposed convolutions back into float32 ones before it multiplies.

    Args:
        package: The package that built it.
        network: The parsed `INetworkDefinition`.
        plan: The engine's bytes.
        inspected: The engine inspector's JSON, or None where there is no GPU to ask it.
    """
    faces = _faces(network)
    asked = counts_from_network(package.trt, network, faces)
    told: list[tuple[Source, FormatCounts]] = []
    if inspected is not None:
        told.append(("engine inspector", counts_from_inspector(inspected, faces)))
    told.append(("engine file", counts_from_plan(plan, faces)))

    def believed(part: str) -> tuple[Counts, Source]:
        whole: Counts = getattr(asked, part)
        least = _LEAST_TOLD[part] * sum(whole.values())
        candidates = ((getattr(counts, part), source) for source, counts in told)
        return next(
            ((counts, source) for counts, source in candidates if sum(counts.values()) >= least),
            (whole, "typed network"),
        )

    weights, weights_from = believed("weights")
    outputs, outputs_from = believed("outputs")
    multiplications, multiplications_from = believed("multiplications")
    return PrecisionReport(
        weights=weights,
        weights_from=weights_from,
        outputs=outputs,
        outputs_from=outputs_from,
        multiplications=multiplications,
        multiplications_from=multiplications_from,
        asked=asked.multiplications,
    )


def check_precision_report(
    precision_report: PrecisionReport, precision: Precision, *, name: str
) -> None:
    """Refuse a label that the engine does not deserve.

    Raises:
        EngineError: Too little of it has that precision, or nothing could be read back.
    """
    problem = precision_report.problem_with(precision)
    if problem is None:
        return
    step = "export the graphs again, or report this with the version of TensorRT"
    if not precision_report.proves(precision):
        step = "the engine inspector tells more of one batch size, so try --batch 1,1,1"
    elif precision == "int8":
        step = "more of it is computed in float than that, so use --fp16 for engines"
    raise EngineError(f"{name} is not {precision}: {problem}; {step}")


def counts_from_inspector(text: str, faces: frozenset[str]) -> FormatCounts:
    """Return what an engine inspector's JSON tells.

    Layers that were fused by the compiler list no weights, and with a free batch some versions
    tell no formats: what is not told does not count.

    Args:
        text: What `get_engine_information` gave for an engine built with detailed verbosity.
        faces: Names of the engine's inputs and outputs.
    """
    counts = FormatCounts()
    try:
        layers = json.loads(text).get("Layers", ())
    except (ValueError, AttributeError):
        return counts
    for layer in layers:
        if not isinstance(layer, Mapping):
            continue  # only a name: the engine was built without detailed verbosity
        for key in ("Weights", "Bias"):
            held = layer.get(key)
            if isinstance(held, Mapping):
                add(counts.weights, format_in(held.get("Type", "")), int(held.get("Count", 0)))
        for output in layer.get("Outputs", ()):
            found = format_in(output.get("Format/Datatype", ""))
            if found and output.get("Name") not in faces:
                add(counts.outputs, found, _values(output.get("Dimensions", ())))
        _add_multiplications(counts.multiplications, layer)
    return counts


def _add_multiplications(counts: Counts, layer: Mapping[str, Any]) -> None:
    """Count a layer of the inspector's that holds weights: each is used once at each place."""
    held, inputs, outputs = layer.get("Weights"), layer.get("Inputs"), layer.get("Outputs")
    if not (isinstance(held, Mapping) and inputs and outputs):
        return
    found = wider(format_in(inputs[0].get("Format/Datatype", "")), format_in(held.get("Type", "")))
    is_transposed = "deconvolution" in str(layer.get("ParameterType", "")).lower()
    spread = (inputs if is_transposed else outputs)[0].get("Dimensions") or ()
    if not isinstance(spread, str):
        add(counts, found, int(held.get("Count", 0)) * _values(spread[2:]))


def counts_from_network(
    trt: Any, network: tensorrt.INetworkDefinition, faces: frozenset[str]
) -> FormatCounts:
    """Return what the types of a parsed, strongly typed network tell: what a graph asks for."""
    counts = FormatCounts()
    makers: dict[str, tensorrt.ILayer] = {}
    holders = {
        trt.LayerType.CONSTANT: (trt.IConstantLayer, ("weights",)),
        trt.LayerType.CONVOLUTION: (trt.IConvolutionLayer, ("kernel", "bias")),
        trt.LayerType.DECONVOLUTION: (trt.IDeconvolutionLayer, ("kernel", "bias")),
    }
    transposed = trt.LayerType.DECONVOLUTION
    multiplying = {trt.LayerType.CONVOLUTION, transposed, trt.LayerType.MATRIX_MULTIPLY}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for number in range(layer.num_outputs):
            tensor = layer.get_output(number)
            makers[tensor.name] = layer
            found = format_in(str(tensor.dtype))
            if found and tensor.name not in faces and layer.type != trt.LayerType.CONSTANT:
                add(counts.outputs, found, _values(tensor.shape))
        kernel: Any = None
        if layer.type in holders:
            # The bindings hand out the base class; the layer's type tells what it is.
            layer.__class__, attributes = holders[layer.type]
            for attribute in attributes:
                held = getattr(layer, attribute)
                add(counts.weights, format_in(str(held.dtype)), int(held.size))
            kernel = getattr(layer, attributes[0])
        if layer.type in multiplying:
            source = _format_read(trt, layer.get_input(0), makers)
            # A kernel that is quantised is a second input, else it is the layer's own constant.
            second = layer.get_input(1) if layer.num_inputs > 1 else None
            if second is None:
                weights, held_in = int(kernel.size), format_in(str(kernel.dtype))
            else:
                weights, held_in = _values(second.shape), _format_read(trt, second, makers)
            spread = layer.get_input(0) if layer.type == transposed else layer.get_output(0)
            number = weights * _values(tuple(spread.shape)[2:])
            add(counts.multiplications, wider(source, held_in), number)
    return counts


def _format_read(
    trt: Any, tensor: tensorrt.ITensor, makers: Mapping[str, tensorrt.ILayer]
) -> str | None:
    """Return the format that a layer reads a tensor in: what was dequantised for it is INT8."""
    maker = makers.get(tensor.name)
    while maker is not None and maker.type == trt.LayerType.SHUFFLE:
        maker = makers.get(maker.get_input(0).name)
    if maker is not None and maker.type == trt.LayerType.DEQUANTIZE:
        return format_in(str(maker.get_input(0).dtype))
    return format_in(str(tensor.dtype))


def _faces(network: tensorrt.INetworkDefinition) -> frozenset[str]:
    inputs = (network.get_input(index).name for index in range(network.num_inputs))
    outputs = (network.get_output(index).name for index in range(network.num_outputs))
    return frozenset((*inputs, *outputs))


def _values(dimensions: Any) -> int:
    """Return how many values a tensor has for one image: a free axis, -1, counts once."""
    try:
        return math.prod(abs(int(size)) for size in dimensions)
    except (TypeError, ValueError):  # "N/A", or nothing
        return 0
