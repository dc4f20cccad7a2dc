"""INT8 from FP32: value ranges inside a graph, and quantised copies for three kinds of engine."""

from __future__ import annotations

import io
import math
import os
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
from .io_variants import LUMA_SCALE

# As in backend_onnx: set before the import, which would write and report otherwise.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
from onnx.shape_inference import infer_shapes
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, create_calibrator
from onnxruntime.quantization.calibrate import TensorData, TensorsData

WEIGHTED = ("Conv", "ConvTranspose", "Gemm")
INPUT_MARGIN = 1.25
_MOVING = ("LeakyRelu", "Reshape", "Concat", "DepthToSpace")
"""What lies between layers with weights and would else go to float32 and back."""


class _Style(NamedTuple):
    """Which pairs of QuantizeLinear and DequantizeLinear a kind of engine takes."""

    activations: QuantType  # weights are signed and symmetric, one scale a channel
    kinds: tuple[str, ...]  # operators whose inputs are quantised
    float_outputs: tuple[str, ...]  # those of them whose outputs are not
    settings: dict[str, Any]  # of the quantiser


_STYLES: dict[Target, _Style] = {
    # A kernel of ONNX Runtime is INT8 only where its inputs, weights, bias and output all are.
    "onnx": _Style(QuantType.QUInt8, (*WEIGHTED, *_MOVING), ("Gemm",), {}),
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

        The graph's input keeps all that was seen and a quarter more, whatever the method: latents
        of other images reach further, and one that is cut off there shifts the whole image.
        """
        collector = self._calibrator.collector
        seen = {name: found[2:4] for name, found in collector.histogram_dict.items()}
        if method.percentile is None:
            ranges = TensorsData(CalibrationMethod.MinMax, seen)
        else:
            collector.percentile = method.percentile
            with redirect_stdout(io.StringIO()):
                ranges = self._calibrator.compute_data()
        lowest, highest = (np.float32(INPUT_MARGIN * end) for end in seen[self._input])
        ranges[self._input] = TensorData(lowest=lowest, highest=highest)
        for name in self._before_leaky:
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

    The ranges may be of a rewritten graph with the same tensor names. `runner` is the kind of
    engine that the copy is for; the excluded layers stay in float32.
    """
    style = _STYLES[runner]
    layers = layers_of(model)
    floats = [node for layer in excluded for node in layers[layer]]
    # A decoder's last shuffle only moves what the sigmoid gave, and that is the answer.
    floats += [
        str(node.name)
        for node in model.graph
        if node.op_type == "DepthToSpace" and node.outputs[0].is_graph_output()
    ]
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
        tensors_range=ranges,
        nodes_to_quantize=None,
        nodes_to_exclude=floats,
        op_types_to_quantize=[*style.kinds],
        extra_options=settings,
    )
    quantizer.quantize_model()
    quantised: ir.Model = ir.from_proto(quantizer.model.model)
    quantised.graph.sort()
    quantised.metadata_props.clear()
    return quantised


def layers_of(model: ir.Model) -> dict[str, list[str]]:
    """Return the layers with weights, first to last, and the nodes that compute each."""
    layers: dict[str, list[str]] = {}
    for node in model.graph:
        if node.op_type in WEIGHTED:
            layers.setdefault(_layer_of(node.inputs[1]), []).append(str(node.name))
    return layers


def check_int8(model: ir.Model, excluded: Sequence[str]) -> None:
    """Raise VerificationError unless all layers but those named, at most half, are INT8."""
    layers: dict[str, bool] = {}
    for node in model.graph:
        weight = node.inputs[1] if node.op_type in WEIGHTED else None
        if weight is None:
            continue
        source = weight.producer()
        is_int8 = source is not None and source.op_type == "DequantizeLinear"
        layer = _layer_of(source.inputs[0] if source is not None and is_int8 else weight)
        layers[layer] = layers.get(layer, True) and is_int8
    floats = {layer for layer, is_int8 in layers.items() if not is_int8}
    if floats != set(excluded) & set(layers) or 2 * len(floats) > len(layers):
        raise VerificationError(
            f"a graph labelled int8 has float32 weights in {sorted(floats)} of {sorted(layers)}: "
            "report this"
        )


def _layer_of(weight: ir.Value | None) -> str:
    """Return the name of the layer that a weight belongs to, quantised or not."""
    name = str(weight.name if weight else "").removesuffix("_quantized").removesuffix(".weight")
    return name.partition(".phase")[0]
