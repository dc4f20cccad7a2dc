"""The precision receipt: which number formats a finished engine holds, read back from it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..runtime.bundle import Precision
from ..runtime.errors import EngineError
from ..runtime.flavours import Flavour
from ..runtime.passport import PrecisionReceipt, Source

if TYPE_CHECKING:
    import tensorrt

_LEAST_WEIGHTS, _LEAST_OUTPUTS = 0.95, 0.25
"""How much of what the network has a source must tell of to be believed: all of the weights, and of
the layers' outputs what is left when layers are fused."""

Counts = dict[str, int]

_FORMATS = {
    "half": "fp16",
    "fp16": "fp16",
    "float16": "fp16",
    "float": "fp32",
    "fp32": "fp32",
    "float32": "fp32",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "int8": "int8",
    "fp8": "fp8",
}
"""What NVIDIA's several tools call one number format. Others, as for shapes, carry no values."""
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
_WORD = re.compile(rf"(?<![a-z0-9])({'|'.join(_FORMATS)})(?![a-z0-9])")

_PLAN_TENSOR = re.compile(
    rb"[^_]tensor=\{ (?P<facts>[^{}]*?dims=\{ (?P<dims>[^{}]*)\}[^{}]*?"
    rb'name="(?P<name>[^"]*)".*?type=(?P<type>\w+) \})'
)
_PLAN_PAYLOAD = re.compile(rb"const_payload_size=(\d+)")


def receipt_of(
    flavour: Flavour, network: tensorrt.INetworkDefinition, plan: bytes, *, inspected: str | None
) -> PrecisionReceipt:
    """Read back an engine's number formats from the nearest source there is.

    The engine inspector is asked first, which needs a GPU. Next is the table of tensors that the
    compiler writes into an engine file. Either may tell of a part only, as the inspector does of
    fused layers, and then it is not taken for the whole. What neither tells is counted on the
    network that the builder was given, which proves nothing: of a strongly typed network, too, a
    compiler was seen to turn one float32 convolution between two casts into FP16.

    Args:
        flavour: The package that built it.
        network: The parsed `INetworkDefinition`.
        plan: The engine's bytes.
        inspected: The engine inspector's JSON, or None where there is no GPU to ask it.
    """
    faces = _faces(network)
    all_weights, all_outputs = counts_from_network(flavour.trt, network, faces)
    told: list[tuple[Source, tuple[Counts, Counts]]] = []
    if inspected is not None:
        told.append(("engine inspector", counts_from_inspector(inspected, faces)))
    told.append(("engine file", counts_from_plan(plan, faces)))
    least = _LEAST_WEIGHTS * sum(all_weights.values())
    weights_from, weights = next(
        ((source, held) for source, (held, _) in told if sum(held.values()) >= least),
        ("typed network", all_weights),
    )
    least = _LEAST_OUTPUTS * sum(all_outputs.values())
    outputs_from, outputs = next(
        ((source, made) for source, (_, made) in told if sum(made.values()) >= least),
        ("typed network", all_outputs),
    )
    return PrecisionReceipt(
        weights=weights, weights_from=weights_from, outputs=outputs, outputs_from=outputs_from
    )


def check_receipt(receipt: PrecisionReceipt, precision: Precision, *, name: str) -> None:
    """Refuse a label that the engine does not deserve.

    Raises:
        EngineError: Too little of it has that precision, or nothing could be read back.
    """
    problem = receipt.problem_with(precision)
    if problem is None:
        return
    step = (
        "the engine inspector tells more of one batch size, so try --batch 1,1,1"
        if receipt.weights_from == receipt.outputs_from == "typed network"
        else "export the graphs again, or report this with the version of TensorRT"
    )
    raise EngineError(f"{name} is not {precision}: {problem}; {step}")


