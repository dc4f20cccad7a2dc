"""Encoders of whole frames against the float64 reference, and against FFmpeg's colours."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from av.video.frame import VideoFrame

from motorvae.export.frames.encoder import frame_from_encoder
from motorvae.export.frames.judging_frames import frame_from_image, picture_from_frame
from motorvae.runtime.bundle.frame_format import frame_format_from_text
from motorvae.runtime.core.errors import ImageError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.reference import reference_picture
from motorvae.runtime.pixels.yuv import bgr_from_video_frame

from .models import frame_model, model_of, picture_by, scenes

MOST_LEVELS = 1.0
ALLOWED = {
    *("Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Floor", "Gather", "Greater", "Identity"),
    *("MatMul", "Max", "Min", "Mul", "Range", "ReduceSum", "Reshape", "Round", "Shape", "Slice"),
    *("Sub", "Transpose", "Where"),
}
"""Marked as supported in onnx-tensorrt's docs/operators.md of TensorRT 10.1; uint8 is there of
inputs and outputs only, and ReduceSum's and Slice's axes must be initialisers."""


def spec(size: Any = 96, color: Any = "grey", **others: Any) -> ModelSpec:
    return ModelSpec(image_size=size, color=color, **others)


def assert_close(found: Any, expected: Any) -> None:
    """The promise of every path of pixels, and no part of the picture that is another one."""
    difference = np.abs(found - expected.reshape(found.shape))
    assert difference.mean() <= MOST_LEVELS, f"{difference.mean():.3f} levels"
    assert np.quantile(difference, 0.999) <= 4, f"{np.quantile(difference, 0.999):.2f} levels"


@pytest.mark.parametrize("is_free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(
    ("size", "color", "shape"),
    [
        ((1080, 1920), "grey", 256),
        ((720, 1280), "rgb", (80, 160)),
        ((480, 640), "bgr", 96),
        ((479, 853), "grey", (80, 160)),
        ((50, 333), "rgb", 96),  # one axis grows
    ],
)
def test_bgr_is_within_a_level_of_the_reference(
    size: tuple[int, int], color: str, shape: Any, fit: str, is_free: bool
) -> None:
    model_spec = spec(shape, color, fit=fit)
    text = "bgr:free" if is_free else f"bgr:{size[1]}x{size[0]}"
    model, _ = frame_model(model_spec, text)
    for image in scenes(*size):
        assert_close(picture_by(model, image), reference_picture(image, model_spec))


@pytest.mark.parametrize("is_free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize(
    "interpolation", ["area", "bilinear", "bicubic", "lanczos", "bilinear-no-antialias"]
)
@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("box", [None, (0.1, 0.2, 0.93, 0.81)])
def test_every_interpolation_fit_and_box(
    interpolation: str, fit: str, box: Any, is_free: bool
) -> None:
    model_spec = spec((48, 80), "rgb", fit=fit, interpolation=interpolation, crop_box=box)
    model, _ = frame_model(model_spec, "bgr:free" if is_free else "bgr:310x217")
    for image in scenes(217, 310):
        found, expected = picture_by(model, image), reference_picture(image, model_spec)
        difference = np.abs(found - expected)  # the same but for halves, rounded either way
        assert difference.max() <= 1.001
        assert difference.mean() <= 0.25


@pytest.mark.parametrize("is_free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize(
    ("size", "color", "said", "fit"),
    [
        ((1080, 1920), "grey", "bt601:limited", "stretch"),
        ((1080, 1920), "grey", "bt709:limited", "pad"),
        ((720, 1280), "rgb", "bt709:limited", "crop"),
        ((480, 640), "bgr", "bt601:full", "pad"),
        ((478, 854), "rgb", "bt2020:full", "stretch"),
        ((478, 854), "grey", "bt601:full", "crop"),
        ((60, 220), "rgb", "smpte240m:limited", "pad"),
    ],
)
def test_nv12_is_within_a_level_of_the_reference(
    size: tuple[int, int], color: str, said: str, fit: str, is_free: bool
) -> None:
    model_spec = spec((80, 160), color, fit=fit)
    height, width = size
    text = f"nv12:free:{said}" if is_free else f"nv12:{width}x{height}:{said}"
    model, frame = frame_model(model_spec, text)
    for image in (scenes(*size)[0], scenes(*size)[1], scenes(*size)[3]):
        taken = frame_from_image(image, frame)
        assert_close(picture_by(model, taken), picture_from_frame(taken, frame, model_spec))


@pytest.mark.parametrize("said", ["bt601:limited", "bt709:limited", "bt709:full", "bt2020:limited"])
def test_colours_of_nv12_are_ffmpegs(said: str) -> None:
    """Neither the reference's colours nor ours are in this one: FFmpeg makes them at full size."""
    model_spec = spec(96, "rgb")
    model, frame = frame_model(model_spec, f"nv12:640x480:{said}")
    image = scenes(480, 640)[0]
    taken = frame_from_image(image, frame)
    shown = VideoFrame.from_ndarray(taken, format="nv12")
    shown.colorspace = {"bt709": 1, "bt601": 5, "bt2020": 9}[said.partition(":")[0]]
    shown.color_range = 2 if said.endswith("full") else 1
    expected = reference_picture(bgr_from_video_frame(shown), model_spec)
    assert_close(picture_by(model, taken), expected)


