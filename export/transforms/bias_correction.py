"""What quantisation shifts in an encoder's outputs on average, taken off their biases again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .graph_ops import array_of

Outputs = Mapping[str, npt.NDArray[np.float32]]


def correct_biases(model: ir.Model, found: Outputs, wanted: Outputs) -> None:
    """Shift the biases of a float encoder's heads, in place, against a quantised copy's mean error.

    Rounding and clipping move the mean of a layer's output, the same way for all images; a shift
    of the last bias undoes that at no cost (Nagel et al. 2019, "Data-Free Quantization Through
    Weight Equalization and Bias Correction", section 4.2, here with data).

    Precondition: each output comes from a Gemm with a constant bias.
    Postcondition: a copy quantised alike has no mean error on these images but its bias's rounding.

    Args:
        model: The float32 encoder that the copy was made from.
        found: Output name to (N, D) float32 of the copy.
        wanted: The same of the float32 encoder.
    """
    for output in model.graph.outputs:
        head = output.producer()
        bias = head.inputs[2] if head is not None and len(head.inputs) == 3 else None
        if bias is None:
            raise ValueError(f"{output.name} comes from no layer with a bias")
        name = str(output.name)
        error = np.mean(found[name] - wanted[name].astype(np.float64), axis=0)
        corrected = (array_of(bias) - error).astype(np.float32)
        bias.const_value = ir.tensor(corrected, name=bias.name)
