"""Video that names no matrix: what it is taken for, judged by the formulas and by ffmpeg."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame

from motorvae.runtime.core.frame import Frame, Mode
from motorvae.runtime.core.spec import Matrix, ModelSpec
from motorvae.runtime.pixels.camera_formats import fitted_from_raw
from motorvae.runtime.pixels.yuv import bgr_from_video_frame, fitted_from_video_frame
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.open import open_source

BARS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]
"""Red, green, blue and their sums, RGB: what differs most between matrices."""
KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
SIZES = [(640, 480, "bt601"), (1280, 720, "bt709"), (1278, 577, "bt709"), (1278, 576, "bt601")]
SIDE = 96  # so that each bar is 16 wide


def spec(matrix: Matrix = "auto") -> ModelSpec:
    return ModelSpec(image_size=SIDE, channels=(8, 8), latent_size=4, matrix=matrix)


def planes_of(width: int, height: int, matrix: str) -> list[npt.NDArray[np.uint8]]:
    """Y, Cb and Cr of six upright bars, limited 4:2:0, by the formulas of ITU-T H.273."""
    kr, kb = KR_KB[matrix]
    bars = np.array(BARS, float)[np.arange(width) * 6 // width]
    red, green, blue = bars.T
    y = kr * red + (1 - kr - kb) * green + kb * blue
    lines = (
        16 + y * 219 / 255,
        *(128 + c * 224 / 255 for c in ((blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr)))),
    )
    small = -(-height // 2)
    return [
        np.tile(
            np.rint(line[:: 1 + bool(number)]).astype(np.uint8), (small if number else height, 1)
        )
        for number, line in enumerate(lines)
    ]


def luma_of_bars() -> npt.NDArray[np.float64]:
    return np.repeat(np.array(BARS) @ [0.299, 0.587, 0.114], 16)


def assert_bars(
    luma: npt.NDArray[np.uint8], expected: npt.NDArray[np.float64], least: float = 1.5
) -> None:
    inside = np.arange(SIDE) % 16 // 4 % 3 != 0  # away from where two bars meet
    assert np.abs(luma - expected)[:, inside].max() <= least


def frame_of(width: int, height: int, matrix: str) -> VideoFrame:
    frame = VideoFrame(width, height, "yuv420p")
    for plane, levels in zip(frame.planes, planes_of(width, height, matrix), strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = levels
        plane.update(rows.tobytes())
    return frame


@pytest.mark.parametrize(("width", "height", "matrix"), SIZES)
def test_its_size_decides_as_in_players(width: int, height: int, matrix: str) -> None:
    frame = frame_of(width, height, matrix)
    assert_bars(fitted_from_video_frame(frame, spec()), luma_of_bars())
    bgr = bgr_from_video_frame(frame)
    for number, bar in enumerate(BARS):
        place = round((number + 0.5) * width / 6)
        assert np.abs(bgr[height // 2, place, ::-1].astype(int) - bar).max() <= 4


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
def test_a_matrix_that_is_named_counts_for_what_names_none(matrix: Any, pixels: str) -> None:
    frame = frame_of(960, 480, matrix)
    if pixels != "yuv420p":
        frame = frame.reformat(format=pixels)
    assert_bars(fitted_from_video_frame(frame, spec(matrix)), luma_of_bars())
    assert_bars(fitted_from_video_frame(frame, spec(), matrix=matrix), luma_of_bars())
    frame.colorspace = 7  # SMPTE 240M
    assert np.array_equal(
        fitted_from_video_frame(frame, spec(matrix)), fitted_from_video_frame(frame, spec())
    )


def test_models_that_do_not_say_were_trained_on_bt601() -> None:
    old = ModelSpec.model_validate({"image_size": SIDE, "channels": (8, 8), "latent_size": 4})
    assert_bars(fitted_from_video_frame(frame_of(1280, 720, "bt601"), old), luma_of_bars())


@pytest.mark.parametrize("fourcc", ["YUYV", "UYVY", "NV12", "NV21", "I420", "YV12"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_a_camera_of_any_size_is_bt601_unless_another_is_named(fourcc: str, matrix: Any) -> None:
    width, height = 1344, 756
    y, cb, cr = planes_of(width, height, matrix)
    if fourcc in {"YUYV", "UYVY"}:
        chroma = np.stack([np.repeat(c, 2, axis=0) for c in (cb, cr)], axis=2).reshape(height, -1)
        raw = np.stack([y, chroma] if fourcc == "YUYV" else [chroma, y], axis=2)
    else:
        order = (cr, cb) if fourcc in {"NV21", "YV12"} else (cb, cr)
        both = np.stack(order, axis=2 if fourcc.startswith("NV") else 0)
        raw = np.concatenate([y, both.reshape(height // 2, width)])
    mode = Mode(width, height, fourcc=fourcc)
    named = "auto" if matrix == "bt601" else matrix
    luma = fitted_from_raw(raw, mode, spec(), named)
    assert luma is not None
    assert_bars(luma, luma_of_bars())


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg here")
@pytest.mark.parametrize(("width", "height", "matrix"), SIZES[:2])
def test_ffmpeg_finds_the_same_in_a_clip(
    tmp_path: Path, width: int, height: int, matrix: str
) -> None:
    """The judge is told the matrix, and asked for full-range BT.601."""
    path = tmp_path / "bars.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", 25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"qp": "1"}
        for packet in (*stream.encode(frame_of(width, height, matrix)), *stream.encode(None)):
            container.mux(packet)
    scale = f"scale=in_color_matrix={matrix}:in_range=tv:out_color_matrix=bt601:out_range=pc"
    command = ["ffmpeg", "-v", "error", "-i", path, "-vf", f"{scale},format=yuvj444p", "-f"]
    raw = subprocess.run([*command, "rawvideo", "-"], capture_output=True, check=True).stdout
    y = np.frombuffer(raw, np.uint8)[: width * height].reshape(height, width)
    expected = y[height // 2, (np.arange(SIDE) * 2 + 1) * width // (2 * SIDE)].astype(float)
    for request in (CaptureRequest(spec=spec()), CaptureRequest(spec=spec("bt601"), matrix="auto")):
        with open_source(str(path), request) as source:
            item = source.read()
        assert isinstance(item, Frame)
        assert_bars(item.image, expected, 2)
