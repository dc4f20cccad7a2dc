"""INT8 from FP32: value ranges inside a graph, and quantised copies for three kinds of engine."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...runtime.bundle.graph_key import Target
from ...runtime.core.errors import VerificationError
from ...runtime.engines import import_onnxruntime  # noqa: F401  # before its other modules
from .graph_ops import typed_node
from .io_variants import LUMA_SCALE
from .node_names import module_of

# isort: split
from onnx.shape_inference import infer_shapes
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, create_calibrator
from onnxruntime.quantization.calibrate import TensorData, TensorsData

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators of layers, where their second input is a constant."""
INPUT_MARGIN = 1.25
_MOVING = ("LeakyRelu", "Relu", "Reshape", "Concat", "DepthToSpace")
"""What lies between layers with weights and would else go to float32 and back."""
_ACTIVATIONS = ("LeakyRelu", "Relu")
_JOINING = ("Concat", "DepthToSpace", "Reshape", "Transpose")
"""What the phases of an image pass through until it is whole."""
_OF_INPUT = ("Reshape", "Flatten", "Identity", "Transpose", "Mul", "Add", "Sub", "Div", "Cast")
"""What a graph's input is still its input behind, where all else that it reads is constant."""


class _Style(NamedTuple):
    """Which pairs of QuantizeLinear and DequantizeLinear a kind of engine takes."""

    activations: QuantType  # weights are signed and symmetric, one scale a channel
    kinds: tuple[str, ...]  # operators whose inputs are quantised
    float_outputs: tuple[str, ...]  # those of them whose outputs are not
    settings: dict[str, Any]  # of the quantiser


_STYLES: dict[Target, _Style] = {
    # A kernel of ONNX Runtime is INT8 only where its inputs, weights, bias and output all are.
    "onnx": _Style(QuantType.QUInt8, (*WEIGHTED, *_MOVING), ("Gemm", "MatMul"), {}),
    # OpenVINO and TensorRT fuse a layer, its activation and the next quantisation themselves.
    "openvino": _Style(QuantType.QUInt8, WEIGHTED, WEIGHTED, {"QuantizeBias": False}),
    # TensorRT takes no zero point but 0.
    "tensorrt": _Style(
        QuantType.QInt8,
        WEIGHTED,
        WEIGHTED,
        {"QuantizeBias": False, "ActivationSymmetric": True, "WeightSymmetric": True},
    ),
}


@dataclass(frozen=True, slots=True)
class Method:
    """How a graph is quantised."""

    # the range of a value ends where this share of it lies inside; None, at its extremes
    percentile: float | None = None
    equalised: bool = False  # whether its channels were scaled alike before

    @property
    def ends(self) -> str:
        """Where ranges end, in words."""
        return "min-max" if self.percentile is None else f"{self.percentile:g} %"

    def __str__(self) -> str:
        return f"{self.ends}, equalised" if self.equalised else self.ends


