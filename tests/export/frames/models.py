"""A model whose `mu` is its picture, so that pixels show, as an encoder that takes frames."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

from motorvae.export.frames.encoder import frame_from_encoder
from motorvae.runtime.bundle.frame_format import FrameFormat, frame_format_from_text
from motorvae.runtime.core.spec import ModelSpec

from ...runtime.pixels.real_pictures import street


def model_of(spec: ModelSpec) -> ir.Model:
    """A graph that gives its input as `mu`."""
    shape = ir.Shape(["batch", *spec.input_shape])
    image, mu = (ir.val(name, ir.DataType.FLOAT, shape) for name in ("image", "mu"))
    node = ir.node("Identity", [image], outputs=[mu])
    graph = ir.Graph([image], [mu], nodes=[node], opset_imports={"": 20}, name="pixels")
    return ir.Model(graph, ir_version=10)


def frame_model(spec: ModelSpec, text: str) -> tuple[ir.Model, FrameFormat]:
    """The same taking frames of a format."""
    model, frame = model_of(spec), frame_format_from_text(text)
    frame_from_encoder(model, spec, frame)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model, frame


def picture_by(model: ir.Model, taken: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Run it on one frame in ONNX Runtime; (C, H, W) levels."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return session.run(None, {"frame": taken[None]})[0][0].astype(np.float64) * 255


@functools.cache
def scenes(height: int, width: int) -> list[npt.NDArray[np.uint8]]:
    """Four unlike BGR images: a street, blurred colours, fine stripes with edges, dark noise."""
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (height, width, 3), np.uint8)
    blurred = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 9), None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    stripes = np.zeros((height, width, 3), np.uint8)
    stripes[:, ::3] = (40, 200, 250)
    stripes[: height // 3] = (250, 30, 90)
    stripes[:, width // 2 : width // 2 + 5] = 255
    dark = (noise.astype(int) // 12).astype(np.uint8)
    return [street(width, height), np.asarray(blurred, np.uint8), stripes, dark]
