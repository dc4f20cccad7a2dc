"""The precision report: which number formats a finished engine holds, read back from it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.errors import EngineError
from ...runtime.engines.tensorrt.build_record import DlaPlacement
from ...runtime.engines.tensorrt.engine_manifest import PrecisionReport, Source
from ...runtime.engines.tensorrt.package import TensorRTPackage
from .formats import BYTES, FORMATS, Counts, FormatCounts, add, format_in, values_of, wider
from .inspector import counts_from_inspector

if TYPE_CHECKING:
    import tensorrt

_LEAST_REPORTED = {"weights": 0.95, "outputs": 0.25, "multiplications": 0.95}
"""How much of what the network has a source must cover to be used: all of it, and of the layers'
outputs what is left when layers are fused."""
DLA_FORMATS = ("fp16", "int8")
"""What DLA computes in, whatever it is asked for (TensorRT documentation 11.4.1)."""
_TENSOR = re.compile(
    rb"(?P<view>sub_)?tensor=\{ (?P<facts>[^{}]*?dims=\{ (?P<dims>[^{}]*)\}[^{}]*?"
    rb'name="(?P<name>[^"]*)".*?type=(?P<type>\w+) \})'
)
_PAYLOAD = re.compile(rb"const_payload_size=(\d+)")
_LAYER = re.compile(
    rb"[^_\w](?P<kind>corrltn|deconvolution|fully_connected)=\{ "
    rb'name="[^"]*" output=\{(?P<output>[^{}]*)\} input=\{(?P<input>[^{}]*)\}'
)
"""Convolutions, which the compiler calls correlations as they are, transposed ones, products."""
_QUOTED = re.compile(rb'"([^"]*)"')


def precision_report_of(
    package: TensorRTPackage,
    network: tensorrt.INetworkDefinition,
    plan: bytes,
    *,
    inspected: str | None,
    kept: Sequence[str] = (),
    dla: DlaPlacement | None = None,
) -> PrecisionReport:
    """Read back an engine's number formats from the nearest source there is.

    First is the engine inspector, which needs a GPU. Next is the table of tensors that the
    compiler writes into an engine file. Either may cover a part only, as the inspector does of
    fused layers, and then it is not taken for the whole. What neither covers is counted on the
    network that the builder was given, which proves nothing: of a strongly typed network, too, a
    compiler was seen to turn one float32 convolution between two casts into FP16, and the INT8
    weights of transposed convolutions back into float32 ones before it multiplies.

    `kept` are the nodes that an FP16 graph keeps in float32: then how much is FP16 is compared with
    what the network asks for.

    Of an engine that runs on DLA in part, `dla` says which layers do. No tool looks into these, but
    DLA computes in FP16 and INT8 alone: what the network has there in these formats counts as read
    back, together with what a source says of the layers on the GPU.
    """
    inputs = (network.get_input(index).name for index in range(network.num_inputs))
    outputs = (network.get_output(index).name for index in range(network.num_outputs))
    bindings = frozenset((*inputs, *outputs))
    asked = counts_from_network(package.trt, network, bindings)
    sources: list[tuple[Source, FormatCounts]] = []
    if inspected is not None:
        sources.append(("engine inspector", counts_from_inspector(inspected, bindings)))
    sources.append(("engine file", counts_from_plan(plan, bindings)))
    if dla is not None:
        there = counts_from_network(package.trt, network, bindings, dla)
        by_both: dict[Source, Source] = {
            "engine inspector": "engine inspector and DLA",
            "engine file": "engine file and DLA",
        }
        both = [(by_both[source], counts.plus(there)) for source, counts in sources]
        sources = [*sources, ("DLA", there), *both]
    found: dict[str, Any] = {"asked": asked.multiplications, "dla": dla}
    if kept:
        found |= {"kept_float32": tuple(kept)}
        found |= {"asked_weights": asked.weights}
    for part, least in _LEAST_REPORTED.items():
        whole: Counts = getattr(asked, part)
        found |= {part: whole, f"{part}_from": "typed network"}
        for source, counts in sources:
            reported: Counts = getattr(counts, part)
            if sum(reported.values()) >= least * sum(whole.values()):
                found |= {part: reported, f"{part}_from": source}
                break
    return PrecisionReport(**found)


def check_precision_report(
    precision_report: PrecisionReport, precision: Precision, *, name: str
) -> None:
    """Raise an EngineError where too little has that precision, or nothing could be read back."""
    problem = precision_report.problem_with(precision)
    if problem is None:
        return
    step = "export the graphs again, or report this with the version of TensorRT"
    if not precision_report.proves(precision):
        step = "the engine inspector reports more of one batch size, so try --batch 1,1,1"
    elif precision == "int8":
        step = "more of it is computed in float than that, so use --fp16 for engines"
    elif precision_report.kept_float32:
        step = "keep other layers in float32 with --keep-float32, or fewer, or use --engine none"
    raise EngineError(f"{name} is not {precision}: {problem}; {step}")


def counts_from_plan(plan: bytes, bindings: frozenset[str]) -> FormatCounts:
    """Return what an engine's own table of tensors and list of layers report.

    Both are the compiler's text inside the engine file. It is not documented, so where another
    version writes it otherwise the counts are empty.
    """
    counts = FormatCounts()
    tensors: dict[bytes, tuple[str | None, tuple[int, ...]]] = {}  # format and shape by name
    for match in _TENSOR.finditer(plan):
        if match["name"] in tensors:
            continue
        found = FORMATS.get(match["type"].decode())
        shape = tuple(int(size) if size.isdigit() else 1 for size in match["dims"].split())
        tensors[match["name"]] = (found, shape)
        if found is None or match["view"] or b"is_scratchspace=1" in match["facts"]:
            continue
        if payload := _PAYLOAD.search(match["facts"]):
            add(counts.weights, found, int(payload[1]) // BYTES[found])
        elif match["name"].decode(errors="replace").rpartition(".")[0] not in bindings:
            add(counts.outputs, found, math.prod(shape))
    seen: set[bytes] = set()
    for match in _LAYER.finditer(plan):
        names = [*_QUOTED.findall(match["input"])[:2], *_QUOTED.findall(match["output"])[:1]]
        if match["output"] in seen or not all(name in tensors for name in names):
            continue
        seen.add(match["output"])
        (read, from_shape), (held, weight_shape), (_, to_shape) = (tensors[name] for name in names)
        # Each weight is multiplied once at each place, of what goes in where that is spread out.
        spread = from_shape if match["kind"] == b"deconvolution" else to_shape
        number = math.prod(weight_shape) * math.prod(spread[2:])
        add(counts.multiplications, wider(read, held), number)
    return counts


def counts_from_network(
    trt: Any,
    network: tensorrt.INetworkDefinition,
    bindings: frozenset[str],
    dla: DlaPlacement | None = None,
) -> FormatCounts:
    """Return what the types of a parsed, strongly typed network say: what a graph asks for.

    With `dla`, of what runs there in a format that DLA computes in, without constants that are
    layers of their own.
    """
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
        if dla is not None and (layer.type == trt.LayerType.CONSTANT or not dla.runs(layer.name)):
            continue
        for number in range(layer.num_outputs):
            tensor = layer.get_output(number)
            if tensor.name not in bindings and layer.type != trt.LayerType.CONSTANT:
                add(counts.outputs, format_in(str(tensor.dtype)), values_of(tensor.shape))
        kernel: Any = None
        if layer.type in holders:
            # The bindings hand out the base class; the layer's type says what it is.
            layer.__class__, attributes = holders[layer.type]
            for attribute in attributes:
                held = getattr(layer, attribute)
                add(counts.weights, format_in(str(held.dtype)), int(held.size))
            kernel = getattr(layer, attributes[0])
        if layer.type in multiplying:
            # A kernel that is quantised is a second input, else it is the layer's own constant.
            second = layer.get_input(1) if layer.num_inputs > 1 else None
            if second is None:
                weights, held_in = int(kernel.size), format_in(str(kernel.dtype))
            else:
                weights, held_in = values_of(second.shape), _format_read(trt, second, makers)
            spread = layer.get_input(0) if layer.type == transposed else layer.get_output(0)
            found = wider(_format_read(trt, layer.get_input(0), makers), held_in)
            add(counts.multiplications, found, weights * values_of(tuple(spread.shape)[2:]))
    return counts if dla is None else counts.only(DLA_FORMATS)


def _format_read(
    trt: Any, tensor: tensorrt.ITensor, makers: Mapping[str, tensorrt.ILayer]
) -> str | None:
    """Return the format that a layer reads a tensor in: what was dequantised for it is INT8."""
    maker = makers.get(tensor.name)
    while maker is not None and maker.type == trt.LayerType.SHUFFLE:
        maker = makers.get(maker.get_input(0).name)
    if maker is not None and maker.type == trt.LayerType.DEQUANTIZE:
        tensor = maker.get_input(0)
    return format_in(str(tensor.dtype))