@pytest.mark.parametrize("interpolation", ["area", "lanczos"])
def test_a_letterbox_is_the_references_and_is_refused_for_frames_of_any_size(
    interpolation: str,
) -> None:
    preset = {"fit": "letterbox", "crop_box": (5, 20, -25, -20), "interpolation": interpolation}
    model_spec = spec((48, 80), "rgb", **preset)
    model, _ = frame_model(model_spec, "bgr:310x217")
    image = scenes(217, 310)[0]
    assert_close(picture_by(model, image), reference_picture(image, model_spec))
    frame = frame_format_from_text("nv12:free")
    with pytest.raises(ValueError, match="the model's fit is letterbox"):
        frame_from_encoder(model_of(model_spec), model_spec, frame)


def test_a_box_in_pixels_is_cut_and_is_refused_for_frames_of_any_size() -> None:
    model_spec = spec((48, 80), "rgb", crop_box=(5, 20, -25, -20))
    model, _ = frame_model(model_spec, "bgr:310x217")
    image = scenes(217, 310)[0]
    assert_close(picture_by(model, image), reference_picture(image, model_spec))
    frame = frame_format_from_text("bgr:free")
    with pytest.raises(ValueError, match="crop box is in pixels, and may take nothing"):
        frame_from_encoder(model_of(model_spec), model_spec, frame)
    with pytest.raises(ValueError, match="takes nothing of 20 x 20"):
        frame_model(model_spec, "bgr:20x20")


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("interpolation", ["area", "bilinear"])
def test_of_a_frame_of_which_the_box_takes_nothing_there_is_no_picture(
    fit: str, interpolation: str
) -> None:
    model_spec = spec(
        (48, 80), "rgb", fit=fit, interpolation=interpolation, crop_box=(0.07, 0.256, 0.88, 0.3)
    )
    model, _ = frame_model(model_spec, "bgr:free")
    tiny, large = scenes(10, 60)[0], scenes(100, 60)[0]
    with pytest.raises(ImageError, match="takes nothing"):
        reference_picture(tiny, model_spec)
    assert np.isnan(picture_by(model, tiny)).all()
    assert_close(picture_by(model, large), reference_picture(large, model_spec))


@pytest.mark.parametrize("text", ["nv12:1920x1080", "nv12:free:bt709", "bgr:64x48", "bgr:free"])
def test_operators_are_those_that_tensorrt_reads(text: str) -> None:
    for interpolation in ("area", "bicubic"):
        model, _ = frame_model(spec(96, "rgb", fit="pad", interpolation=interpolation), text)
        assert {node.op_type for node in model.graph} <= ALLOWED
        assert {node.domain for node in model.graph} == {""}
        readers = [use.node.op_type for use in model.graph.inputs[0].uses()]
        assert readers == ["Cast"]  # uint8 is for inputs alone
        for node in model.graph:
            if node.op_type in {"ReduceSum", "Slice"}:
                axes = node.inputs[-1]
                assert axes is not None
                assert axes.const_value is not None


@pytest.mark.parametrize("text", ["nv12:64x48", "bgr:free"])
def test_names_of_a_stranger_s_graph_are_no_trouble(text: str) -> None:
    """They are anybody's in a bundle of a graph that was imported."""
    model_spec = spec(32, "rgb")
    shape = ir.Shape(["batch", 3, 32, 32])
    names = ("image", "frame", "frame_picture", "encoder_frame", "frame_cast_0", "mu")
    first, *_, last = values = [ir.val(name, ir.DataType.FLOAT, shape) for name in names]
    nodes = [
        ir.node("Identity", [one], outputs=[other], name="node_frame_cast_0")
        for one, other in itertools.pairwise(values[:-1])
    ]
    one = ir.val(
        "frame_constant_0", const_value=ir.tensor(np.array(1, np.float32), name="frame_constant_0")
    )
    nodes.append(ir.node("Mul", [values[-2], one], outputs=[last], name="frame"))
    graph = ir.Graph(
        [first], [last], nodes=nodes, initializers=[one], opset_imports={"": 20}, name="pixels"
    )
    model = ir.Model(graph, ir_version=10)
    frame = frame_format_from_text(text)
    frame_from_encoder(model, model_spec, frame)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    taken = frame_from_image(scenes(48, 64)[0], frame)
    assert_close(picture_by(model, taken), picture_from_frame(taken, frame, model_spec))
    names_of = [value.name for node in model.graph for value in node.outputs]
    assert len(set(names_of)) == len(names_of)
    assert names_of.count("frame_picture") == 1


def test_bytes_repeat() -> None:
    one, two = (ir.to_proto(frame_model(spec(), "nv12:640x480")[0]) for _ in range(2))
    assert one.SerializeToString() == two.SerializeToString()


def test_a_batch_is_each_of_its_frames() -> None:
    import onnxruntime

    model, _ = frame_model(spec(96, "rgb"), "bgr:200x150")
    images = np.stack(scenes(150, 200))
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    together = session.run(None, {"frame": images})[0] * 255
    for image, found in zip(images, together, strict=True):
        assert np.abs(found - picture_by(model, image)).max() < 1e-3