class Activations:
    """What values reach inside a float32 graph over the calibration inputs.

    The graph, float32 with shapes inside, runs once for each of (N, ...) float32 inputs, since all
    inside is kept; `progress` is called with the number of those seen. Every method's ranges come
    from the same histograms. What a LeakyReLU reads is represented down to the share
    `negative_side` of its positive side: it makes a hundredth of what is lost there, and levels
    spent on it round everything else more coarsely.
    """

    def __init__(
        self,
        model: ir.Model,
        inputs: npt.NDArray[np.float32],
        *,
        negative_side: float = math.inf,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._negative_side = negative_side
        self._input = str(model.graph.inputs[0].name)
        self._of_input = _values_of_input(model.graph)
        self._before_leaky = [
            str(node.inputs[0].name)
            for node in model.graph
            if node.op_type == "LeakyRelu" and node.inputs[0] is not None
        ]
        # What the calibrator prints is kept from standard output, which is for data.
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            path = Path(folder) / "float.onnx"
            ir.save(model, path)
            self._calibrator = create_calibrator(
                path,
                [*WEIGHTED, *_MOVING],
                augmented_model_path=str(Path(folder) / "exposed.onnx"),
                calibrate_method=CalibrationMethod.Percentile,
                # From both ends: what a LeakyReLU gives has hardly any negative side.
                extra_options={"symmetric": False},
            )
            for seen in range(len(inputs)):
                batches = iter([{self._input: inputs[seen : seen + 1]}])
                reader = SimpleNamespace(get_next=partial(next, batches, None))
                self._calibrator.collect_data(reader)
                progress(seen + 1)

    def ranges(self, method: Method) -> TensorsData:
        """Return the least and largest value that each tensor is to represent.

        The graph's input keeps all that was seen and a quarter more, whatever the method, and so
        does what is computed of it and constants before the first layer: latents of other images
        reach further, and one that is cut off there shifts the whole image. Scaled pixels end
        where black and white do.
        """
        collector = self._calibrator.collector
        seen = {name: found[2:4] for name, found in collector.histogram_dict.items()}
        if method.percentile is None:
            ranges = TensorsData(CalibrationMethod.MinMax, seen)
        else:
            collector.percentile = method.percentile
            with redirect_stdout(io.StringIO()):
                ranges = self._calibrator.compute_data()
        for name in self._of_input & seen.keys():
            margin = INPUT_MARGIN if self._input in {"z", name} else 1.0
            lowest, highest = (np.float32(margin * end) for end in seen[name])
            ranges[name] = TensorData(lowest=lowest, highest=highest)
        for name in self._before_leaky:
            if name in self._of_input:
                continue
            lowest, highest = ranges[name].lowest, ranges[name].highest
            if highest > 0:
                lowest = np.float32(max(lowest, -self._negative_side * highest))
                ranges[name] = TensorData(lowest=lowest, highest=np.float32(highest))
        return ranges


def int8_from_fp32(
    model: ir.Model, ranges: TensorsData, runner: Target, *, excluded: Sequence[str] = ()
) -> ir.Model:
    """Return an INT8 copy of a float32 graph; the same input gives the same bytes.

    Precondition: a float32 graph with shapes inside, whose tensors `ranges` names.
    Postcondition: same inputs and outputs. Luma that was scaled by 1/255 loses nothing where the
    range is unsigned: the input's step is 1/255.

    The ranges may be of a rewritten graph with the same tensor names: phases that are joined take
    the range of their image, and an image that was never made the one of its phases. `runner` is
    the kind of engine that the copy is for; the excluded layers stay in float32.
    """
    style = _STYLES[runner]
    layers = layers_of(model)
    floats = [node for layer in excluded for node in layers[layer]]
    # Products of two values that both depend on the input have no weights to be smaller for it.
    of_layers = {node for nodes in layers.values() for node in nodes}
    others = (node for node in model.graph if node.op_type in WEIGHTED)
    floats += [str(node.name) for node in others if node.name not in of_layers]
    # What is computed in float32 is not rounded before its activation; what reads that rounds it.
    behind = (node for node in model.graph if node.op_type in _ACTIVATIONS and node.inputs[0])
    makers = ((node, node.inputs[0].producer()) for node in behind if node.inputs[0] is not None)
    floats += [str(node.name) for node, maker in makers if maker and maker.name in floats]
    # A decoder's last shuffle only moves what the sigmoid gave, and that is the answer.
    floats += [
        str(node.name)
        for node in model.graph
        if node.op_type == "DepthToSpace" and node.outputs[0].is_graph_output()
    ]
    if runner == "onnx":
        floats += _joining_for_floats(model.graph, floats)
    settings = {**style.settings, "OpTypesToExcludeOutputQuantization": [*style.float_outputs]}
    name = model.graph.inputs[0].name
    if name == "image" and style.activations == QuantType.QUInt8:
        step = {"scale": np.array(LUMA_SCALE), "zero_point": np.array(0, np.uint8)}
        settings["TensorQuantOverrides"] = {name: [step]}
    quantizer = QDQQuantizer(
        infer_shapes(ir.to_proto(model)),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=style.activations,
        tensors_range=_with_phases(ranges, model.graph),
        nodes_to_quantize=None,
        nodes_to_exclude=floats,
        op_types_to_quantize=[*style.kinds],
        extra_options=settings,
    )
    quantizer.quantize_model()
    quantised: ir.Model = ir.from_proto(quantizer.model.model)
    if runner == "openvino":
        _quantise_before_shuffling(quantised.graph)
    quantised.graph.sort()
    quantised.metadata_props.clear()
    return quantised


def layers_of(model: ir.Model) -> dict[str, list[str]]:
    """Return the layers with weights, first to last, and the nodes that compute each."""
    layers: dict[str, list[str]] = {}
    for node in model.graph:
        if (weight := _weight_of(node)) is not None:
            layers.setdefault(_layer_of(node, weight), []).append(str(node.name))
    return layers


def check_int8(model: ir.Model, excluded: Sequence[str]) -> None:
    """Raise VerificationError unless all layers but those named, at most half, are INT8."""
    layers: dict[str, bool] = {}
    for node in model.graph:
        if (weight := _weight_of(node)) is not None:
            layer, is_int8 = _layer_of(node, weight), weight is not node.inputs[1]
            layers[layer] = layers.get(layer, True) and is_int8
    floats = {layer for layer, is_int8 in layers.items() if not is_int8}
    if floats != set(excluded) & set(layers) or 2 * len(floats) > len(layers):
        raise VerificationError(
            f"a graph labelled int8 has float32 weights in {sorted(floats)} of {sorted(layers)}: "
            "report this"
        )


def _with_phases(ranges: TensorsData, graph: ir.Graph) -> TensorsData:
    """Complete the ranges by what a rewrite into phases joins or leaves apart.

    Numbers that are only moved are not rounded again where both sides have one range.
    """
    found: dict[str, TensorData] = dict(ranges.items())
    for node in graph:
        if node.op_type == "LeakyRelu" and (name := str(node.outputs[0].name)) not in found:
            parts = [part for key, part in found.items() if key.startswith(f"{name}.phase_")]
            lowest, highest = min(p.lowest for p in parts), max(p.highest for p in parts)
            found[name] = TensorData(lowest=lowest, highest=highest)
    for node in reversed([*graph]):
        name = str(node.outputs[0].name)
        if node.op_type in _JOINING and name in found:
            parts = [str(value.name) for value in node.inputs if value is not None]
            found |= {part: found[name] for part in parts if ".phase" in part}
    return TensorsData(ranges.calibration_method, found)


def _joining_for_floats(graph: ir.Graph, floats: Sequence[str]) -> list[str]:
    """Return the nodes that join rows of phases for convolutions in float32 alone.

    ONNX Runtime would dequantise what each of them reads anew, and reorder it to blocks of
    channels: four times for four phases. Rows are of 8 bits, and joined when they are float32: the
    values are the same.
    """
    found = []
    for node in graph:
        names = {usage.node.name for usage in node.outputs[0].uses()}
        if node.op_type != "Transpose" or not names or not names <= {*floats}:
            continue
        reshape = node.inputs[0].producer() if node.inputs[0] is not None else None
        rows = reshape.inputs[0] if reshape is not None else None
        concat = rows.producer() if rows is not None else None
        if concat is not None and concat.op_type == "Concat":
            found += [str(made.name) for made in (reshape, concat) if made is not None]
    return found


def _quantise_before_shuffling(graph: ir.Graph) -> None:
    """Round phases before they are joined and shuffled, which moves a quarter of the bytes.

    The values stay the same. The engine could do so by itself, but does not; where the graph asks
    for it by pairs, OpenVINO 2026.4 fails to compile it.
    """
    for shuffle in [node for node in graph if node.op_type == "DepthToSpace"]:
        joined, uses = shuffle.inputs[0], [usage.node for usage in shuffle.outputs[0].uses()]
        concat = joined.producer() if joined is not None else None
        if [node.op_type for node in uses] != ["QuantizeLinear"] or concat is None:
            continue
        (quantise,) = uses
        constants = [value for value in quantise.inputs[1:] if value is not None]
        if concat.op_type != "Concat" or len(constants) != 2 or constants[1].const_value is None:
            continue
        dtype = constants[1].const_value.dtype
        for index, part in enumerate(concat.inputs):
            if part is None:
                continue
            name, inputs = f"{part.name}_QuantizeLinear", [part, *constants]
            early = typed_node("QuantizeLinear", inputs, name, shape=part.shape, dtype=dtype)
            concat.replace_input_with(index, early.outputs[0])
            graph.insert_before(concat, early)
        for moved in (concat, shuffle):
            moved.outputs[0].type = ir.TensorType(dtype)
        ir.convenience.replace_all_uses_with(quantise.outputs[0], shuffle.outputs[0])
        graph.remove(quantise, safe=True)


def _weight_of(node: ir.Node) -> ir.Value | None:
    """Return the constant that a layer multiplies by, before it is dequantised; None for others."""
    weight = node.inputs[1] if node.op_type in WEIGHTED else None
    source = weight.producer() if weight is not None else None
    if source is not None and source.op_type == "DequantizeLinear":
        weight = source.inputs[0]
    return weight if weight is not None and weight.const_value is not None else None


def _layer_of(node: ir.Node, weight: ir.Value) -> str:
    """Return the name of the layer that a node computes, quantised or not.

    That is of its weights where they have one of a module, else its own: exporters call weights
    that they folded or turned by numbers.
    """
    name = str(weight.name).removesuffix("_quantized")
    if name.endswith(".weight") or ".phase" in name:
        return name.removesuffix(".weight").partition(".phase")[0]
    return module_of(node) or str(node.name)


def _values_of_input(graph: ir.Graph) -> set[str]:
    """Return the names of the input and of what is computed of it and constants alone."""
    values: set[ir.Value] = set(graph.inputs)
    for node in graph:
        others = [value for value in node.inputs if value is not None and value not in values]
        is_of_input = len(others) < len(node.inputs) and node.op_type in _OF_INPUT
        if is_of_input and all(value.const_value is not None for value in others):
            values.update(node.outputs)
    return {str(value.name) for value in values}
