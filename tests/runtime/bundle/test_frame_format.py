from __future__ import annotations

import pytest
from pydantic import ValidationError

from motorvae.runtime.bundle.frame_format import FrameFormat, frame_format_from_text
from motorvae.runtime.bundle.graph_check import budget_of
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.core.errors import ConfigError
from motorvae.runtime.core.spec import ModelSpec


@pytest.mark.parametrize(
    ("text", "said", "shape"),
    [
        ("nv12:1920x1080", "nv12:1920x1080:bt601:limited", (1620, 1920)),
        ("nv12:64x48:full:bt2020", "nv12:64x48:bt2020:full", (72, 64)),
        ("bgr:853x479", "bgr:853x479", (479, 853, 3)),
        ("nv12:free", "nv12:free:bt601:limited", ("rows", "width")),
        ("bgr:free", "bgr:free", ("height", "width", 3)),
    ],
)
def test_a_format_reads_back(text: str, said: str, shape: tuple[int | str, ...]) -> None:
    frame = frame_format_from_text(text)
    assert str(frame) == said
    assert frame.shape == shape
    assert frame_format_from_text(said) == frame


@pytest.mark.parametrize(
    "text",
    [
        *("", "nv12", "nv12:", "nv12:64", "nv12:64x", "nv12:-2x4", "nv12:6x5", "nv12:²x4"),
        *("rgb:4x4", "bgr:9000x2", "bgr:8192x8192", "bgr:free:full", "nv12:4x4:full:limited"),
        "nv12:4x4:auto",
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="take such as nv12:1920x1080"):
        frame_format_from_text(text)


def test_matrix_and_range_belong_to_nv12() -> None:
    with pytest.raises(ValidationError, match="which needs both"):
        FrameFormat(layout="nv12", width=4, height=4, matrix="bt601")
    with pytest.raises(ValidationError, match="which needs both"):
        FrameFormat(layout="bgr", width=4, height=4, matrix="bt601", range="full")
    with pytest.raises(ValidationError, match="both sides"):
        FrameFormat(layout="bgr", width=4, height=None)


def test_only_graphs_that_take_frames_have_one() -> None:
    spec, frame = ModelSpec(), frame_format_from_text("bgr:64x48")
    (tensor,) = GraphKey("encoder", variant="bgr").inputs(spec, frame)
    assert (tensor.name, tensor.dtype, tensor.shape) == ("frame", "uint8", ("batch", 48, 64, 3))
    for key, given in (
        (GraphKey("encoder"), frame),
        (GraphKey("encoder", variant="bgr"), None),
        (GraphKey("encoder", variant="nv12"), frame),
        (GraphKey("decoder", variant="bgr"), frame),
    ):
        with pytest.raises(ValueError, match="frames"):
            key.inputs(spec, given)


def test_no_frame_makes_a_file_larger_than_protobuf_has() -> None:
    frame = frame_format_from_text("bgr:7680x4320")
    for spec in (ModelSpec(), ModelSpec(image_size=4096, channels=None)):
        assert budget_of(spec, frame).file_bytes < 1 << 31
