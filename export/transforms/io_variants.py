"""Encoders that take 8-bit pictures, luma or colour planes, and those that give `mu` only."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .graph_ops import cast, constant, insert_behind_input, typed_node

LUMA_SCALE = np.float32(1 / 255)


def luma_from_float(model: ir.Model) -> None:
    """Let a float encoder scale 8-bit pictures itself, in place: a quarter of the bytes reach it.

    Luma or planes of colour: one factor serves all of them.

    Precondition: one flat graph with one float32 input.
    Postcondition: the input has its name and shape and is uint8; the values behind it are those
    that `input_from_pixels` gives for the same luma, bit for bit.
    """
    (image,) = model.graph.inputs
    scale = constant(model.graph, "luma_scale", np.array(LUMA_SCALE))
    luma = cast(image, "luma", ir.DataType.FLOAT)
    scaled = typed_node("Mul", [luma.outputs[0], scale], "scaled", shape=image.shape)
    insert_behind_input(model.graph, image, [luma, scaled])
    image.dtype = ir.DataType.UINT8


def mu_from_encoder(model: ir.Model) -> None:
    """Leave `mu` as the only output of an encoder, in place.

    Half the weights of the heads go, which are most of what a run at batch 1 reads.

    Precondition: one flat graph with an output called `mu`.
    Postcondition: nothing is left that `mu` does not depend on; its values are the same.
    """
    outputs = model.graph.outputs
    for value in [value for value in outputs if value.name != "mu"]:
        outputs.remove(value)
    RemoveUnusedNodesPass()(model)


def luma_from_quantised(model: ir.Model) -> None:
    """Let an INT8 encoder read 8-bit luma as its own quantised input, in place.

    Precondition: an INT8 encoder with a float32 input.
    Postcondition: as of `luma_from_float`; where the graph quantised its input in steps of 1/255
    from 0, nothing is computed on the way in.
    """
    (image,) = model.graph.inputs
    first = [usage.node for usage in image.uses()]
    if [node.op_type for node in first] != ["QuantizeLinear"] or not _is_luma_step(first[0]):
        luma_from_float(model)
        return
    ir.convenience.replace_all_uses_with(first[0].outputs[0], image)
    model.graph.remove(first[0], safe=True)
    image.dtype = ir.DataType.UINT8


def _is_luma_step(quantise: ir.Node) -> bool:
    scale, zero = (value.const_value if value else None for value in quantise.inputs[1:])
    if scale is None or zero is None:
        return False
    exact = zero.dtype == ir.DataType.UINT8 and not zero.numpy().any()
    return bool(exact and scale.numpy() == LUMA_SCALE)