def counts_from_inspector(text: str, faces: frozenset[str]) -> tuple[Counts, Counts]:
    """Return formats of weights and of layer outputs from an engine inspector's JSON.

    Layers that were fused by the compiler list no weights, and with a free batch some versions
    tell no formats: what is not told does not count.

    Args:
        text: What `get_engine_information` gave for an engine built with detailed verbosity.
        faces: Names of the engine's inputs and outputs.
    """
    weights: Counts = {}
    outputs: Counts = {}
    try:
        layers = json.loads(text).get("Layers", ())
    except (ValueError, AttributeError):
        return {}, {}
    for layer in layers:
        if not isinstance(layer, Mapping):
            continue  # only a name: the engine was built without detailed verbosity
        for key in ("Weights", "Bias"):
            held = layer.get(key)
            if isinstance(held, Mapping) and (found := _format_in(held.get("Type", ""))):
                _add(weights, found, int(held.get("Count", 0)))
        for output in layer.get("Outputs", ()):
            found = _format_in(output.get("Format/Datatype", ""))
            if found and output.get("Name") not in faces:
                _add(outputs, found, _values(output.get("Dimensions", ())))
    return weights, outputs


def counts_from_plan(plan: bytes, faces: frozenset[str]) -> tuple[Counts, Counts]:
    """Return formats of weights and of layer outputs from an engine's own table of tensors.

    The table is the compiler's text inside the engine file. It is not documented, so where
    another version writes it otherwise both parts are empty.

    Args:
        plan: The engine's bytes.
        faces: Names of the engine's inputs and outputs.
    """
    weights: Counts = {}
    outputs: Counts = {}
    for name, kind, facts, dims in _plan_tensors(plan):
        found = _FORMATS.get(kind)
        if found is None or b"is_scratchspace=1" in facts:
            continue
        if payload := _PLAN_PAYLOAD.search(facts):
            _add(weights, found, int(payload[1]) // _BYTES[found])
        elif name.rpartition(".")[0] not in faces:
            numbers = (int(part) for part in dims.split() if part.isdigit())
            _add(outputs, found, math.prod(numbers))
    return weights, outputs


def counts_from_network(
    trt: Any, network: tensorrt.INetworkDefinition, faces: frozenset[str]
) -> tuple[Counts, Counts]:
    """Return formats of weights and of layer outputs of a parsed, strongly typed network."""
    weights: Counts = {}
    outputs: Counts = {}
    holders = {
        trt.LayerType.CONSTANT: (trt.IConstantLayer, ("weights",)),
        trt.LayerType.CONVOLUTION: (trt.IConvolutionLayer, ("kernel", "bias")),
        trt.LayerType.DECONVOLUTION: (trt.IDeconvolutionLayer, ("kernel", "bias")),
    }
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for number in range(layer.num_outputs):
            tensor = layer.get_output(number)
            found = _format_in(str(tensor.dtype))
            if found and tensor.name not in faces and layer.type != trt.LayerType.CONSTANT:
                _add(outputs, found, _values(tensor.shape))
        if layer.type in holders:
            # The bindings hand out the base class; the layer's type tells what it is.
            layer.__class__, attributes = holders[layer.type]
            for attribute in attributes:
                held = getattr(layer, attribute)
                if found := _format_in(str(held.dtype)):
                    _add(weights, found, int(held.size))
    return weights, outputs


def _plan_tensors(plan: bytes) -> Iterator[tuple[str, str, bytes, bytes]]:
    """Yield name, type, facts and dimensions of each tensor once."""
    seen: set[bytes] = set()
    for match in _PLAN_TENSOR.finditer(plan):
        if match["name"] not in seen:
            seen.add(match["name"])
            name = match["name"].decode(errors="replace")
            yield name, match["type"].decode(), match["facts"], match["dims"]


def _faces(network: tensorrt.INetworkDefinition) -> frozenset[str]:
    inputs = (network.get_input(index).name for index in range(network.num_inputs))
    outputs = (network.get_output(index).name for index in range(network.num_outputs))
    return frozenset((*inputs, *outputs))


def _format_in(words: str) -> str | None:
    """Return the number format that a description names, such as "Row major linear FP16 format"."""
    found = _WORD.search(words.lower())
    return _FORMATS[found[1]] if found else None


def _values(dimensions: Any) -> int:
    """Return how many values a tensor has for one image: a free axis, -1, counts once."""
    try:
        return math.prod(abs(int(size)) for size in dimensions)
    except (TypeError, ValueError):  # "N/A", or nothing
        return 0


def _add(counts: Counts, found: str, number: int) -> None:
    counts[found] = counts.get(found, 0) + number
