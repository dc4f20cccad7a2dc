"""frame_from_encoder: crop, fit, resizing, colours and scaling of a frame inside the graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...runtime.bundle.frame_format import FRAME, FrameFormat
from ...runtime.bundle.graph_key import BATCH
from ...runtime.core.spec import ModelSpec
from ...runtime.pixels.reference import WHITE
from ..transforms.io_variants import LUMA_SCALE
from .fixed_size import FixedAxes
from .free_size import FreeAxes
from .nodes import FLOAT, NodeList
from .parts import parts_of

PICTURE = "frame_picture"
"""The value inside that is the fitted picture: (batch, C, H, W), whole levels from 0 to 255."""


def frame_from_encoder(model: ir.Model, spec: ModelSpec, frame: FrameFormat) -> None:
    """Let a float encoder make its input of a whole frame, in place.

    Each axis is resized by a product with the weights of `axis_weights`, of height before width:
    constants where the frame's size is fixed, and else computed from it. Chroma is resized at its
    own resolution, and colours are made at the model's size. The picture is rounded to levels, as
    those are that the model was trained on.

    Precondition: one flat graph whose one input is float32, (batch, C, H, W) in [0, 1].
    Postcondition: the one input is `frame`, uint8, a batch of the format's shape; the value
    `frame_picture` is the picture. All operators are ONNX's own, and none is control flow. A
    ValueError where the model's crop box takes nothing of such a frame, or in pixels may do so; of
    a free size, a box in fractions that takes nothing of a frame makes its picture NaN.
    """
    if frame.is_free and spec.fit == "letterbox":
        raise ValueError(
            "the model's fit is letterbox, which rounds sizes that only a known frame has"
        )
    if frame.is_free and spec.has_box_in_pixels:
        raise ValueError("the model's crop box is in pixels, and may take nothing of such frames")
    graph = model.graph
    (image,) = graph.inputs
    _rename_frames(graph)
    nodes = NodeList(graph)
    taken = ir.val(FRAME, ir.DataType.UINT8, ir.Shape([BATCH, *frame.shape]))
    levels = nodes("Cast", taken, to=FLOAT)  # first: TensorRT takes uint8 as input alone
    parts = parts_of(frame, spec)
    if frame.layout == "bgr":
        levels = nodes("Reshape", levels, nodes.integers(0, 0, -1))
    axes: FixedAxes | FreeAxes
    axes = FreeAxes(nodes, levels, frame, spec) if frame.is_free else FixedAxes(nodes, frame, spec)
    total = axes.resized(levels, parts[0])
    for part in parts[1:]:
        total = nodes("Add", total, axes.resized(levels, part))
    of_white = sum((part.levels_of_white for part in parts), np.zeros((1, 1, 1)))
    total = nodes("Add", total, axes.rest(of_white))
    total = nodes("Clip", total, nodes.number(0), nodes.number(WHITE))
    picture = axes.checked(nodes("Round", total))
    picture.name, picture.dtype, picture.shape = PICTURE, ir.DataType.FLOAT, image.shape
    scaled = nodes("Mul", picture, nodes.constant(np.array(LUMA_SCALE)))
    ir.convenience.replace_all_uses_with(image, scaled)
    graph.inputs[0] = taken
    graph.insert_before(graph[0], nodes.nodes)


def _rename_frames(graph: ir.Graph) -> None:
    """Give values of others, and nodes, whose names begin as those of a `NodeList` another one."""
    values = [*graph.initializers.values(), *(one for node in graph for one in node.outputs)]
    known = {one.name for one in (*values, *graph)}
    for one in (*values, *graph):
        if one.name and one.name.startswith((FRAME, f"node_{FRAME}")):
            name = f"encoder_{one.name}"
            while name in known:
                name += "_"
            known.add(name)
            one.name = name
